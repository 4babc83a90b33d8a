"""The robot keeps the contract."""

from __future__ import annotations

from docs.examples.two_joint_arm import TwoJointArm
from wm_nodes.robots.robot import Robot
from wm_nodes.robots.testing import RobotContract


class TestTwoJointArm(RobotContract):
    def make_robot(self) -> Robot:
        return TwoJointArm(time_limit=5)
