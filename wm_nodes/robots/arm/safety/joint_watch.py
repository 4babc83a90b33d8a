"""Where the arm is by its joint states: which are accepted, and whether it stands or is silent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats

AGREE = 5  # joint states in a row that must agree on a position that is new
STEP = 0.02  # rad (m) of noise between two
SINCE_S = 0.1
FARTHEST = 20.0  # rad (m): no joint is there
STILL_RAD, STILL_S = 0.01, 0.2  # an arm stands that stayed so near to one position for so long


class JointWatch:
    """Takes in joint states. `measured`: the last position (n,) that was accepted; None: none yet.

    Positions that jump are not accepted unless several in a row agree: a broken or second publisher
    must neither move the arm nor count as a living driver.

    silent_s: joint states older than this are silence [s]; 0: never. grace_s: how much longer than
    the others each joint may be silent, (n,) or one number [s]; so much further it may have moved.
    """

    def __init__(
        self,
        limits: ArmLimits,
        arm_joints: int,
        silent_s: float,
        grace_s: npt.ArrayLike = 0.0,
    ) -> None:
        self._velocity, self._arm = 2.0 * limits.velocity, arm_joints
        self._silent_s = silent_s or np.inf
        self._grace_s = np.asarray(grace_s, np.float64)
        self.measured: Floats | None = None
        self.measured_s = -np.inf  # when it arrived
        self._claimed: Floats | None = None  # joint states that are not accepted yet
        self._claimed_s, self._agreed = -np.inf, 0
        self._stand: Floats | None = None  # a position near which the arm has been since then
        self._stand_since_s = np.inf

    def take(self, position: Floats, now_s: float) -> bool:
        """Take in a position (n,) [rad, m] that arrived at the steady time `now_s` [s].

        Returns whether it is accepted.
        """
        if not self._plausible(position, now_s):
            self.forget_rest()
            return False
        silent = self.silent(now_s)
        self.measured, self.measured_s = position, now_s
        near = (
            self._stand is not None and (np.abs(position - self._stand) <= STILL_RAD)[: self._arm]
        )
        if silent or not np.all(near):
            self._stand, self._stand_since_s = position, now_s
        return True

    def silent(self, now_s: float) -> bool:
        """Is there no accepted position, or none that is fresh?"""
        return self.measured is None or not 0 <= now_s - self.measured_s <= self._silent_s

    def stands(self, now_s: float) -> bool:
        """Has the measured arm been at rest for a while?"""
        return now_s - self._stand_since_s >= STILL_S

    def forget_rest(self) -> None:
        """The arm must be measured to stand for a while again."""
        self._stand, self._stand_since_s = None, np.inf

    def _plausible(self, position: Floats, now_s: float) -> bool:
        if self.measured is not None:
            since = min(max(now_s - self.measured_s, 0.0), SINCE_S) + self._grace_s
            if (np.abs(position - self.measured) <= self._velocity * since + STEP).all():
                self._agreed = 0
                return True
        since = min(max(now_s - self._claimed_s, 0.0), SINCE_S) + self._grace_s
        near = (
            self._claimed is not None
            and (np.abs(position - self._claimed) <= self._velocity * since + STEP).all()
        )
        sane = (np.abs(position) < FARTHEST).all()
        self._agreed = self._agreed + 1 if near and sane else int(sane)
        self._claimed, self._claimed_s = position, now_s
        return self._agreed >= AGREE
