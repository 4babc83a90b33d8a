"""From transitions to rows of a log: the only place where an outcome moves to the row before it.

On topics, `step` belongs to the observation that it led to. In the log, row t has o_t, the action
executed from it and its outcome: row t is complete when step t+1 has been received.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_nodes.records import Depth, Image, Step, Vector

Row = dict[str, Any]


@dataclass
class _Pending:
    """The received parts of one observation; `parts` are fields of a row."""

    step: Step
    parts: dict[str, Any] = field(default_factory=dict)


class RowAssembler:
    """Combines images, proprioception and steps of exactly equal stamps into rows of episodes.

    Parts of an observation may be received in any order, and twice. An observation that misses a
    part is dropped when `patience` later ones are complete, or when a later one is complete and its
    step is repeated. The row before it then ends its episode (`is_last`) and the row after it
    starts another one, so that rows are never misaligned.
    """

    def __init__(
        self, fields: tuple[str, ...], action_dims: int, patience: int = 8, keep: int = 128
    ) -> None:
        """`fields` are the observation's: image/<camera>, sensor/<name>, proprio."""
        self._fields, self._patience, self._keep = frozenset(fields), patience, keep
        self._zeros = np.zeros(action_dims, np.float32)
        self._queue: deque[_Pending] = deque()  # steps from the first incomplete observation on
        self._early: dict[int, dict[str, Any]] = {}  # parts whose step is not received yet
        self._held: _Pending | None = None  # complete, waits for the next step
        self._newest_ns = -1  # stamp of the newest step
        self._broken = True  # the next row starts an episode
        self.joined_ns = -1  # stamp of the newest complete observation
        self.unjoined = 0  # observations dropped
        self.cut = 0  # incomplete episodes

    def put(self, name: str, stamp_ns: int, value: Image | Depth | Vector) -> list[Row]:
        """Add one part of an observation; return the rows that are complete now."""
        for pending in self._queue:
            if pending.step.stamp_ns == stamp_ns:
                pending.parts.setdefault(name, value)
                return self._advance()
        if self._held is None or stamp_ns != self._held.step.stamp_ns:
            self._early.setdefault(stamp_ns, {})[name] = value
            if len(self._early) > self._keep:
                del self._early[next(iter(self._early))]
        return []

    def step(self, step: Step) -> list[Row]:
        """Add one step; return the rows that are complete now."""
        if step.stamp_ns == self._newest_ns:
            return self._repeated()
        rows = self._on_restart(step) if step.stamp_ns < self._newest_ns else []
        self._newest_ns = step.stamp_ns
        self._queue.append(_Pending(step, self._early.pop(step.stamp_ns, {})))
        return rows + self._advance()

    def finish(self) -> list[Row]:
        """End the open episode; return its last row."""
        self._queue.clear()
        rows = self._close_held(broken=True)
        self._broken = True
        return rows

    # --------------------------------------------------------------------------------------------

    def _on_restart(self, step: Step) -> list[Row]:
        """The robot restarted and its clock went back: close the earlier episode."""
        self.unjoined += len(self._queue)
        self.joined_ns = -1
        self._early = {s: parts for s, parts in self._early.items() if s <= step.stamp_ns}
        return self.finish()

    def _repeated(self) -> list[Row]:
        """Drop incomplete observations before the newest one, if that one is complete.

        A lock-step robot repeats an unanswered observation, and may wait for the recorder: it would
        not publish `patience` further ones.
        """
        newest_complete = bool(self._queue) and self._complete(self._queue[-1])
        return self._advance(1) if newest_complete else []

    def _advance(self, patience: int | None = None) -> list[Row]:
        patience = self._patience if patience is None else patience
        rows: list[Row] = []
        complete = sum(self._complete(pending) for pending in self._queue)
        while self._queue:
            head = self._queue[0]
            if self._complete(head):
                self._queue.popleft()
                complete -= 1
                rows += self._take(head)
            elif complete >= patience or len(self._queue) > self._keep:
                self._queue.popleft()
                self.unjoined += 1
                rows += self._close_held(broken=True)
                self._broken = True
            else:
                break
        return rows

    def _complete(self, pending: _Pending) -> bool:
        return self._fields <= pending.parts.keys()

    def _take(self, pending: _Pending) -> list[Row]:
        """Add the next complete observation: it completes the row before it."""
        step = pending.step
        self.joined_ns = step.stamp_ns
        rows = []
        if step.is_first:
            rows += self._close_held(broken=True)
            self._broken = False
        elif self._held is not None:
            rows.append(self._row(self._held, step))
        self._held = pending
        if step.is_last:
            rows += self._close_held(broken=False)
        for stamp in [s for s in self._early if s <= step.stamp_ns]:
            del self._early[stamp]
        return rows

    def _close_held(self, broken: bool) -> list[Row]:
        """Return the held observation as its episode's last row; one row alone is no episode."""
        held, self._held = self._held, None
        if held is None:
            return []
        self.cut += broken
        alone = held.step.is_first or self._broken
        return [] if alone else [self._row(held, None)]

    def _row(self, pending: _Pending, outcome: Step | None) -> Row:
        """Return an observation's row. outcome: of its action; None: no action was executed."""
        own, last = pending.step, outcome or pending.step
        first = own.is_first or self._broken
        self._broken = False
        return {
            **pending.parts,
            "action": outcome.executed if outcome else self._zeros,
            "commanded": outcome.commanded if outcome else self._zeros,
            **({"signals": _signals(own, outcome)} if own.signal_names else {}),
            "reward": np.float32(outcome.reward if outcome else 0.0),
            "is_first": first,
            "is_last": outcome is None,
            "is_terminal": last.is_terminal,
            "success": last.success,
            "stamp": own.stamp_ns,
            "source": last.source,
            "weights": last.weights,
            "evaluation": not own.explore,
        }


def _signals(own: Step, outcome: Step | None) -> Vector:
    if outcome is None or outcome.signals is None:
        return np.zeros(len(own.signal_names), np.float32)
    return outcome.signals
