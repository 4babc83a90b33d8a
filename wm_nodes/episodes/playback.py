"""From rows of a log to transitions: the only place where an outcome moves to the row after it.

The inverse of `row_assembler.py`. In the log, row t has the action executed from o_t and its
outcome; on topics, `step` belongs to the observation that it led to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wm_datasets.errors import LogRowError
from wm_datasets.log import LogReader
from wm_nodes.errors import UserError
from wm_nodes.records import NO_VERSION, RANDOM, Depth, Image, Step, Transition, Vector

BLOCK = 64  # rows read at a time
NONE = np.zeros(0, np.float32)


def find_episode(log: LogReader, number: int) -> tuple[int, int]:
    """Return (start row, rows) of an episode; -1 is the newest. UserError where there is none."""
    count = len(log.episodes)
    if not -count <= number < count:
        right = f"0 to {count - 1}, or -1 for the newest" if count else "none, the log is empty"
        raise UserError(f"episode: got {number}, expected {right} ({log.path}).")
    start, rows, _ = log.episodes[number].tolist()
    return start, rows


def transitions(log: LogReader, number: int) -> Iterator[Transition]:
    """Yield an episode's observations with their steps, as a robot publishes them.

    The action of an interrupted episode's last observation is not returned: its outcome is not
    known. Logs of older versions do not mark evaluation episodes: `explore` is true there.
    """
    start, rows = find_episode(log, number)
    before: dict[str, np.ndarray] | None = None
    for first in range(start, start + rows, BLOCK):
        try:
            block = log.read_rows(first, min(first + BLOCK, start + rows))
        except LogRowError as error:
            raise UserError(f"episode {number} was dropped while it was read: {error}") from None
        for index in range(len(block["stamp"])):
            row = {name: values[index] for name, values in block.items()}
            yield Transition(
                _step(log, row, before), _images(row), row.get("proprio", NONE), _depths(log, row)
            )
            before = row


def _images(row: dict[str, np.ndarray]) -> dict[str, Image]:
    return {name[6:]: value for name, value in row.items() if name.startswith("image/")}


def _depths(log: LogReader, row: dict[str, np.ndarray]) -> dict[str, Depth]:
    depths = [name for name, sensor in log.spec.sensors.items() if sensor.is_depth]
    return {name: row[f"sensor/{name}"] for name in depths if f"sensor/{name}" in row}


def _step(log: LogReader, row: dict[str, np.ndarray], before: dict[str, np.ndarray] | None) -> Step:
    """Return the step that led to `row`: the action of the row before, and its outcome."""
    names = log.spec.action.names if log.spec.action else ()
    zeros = np.zeros(len(names), np.float32)
    led: dict[str, Vector] = {} if before is None else before
    return Step(
        stamp_ns=int(row["stamp"]),
        names=names,
        executed=led.get("action", zeros),
        commanded=led.get("commanded", zeros),
        reward=float(led.get("reward", 0.0)),
        is_first=bool(row["is_first"]),
        is_last=bool(row["is_last"]),
        is_terminal=bool(led.get("is_terminal", False)),
        success=bool(led.get("success", False)),
        explore=not row.get("evaluation", False),
        weights=int(led.get("weights", NO_VERSION)),
        source=int(led.get("source", RANDOM.source)),
        signal_names=log.spec.signals.names if log.spec.signals else (),
        signals=led.get("signals"),
    )


class Pacer:
    """When observations are due: the intervals of the log divided by `rate`; rate 0: at once.

    A delay is not caught up: it shifts all later observations.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due_s: float | None = None
        self._stamp_ns = 0

    def wait_s(self, stamp_ns: int, now_s: float) -> float:
        """Return the time until the observation of this stamp is due [s]; call once for each."""
        gap_ns, self._stamp_ns = stamp_ns - self._stamp_ns, stamp_ns
        if self._due_s is None or not self._rate:
            self._due_s = now_s
        else:
            self._due_s = max(self._due_s + gap_ns / 1e9 / self._rate, now_s)
        return self._due_s - now_s
