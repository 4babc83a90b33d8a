"""Compensation of delay: the effect of actions that were sent but are not observed yet.

An action takes effect some time after the observation that it is chosen from: the age of the
image, the planning time, and the lag of the driver. A plan from the observation itself corrects
errors that earlier actions already correct, and overshoots. So the state is first advanced by the
pending actions. `PendingActions` lists them; the caller applies them to its model (a world model by
imagination, an end effector's position by adding displacements).
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from wm_nodes.records import Vector

KEEP_S = 2.0


class PendingActions:
    """Sent actions with their times on one steady clock."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, float, Vector]] = deque()

    def sent(self, action: Vector, begin_s: float, seconds: float) -> None:
        """Add an action (A,) that is commanded from `begin_s` on for `seconds`."""
        self._sent.append((begin_s, begin_s + seconds, action))
        while self._sent and self._sent[0][1] < begin_s - KEEP_S:
            self._sent.popleft()

    def between(self, start_s: float, end_s: float) -> list[tuple[Vector, float]]:
        """Return (action (A,), seconds) of the commands in a span of time, in order."""
        actions = []
        for begin, end, action in self._sent:
            seconds = min(end, end_s) - max(begin, start_s)
            if seconds > 0:
                actions.append((action, seconds))
        return actions

    def displacement(self, start_s: float, end_s: float) -> npt.NDArray[np.float64]:
        """Return the sum of velocities (A,) sent in a span of time, times their durations."""
        parts = [action.astype(np.float64) * s for action, s in self.between(start_s, end_s)]
        return np.sum(parts, axis=0) if parts else np.zeros(0)


class LagMeter:
    """Measures the lag of a robot: the shift with the best fit of commanded and measured positions.

    `put` takes both once each period; `lag_s` is the best shift over the newest window in which the
    robot has moved enough.
    """

    def __init__(self, period_s: float, window_s: float = 2.0, longest_s: float = 0.5) -> None:
        self._period_s, self._shifts = period_s, round(longest_s / period_s)
        size = round(window_s / period_s) + self._shifts
        self._commanded: deque[npt.NDArray[np.float64]] = deque(maxlen=size)
        self._measured: deque[npt.NDArray[np.float64]] = deque(maxlen=size)
        self.lag_s = 0.0

    def put(self, commanded: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]) -> None:
        """Add both positions (n,) of one period."""
        self._commanded.append(commanded)
        self._measured.append(measured)

    def measure(self, enough: float = 0.02) -> float:
        """Return the lag [s]; the last measured one while there is too little motion."""
        if len(self._commanded) <= 2 * self._shifts:
            return self.lag_s
        commanded, measured = np.array(self._commanded), np.array(self._measured)
        if np.ptp(commanded, axis=0).max() < enough:
            return self.lag_s
        count = len(commanded) - self._shifts
        off = [
            float(((measured[-count:] - commanded[-count - k : len(commanded) - k]) ** 2).mean())
            for k in range(self._shifts + 1)
        ]
        self.lag_s = int(np.argmin(off)) * self._period_s
        return self.lag_s
