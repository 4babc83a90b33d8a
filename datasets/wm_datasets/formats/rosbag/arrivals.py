"""Arrivals <-> rows of a log: the one place where this format moves outcomes by one row.

In a bag the action comes with, or before, the observation that it led to; in the log row t holds
o_t and the action executed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_datasets.spec import EVALUATION, LogSpec, Source

LED = (
    *("action", "commanded", "signals", "reward", "is_terminal", "success", "source", "weights"),
    EVALUATION,
)


@dataclass
class Arrival:
    """An observation and what led to it; `parts` are empty when it was not recorded any more."""

    stamp_ns: int
    parts: dict[str, Any] = field(default_factory=dict)  # image/<camera>, proprio
    led: dict[str, Any] = field(default_factory=dict)  # LED, what the log has of them
    last: bool = False


def nothing_led(spec: LogSpec) -> dict[str, Any]:
    """What leads to an episode's first observation."""
    actions = np.zeros(len(spec.action) if spec.action else 0, np.float32)
    signals = np.zeros(len(spec.signals) if spec.signals else 0, np.float32)
    led = {"action": actions, "commanded": actions, "signals": signals, "reward": 0.0,
           "is_terminal": False, "success": False, "source": Source.RANDOM,
           "weights": -1, EVALUATION: False}  # fmt: skip
    return {name: value for name, value in led.items() if name in spec.fields}


def rows_of_arrivals(spec: LogSpec, arrivals: Iterable[Arrival]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one episode.

    The last observation has no action and keeps the flags that led to it, as a recorder writes it.
    Where an action was recorded whose observation was not, it stays the last row's (a cut episode).
    """
    held: Arrival | None = None
    first = True
    for arrival in arrivals:
        if held is not None:
            yield _row(held, arrival.led, first, last=False)
            first = False
        held = arrival if arrival.parts else None
    if held is not None:
        about = ("action", "commanded", "signals", "reward")
        none = {name: value for name, value in nothing_led(spec).items() if name in about}
        yield _row(held, held.led | none, first, last=True)


def _row(held: Arrival, led: dict[str, Any], first: bool, last: bool) -> dict[str, Any]:
    return {**held.parts, **led, "stamp": held.stamp_ns, "is_first": first, "is_last": last}


def arrivals_of_rows(
    spec: LogSpec, rows: dict[str, np.ndarray], complete: bool
) -> Iterator[Arrival]:
    """Yield one arrival for each row, and for a cut episode the step whose observation is missing.

    `rows` are the columns of one episode without images.
    """
    stamps = rows["stamp"].tolist()
    led = nothing_led(spec)
    if EVALUATION in led:
        led[EVALUATION] = rows[EVALUATION][0]  # of the whole episode
    names = [name for name in LED if name in spec.fields]
    for t, stamp in enumerate(stamps):
        last = complete and t == len(stamps) - 1
        parts = {"proprio": rows["proprio"][t]} if "proprio" in rows else {}
        yield Arrival(stamp, parts, led, last)
        led = {name: rows[name][t] for name in names}
    if not complete:
        yield Arrival(stamps[-1] + 1, {}, led)
