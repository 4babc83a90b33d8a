"""The arm keeps the contract of simulators."""

from __future__ import annotations

from docs.examples.two_joint_arm import TwoJointArm
from wm_nodes.robots.testing import SimulatorContract


class TestTwoJointArm(SimulatorContract):
    def make_robot(self) -> TwoJointArm:
        return TwoJointArm(time_limit=5)
