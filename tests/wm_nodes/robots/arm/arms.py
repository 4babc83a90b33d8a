"""The shipped arms, for tests."""

from __future__ import annotations

from functools import cache

from wm_nodes.robots.arm.config.arm_config import ArmConfig, find_config, read_config
from wm_nodes.robots.arm.geometry.kinematics import Kinematics

NAMES = ("arm_sim", "ur5e", "fr3", "gen3", "jaco2")


@cache
def config(name: str = "arm_sim") -> ArmConfig:
    return read_config(find_config(name))


@cache
def kinematics(name: str = "arm_sim") -> Kinematics:
    arm = config(name)
    return Kinematics(arm.model, arm.limits.joints, arm.hand)
