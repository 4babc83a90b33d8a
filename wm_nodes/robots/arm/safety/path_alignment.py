"""How far the measured arm is from the commanded path, and where a path begins."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.safety_filter import POSITIONS, SafetyFilter

NOISE = 0.005  # rad (m): how far beyond a limit a resting joint may seem to be
MOVED = 0.1  # share of a gripper's range: what moved further since a stop was moved by hand


class PathAlignment:
    """Compares measured positions (n,) [rad, m] with the path of a filter, and starts paths.

    arm_joints: the first joints; a gripper that holds something may lag behind.
    """

    def __init__(self, filter: SafetyFilter, arm_joints: int) -> None:
        self._filter, self._arm = filter, arm_joints
        self._reach = filter.limits.velocity * filter.period_s
        self.positions = filter.interface in POSITIONS  # are positions commanded?
        self.starts = 0  # how often the path was started where the arm is measured
        self.unsent = False  # were the last setpoints computed, but not sent?
        self.gripper: Floats | None = None  # where the gripper was measured when a stop began

    def offsets(self, measured: Floats) -> Floats:
        """Return how far each joint of the arm is from the command [rad]."""
        return np.abs(measured - self._filter.x)[: self._arm]

    def offset(self, measured: Floats) -> float:
        """Return how far the arm is from where it is commanded to be [rad]."""
        return float(self.offsets(measured).max(initial=0.0))

    def farthest(self, measured: Floats) -> str:
        """Return the name of the joint that is furthest from its command."""
        return self._filter.limits.joints[int(self.offsets(measured).argmax())]

    def within_reach(self, measured: Floats) -> bool:
        """Is the command within one period's reach of the measured arm?"""
        return bool((self.offsets(measured) <= self._reach[: self._arm]).all())

    def place(self, measured: Floats) -> Floats:
        """Return where a path begins (n,). A gripper goes on holding, with the opening last
        commanded, unless it was moved by hand since the arm stopped.
        """
        place, limits = measured.copy(), self._filter.limits
        if self.gripper is not None:
            moved = np.abs(place[self._arm :] - self.gripper)
            held = moved <= MOVED * (limits.high - limits.low)[self._arm :]
            place[self._arm :] = np.where(held, self._filter.x[self._arm :], place[self._arm :])
        return place

    def start(self, measured: Floats) -> None:
        """Start a path at rest; a sensor's noise does not take a joint beyond its limit."""
        limits, place = self._filter.limits, self.place(measured)
        inside = np.clip(place, limits.low, limits.high)
        noise = np.minimum(NOISE, 0.5 * self._reach)
        self._filter.start(np.where(np.abs(place - inside) < noise, inside, place))
        self.starts += 1
        self.unsent = False
