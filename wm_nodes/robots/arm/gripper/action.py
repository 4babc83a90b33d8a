"""A gripper as one dimension of an arm's actions: a speed, or an opening.

velocity: -1 closes and 1 opens at full speed. position: the target opening, -1 closed to 1 open.
Either way the safety filter takes a velocity of the gripper's joint.
"""

from __future__ import annotations

import math

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.hold_action import POSITION

THERE = 1e-3  # of the range: so near the target opening is reached
LAG_PERIODS = 2.0  # control periods from a target to the path


class GripperAction:
    """Translates between actions and the gripper's joint [rad; m where it slides]."""

    def __init__(self, config: ArmConfig) -> None:
        gripper, limits = config.gripper, config.limits
        if gripper is None:
            raise ValueError(f"robot {config.robot}: got no gripper, expected `gripper:`")
        self.positions = gripper.action == "position"
        self.name = f"gripper{POSITION}" if self.positions else "gripper"
        self._low, self._high = float(limits.low[-1]), float(limits.high[-1])
        self._speed = float(limits.velocity[-1])
        lag_s = LAG_PERIODS / config.rate_hz + float(limits.acceleration[-1] / limits.jerk[-1])
        self._gain_per_s = 1.0 / (math.e * lag_s)  # the highest without overshoot after such a lag

    def opening(self, position: float) -> float:
        """Return the opening of a joint position: -1 (`low`, closed) to 1 (`high`, open)."""
        share = (position - self._low) / (self._high - self._low)
        return min(max(2.0 * share - 1.0, -1.0), 1.0)

    def velocity(self, action: float, position: float) -> float:
        """Return the joint velocity of an action with the path at `position`."""
        if not self.positions:
            return action * self._speed
        width = self._high - self._low
        off = self._low + 0.5 * (action + 1.0) * width - position
        if abs(off) < THERE * width:
            return 0.0
        return min(max(self._gain_per_s * off, -self._speed), self._speed)

    def executed(self, begin: float, end: float, measured: float, seconds: float) -> float:
        """Return what was done in the action's terms.

        velocity: of the path from `begin` to `end` in so many seconds. position: the measured
        opening, which an object between the fingers keeps from the target.
        """
        if self.positions:
            return self.opening(measured)
        return (end - begin) / seconds / self._speed

    def held(self, position: float) -> float:
        """Return the action that keeps the gripper commanded to `position`."""
        return self.opening(position) if self.positions else 0.0
