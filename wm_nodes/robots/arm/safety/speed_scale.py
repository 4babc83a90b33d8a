"""How fast an arm may move now: the operator's speed scale and the driver's; the smaller counts.

A scale is a share of all velocity limits. Free of ROS: `wm_nodes.ros.driver_services` gives it
the driver's values.
"""

from __future__ import annotations

import math
from collections import Counter

LEAST, MOST = 0.05, 1.0  # of the operator's scale
PAUSED = 0.005  # a driver below this does not move: paused on its pendant
ROUNDING = 1e-3  # drivers report 1.0 with the error of their own arithmetic
UNKNOWN, PAUSE = "driver_speed", "driver_paused"  # faults
FALL = 0.8  # a driver whose scale becomes less than this share of what it was has slowed down


class Slowdown:
    """For how long an arm may lag because its driver has slowed down at once and the path cannot.

    most_s: how long the path takes to slow down at most [s]. A scale that falls again and again
    counts once in twice that time, so that the lag is watched in between.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._usual = MOST  # the largest scale since the last slowdown
        self._until_s = self._again_s = -math.inf

    def update(self, scale: float, now_s: float) -> None:
        """Take in the driver's scale of this control period, 0 to 1."""
        if scale < PAUSED:
            self._until_s = now_s + self._most_s
        elif scale < FALL * self._usual and now_s >= self._again_s:
            self._until_s, self._again_s = now_s + self._most_s, now_s + 2 * self._most_s
            self._usual = scale
        self._usual = max(self._usual, scale)

    def lasts(self, now_s: float) -> bool:
        return now_s < self._until_s


class SpeedScale:
    """Call `take` from any thread with the driver's values, `now` in the control thread.

    operator: LEAST to MOST. Until `watch` is called the driver is taken to move at full speed.
    """

    def __init__(self, operator: float = MOST) -> None:
        self.operator = operator
        self.dropped: Counter[str] = Counter()  # values of the driver that were not used, by reason
        self._timeout_s = 0.0
        self._driver: tuple[float, float] | None = None  # the newest value, and when it came [s]
        self._watched = False

    def watch(self, timeout_s: float) -> None:
        """From now on the driver's scale must be known: no value is used longer than timeout_s."""
        self._timeout_s, self._watched = timeout_s, True

    def set_operator(self, scale: float) -> str:
        """Set the operator's scale; returns "" or why it is refused."""
        if not (math.isfinite(scale) and LEAST <= scale <= MOST):
            return f"speed_scale: got {scale:g}, expected {LEAST:g} to {MOST:g}"
        self.operator = scale
        return ""

    def take(self, scale: float, now_s: float) -> str:
        """Take in the driver's scale; returns "" or the reason why it is dropped.

        now_s: steady time [s]. A dropped value does not restart the time-out.
        """
        reason = ""
        if not math.isfinite(scale):
            reason = "non-finite"
        elif not 0.0 <= scale <= MOST + ROUNDING:
            reason = "range"
        if reason:
            self.dropped[reason] += 1
        else:
            self._driver = min(scale, MOST), now_s
        return reason

    def driver(self, now_s: float) -> float | None:
        """Return the driver's scale; None: unknown. 1 if it is not watched."""
        if not self._watched:
            return MOST
        newest = self._driver
        if newest is None or now_s - newest[1] > self._timeout_s:
            return None
        return newest[0]

    def now(self, now_s: float) -> tuple[float, str]:
        """Return the scale that counts (above 0), and the fault that forbids motion, or ""."""
        driver = self.driver(now_s)
        if driver is None:
            return self.operator, UNKNOWN
        if driver < PAUSED:
            return self.operator, PAUSE
        return min(self.operator, driver), ""
