"""How late plans act, and what is done until then: a plan begins where the robot will be.

The observation at time t is answered by a plan that comes `thinking` later, and what is commanded
acts `actuation` later still. Until then the robot does what is on its way: the newest actions that
were executed, and the next ones of the plan before.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from wm_nodes.cores.records import Step, Vector

KEEP = 64  # newest actions
SMOOTH = 0.2  # weight of the newest time in the mean


class Delay:
    """Measures how long answers take, remembers what was done."""

    def __init__(self, actuation_s: float = 0.0) -> None:
        """`actuation_s`: how much later than in training commands act."""
        self.actuation_s, self.thinking_s = actuation_s, 0.0
        self._done: deque[Vector] = deque(maxlen=KEEP)
        self._heard_ns = -1

    def heard(self, step: Step) -> None:
        """Take note of every step."""
        if step.is_first:
            self._done.clear()
        elif step.stamp_ns > self._heard_ns:
            self._done.append(step.executed)
        self._heard_ns = step.stamp_ns

    def took(self, seconds: float) -> None:
        """An answer was given so long after its observation was made."""
        if self.thinking_s:
            self.thinking_s += SMOOTH * (seconds - self.thinking_s)
        else:
            self.thinking_s = seconds

    def underway(self, rest: Vector, period_s: float) -> tuple[Vector, int]:
        """Return what acts (n, A) before a plan for the newest observation can, oldest first, and
        how many of these actions were commanded before it.

        rest: what the plan before says from now on (N, A); where it ends, the robot stands still.
        """
        if not period_s:
            return rest[:0], 0
        before = min(round(self.actuation_s / period_s), KEEP)
        after = round(self.thinking_s / period_s)
        still = np.zeros((max(before, after), rest.shape[1]), np.float32)
        done = np.concatenate([still[:before], *(each[None] for each in self._done)])
        coming = np.concatenate([rest, still])[:after]
        return np.concatenate([done[len(done) - before :], coming]), before


def measured_lag(
    executed: npt.ArrayLike, places: npt.ArrayLike, period_s: float, most_s: float = 1.0
) -> float:
    """Return by how many seconds places (T + 1, A) follow the velocities executed (T, A) between
    them: the lag from 0 to `most_s` with the least squared deviation, to 5 ms."""
    speed, where = np.asarray(executed, np.float64), np.asarray(places, np.float64)
    if len(where) != len(speed) + 1 or speed.shape[1:] != where.shape[1:]:
        raise ValueError(f"places: expected one more than {speed.shape}, got {where.shape}")
    meant = np.concatenate([np.zeros_like(where[:1]), np.cumsum(speed * period_s, 0)])
    times = period_s * np.arange(len(where))
    lags = np.arange(0.0, most_s + 1e-9, 0.005)

    def deviation(lag: float) -> float:
        late = [np.interp(times - lag, times, column) for column in meant.T]
        off = where - np.stack(late, 1)
        return float(np.square(off - off.mean(0)).sum())

    return min(lags.tolist(), key=deviation)
