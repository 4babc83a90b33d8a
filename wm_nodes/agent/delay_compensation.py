"""How late plans act, and what is done until then: a plan begins where the robot will be.

The observation at time t is answered by a plan that comes `thinking` later, and what is commanded
acts `actuation` later still. Until then the robot does what is on its way: the newest actions that
were executed, and the next ones of the plan before.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from wm_nodes.records import Step, Vector
from wm_nodes.robots.hold_action import still

KEEP = 64  # newest actions
SMOOTH = 0.2  # weight of the newest time in the mean


class Delay:
    """Measures how long answers take, remembers what was done."""

    def __init__(self, actuation_s: float = 0.0) -> None:
        """`actuation_s`: how much later than in training commands act."""
        self.actuation_s, self.thinking_s = actuation_s, 0.0
        self._done: deque[Vector] = deque(maxlen=KEEP)
        self._heard_ns = -1
        self._names: tuple[str, ...] = ()
        self._last: Vector = np.zeros(0, np.float32)  # what was commanded before the newest step

    def heard(self, step: Step) -> None:
        """Take note of every step."""
        self._names, self._last = step.names, step.commanded
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
        Call `heard` first.
        """
        if not period_s:
            return rest[:0], 0
        before = min(round(self.actuation_s / period_s), KEEP)
        after = round(self.thinking_s / period_s)
        if not before and not after:
            return rest[:0], 0
        last = rest[-1] if len(rest) else self._last
        first = self._done[0] if self._done else self._last
        earlier, later = (still(self._names, each)[None] for each in (first, last))
        done = np.concatenate([earlier.repeat(before, 0), *(each[None] for each in self._done)])
        coming = np.concatenate([rest, later.repeat(after, 0)])[:after]
        return np.concatenate([done[len(done) - before :], coming]), before
