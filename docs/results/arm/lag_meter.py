"""Planning from where the robot will be: the effect of actions that were sent but are not seen yet.

Between an observation and the moment when an action chosen from it takes effect lies a delay: the
picture's age, thinking, and the driver's own lag. A plan made from the observation itself corrects
errors that are already being corrected, and overshoots. So the state is first moved forward by
the actions on their way. `PendingActions` says which those are; the caller rolls its model through
them (a world model by imagining, a hand's position by adding displacements).
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from wm_nodes.records import Vector

KEEP_S = 2.0


class PendingActions:
    """What was sent, and when, by one steady clock."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, float, Vector]] = deque()

    def forget(self) -> None:
        """A new episode: what was sent before no longer matters."""
        self._sent.clear()

    def sent(self, action: Vector, begin_s: float, seconds: float) -> None:
        """An action (A,) was commanded from `begin_s` on for so long."""
        self._sent.append((begin_s, begin_s + seconds, action))
        while self._sent and self._sent[0][1] < begin_s - KEEP_S:
            self._sent.popleft()

    def between(self, start_s: float, end_s: float) -> list[tuple[Vector, float]]:
        """Return (action (A,), seconds) of what was commanded in that time, in order."""
        found = []
        for begin, end, action in self._sent:
            seconds = min(end, end_s) - max(begin, start_s)
            if seconds > 0:
                found.append((action, seconds))
        return found

    def displacement(self, start_s: float, end_s: float) -> npt.NDArray[np.float64]:
        """Return what velocities (A,) sent in that time add up to."""
        parts = [action.astype(np.float64) * s for action, s in self.between(start_s, end_s)]
        return np.sum(parts, axis=0) if parts else np.zeros(0)


class LagMeter:
    """Measures how late a robot follows: the shift at which what it did best fits what was asked.

    Give it both once each period; `lag_s` is the best shift over the newest window, once the robot
    has moved enough to tell.
    """

    def __init__(self, period_s: float, window_s: float = 2.0, longest_s: float = 0.5) -> None:
        self._period_s, self._shifts = period_s, round(longest_s / period_s)
        size = round(window_s / period_s) + self._shifts
        self._asked: deque[npt.NDArray[np.float64]] = deque(maxlen=size)
        self._seen: deque[npt.NDArray[np.float64]] = deque(maxlen=size)
        self.lag_s = 0.0

    def put(self, asked: npt.NDArray[np.float64], seen: npt.NDArray[np.float64]) -> None:
        """Both positions (n,) of one period."""
        self._asked.append(asked)
        self._seen.append(seen)

    def measure(self, enough: float = 0.02) -> float:
        """Return the lag [s]; the last one known while there is too little motion to tell."""
        if len(self._asked) <= 2 * self._shifts:
            return self.lag_s
        asked, seen = np.array(self._asked), np.array(self._seen)
        if np.ptp(asked, axis=0).max() < enough:
            return self.lag_s
        count = len(asked) - self._shifts
        off = [
            float(((seen[-count:] - asked[-count - k : len(asked) - k]) ** 2).mean())
            for k in range(self._shifts + 1)
        ]
        self.lag_s = int(np.argmin(off)) * self._period_s
        return self.lag_s
