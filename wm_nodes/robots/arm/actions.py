"""An arm's actions: names and bounds, the joint velocities they command, what was executed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.gripper.action import GripperAction
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import Vector

UPRIGHT_PER_S = 3.0  # how fast a turned end effector is turned back


class PathPoint(NamedTuple):
    """A command: joints (n,) [rad, m], position of the end effector (3,) [m]."""

    x: Floats
    end_effector: Floats


class ArmActions:
    """Translates actions (A,) of one arm in one task: `hand_velocity` or `joint_velocity`, and the
    gripper's where the task has it. `spec`: names, units, bounds.
    """

    def __init__(self, config: ArmConfig, kinematics: Kinematics, task: str) -> None:
        self._config, self._kinematics = config, kinematics
        self._upright = kinematics.orientation(config.home)
        self._gripper = GripperAction(config) if config.gripper_acts(task) else None
        self._of_joints = config.action.kind == "joint_velocity"
        self.spec = self._make_spec()
        self._low = np.array(self.spec.low).astype(np.float32)
        self._high = np.array(self.spec.high).astype(np.float32)

    def joint_velocities(self, action: Floats, x: Floats) -> Floats:
        """Return the joint velocities (n,) [rad/s] of an action (A,) at joints x (n,)."""
        n, count = len(self._config.limits.joints), self._config.arm_joints
        out = np.zeros(n)
        if self._gripper is not None:
            out[count] = self._gripper.velocity(action[-1], x[count])
        if self._of_joints:
            out[:count] = action[:count]
            return out
        if not action[:3].any():
            return out  # an action of zero moves nothing: the end effector is not even turned back
        back = UPRIGHT_PER_S * self._kinematics.turned(x, self._upright)
        out[:count] = self._kinematics.follow(x, np.concatenate([action[:3], back]), count)
        return out

    def holding(self, x: Floats) -> Vector:
        """Return the action (A,) that holds the arm at commanded joints x (n,)."""
        held = np.zeros(len(self.spec), np.float32)
        if self._gripper is not None:
            held[-1] = self._gripper.held(x[-1])
        return held

    def executed(
        self, begin: PathPoint, end: PathPoint, measured: Floats, seconds: float
    ) -> Vector:
        """Return the action (A,) that was executed between two commands."""
        count = self._config.arm_joints
        if self._of_joints:
            parts = [(end.x - begin.x)[:count] / seconds]
        else:
            parts = [(end.end_effector - begin.end_effector) / seconds]
        if self._gripper is not None:
            places = begin.x[count], end.x[count], measured[count]
            parts.append(np.array([self._gripper.executed(*places, seconds)]))
        done = np.concatenate(parts).astype(np.float32)
        return np.clip(done, self._low, self._high)

    def _make_spec(self) -> VectorSpec:
        config, limits = self._config, self._config.limits
        count = config.arm_joints
        if self._of_joints:
            names, units = list(limits.joints[:count]), ["rad/s"] * count
            high = [config.action.speed * float(v) for v in limits.velocity[:count]]
        else:
            names, units = ["x", "y", "z"], ["m/s"] * 3
            high = [config.action.speed] * 3
        if self._gripper is not None:
            names, units, high = [*names, self._gripper.name], [*units, "1"], [*high, 1.0]
        return VectorSpec(tuple(names), tuple(units), tuple(-v for v in high), tuple(high))
