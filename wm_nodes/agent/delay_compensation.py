"""Latency compensation: a plan starts at the state that the robot will have when it takes effect.

The observation at time t is answered by a plan that is ready `planning_s` later, and a command acts
`actuation_s` after it is sent. Until then the robot executes pending actions: the newest actions
that were executed, and the next actions of the previous plan.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from wm_nodes.records import Step, Vector
from wm_nodes.robots.hold_action import still

KEEP = 64  # newest actions
SMOOTH = 0.2  # weight of the newest planning time in the running mean


class DelayCompensator:
    """Running mean of the planning time, and the newest executed actions."""

    def __init__(self, actuation_s: float = 0.0) -> None:
        """`actuation_s`: how much later [s] than in training a command acts."""
        self.actuation_s, self.planning_s = actuation_s, 0.0
        self._executed: deque[Vector] = deque(maxlen=KEEP)
        self._last_stamp_ns = -1
        self._names: tuple[str, ...] = ()
        self._commanded: Vector = np.zeros(0, np.float32)  # the command before the newest step

    def record(self, step: Step) -> None:
        """Record the executed action of a step. Call it for every step; repeated steps count
        once."""
        self._names, self._commanded = step.names, step.commanded
        if step.is_first:
            self._executed.clear()
        elif step.stamp_ns > self._last_stamp_ns:
            self._executed.append(step.executed)
        self._last_stamp_ns = step.stamp_ns

    def record_planning_time(self, seconds: float) -> None:
        """Update the running mean with the time between an observation and its plan."""
        if self.planning_s:
            self.planning_s += SMOOTH * (seconds - self.planning_s)
        else:
            self.planning_s = seconds

    def pending_actions(self, rest: Vector, period_s: float) -> tuple[Vector, int]:
        """Return the actions (n, A) that act before a plan for the newest observation can, oldest
        first, and how many of them were commanded before it.

        rest: the remaining actions (N, A) of the previous plan; after its end the robot stands
        still. Call `record` first.
        """
        if not period_s:
            return rest[:0], 0
        before = min(round(self.actuation_s / period_s), KEEP)
        after = round(self.planning_s / period_s)
        if not before and not after:
            return rest[:0], 0
        last = rest[-1] if len(rest) else self._commanded
        first = self._executed[0] if self._executed else self._commanded
        earlier, later = (still(self._names, each)[None] for each in (first, last))
        past = [earlier.repeat(before, 0), *(each[None] for each in self._executed)]
        executed = np.concatenate(past)
        planned = np.concatenate([rest, later.repeat(after, 0)])[:after]
        return np.concatenate([executed[len(executed) - before :], planned]), before
