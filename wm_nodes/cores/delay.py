"""How late plans act, and what is done until then: a plan begins where the robot will be.

The observation at time t is answered by a plan that comes `thinking` later, and what is commanded
acts `actuation` later still. Until then the robot does what is on its way: the newest actions that
were executed, and the next ones of the plan before.
"""

from __future__ import annotations

from collections import deque

import numpy as np

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
