"""Which rows of a log are lost, in which file, and which episodes that costs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_datasets.errors import LogFormatError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """Rows [start, stop) that `path` should hold and does not."""

    path: Path
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path} is damaged, rows {self.start} to {self.stop} are lost: {self.reason}"


class LogDamageError(LogFormatError):
    """Rows were asked for that are lost to a damaged file; `damage` says which."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage)
        self.damage = damage


class KnownDamage:
    """The damage of one log that was met so far, each named in the Python log once."""

    def __init__(self) -> None:
        self._met: dict[tuple[Path, int], Damage] = {}

    def note(self, damage: Damage) -> None:
        """Take damage as known, and log it once."""
        if (damage.path, damage.start) not in self._met:
            self._met[damage.path, damage.start] = damage
            _log.error("%s", damage)

    def since(self, first: int) -> list[Damage]:
        """Return what costs rows from `first` on, or no row at all."""
        return [d for d in self._met.values() if d.stop > first or d.start == d.stop]

    def of_segments(self) -> list[Damage]:
        """Return what was lost before it was sealed; other files say it when they are read."""
        return [d for d in self._met.values() if d.path.suffix == ".seg"]

    def __len__(self) -> int:
        return len(self._met)


def read_around(
    read: Callable[[int, int, np.ndarray], object], start: int, stop: int, out: np.ndarray
) -> list[Damage]:
    """Call read(lo, hi, out) for rows [start, stop); lost ones become zeros and are returned."""
    damages, at = [], start
    while at < stop:
        try:
            read(at, stop, out[at - start :])
            break
        except LogDamageError as error:
            lost = error.damage
            if lost.start > at:  # there may be more before it: known damage comes first
                damages += read_around(read, at, lost.start, out[at - start : lost.start - start])
            begin, at = max(at, lost.start), min(stop, lost.stop)
            out[begin - start : at - start] = 0
            damages.append(Damage(lost.path, begin, at, lost.reason))
    return damages


def known_rows(damage: Iterable[Damage], start: int, stop: int) -> np.ndarray:
    """Return a mask (stop - start,) of the rows that are not lost."""
    known = np.ones(stop - start, bool)
    for lost in damage:
        known[max(0, lost.start - start) : max(0, lost.stop - start)] = False
    return known


def episodes_hit(table: np.ndarray, damage: Iterable[Damage]) -> np.ndarray:
    """Return a mask (E,) of the episodes, oldest first, that hold a lost row."""
    hit = np.zeros(len(table), bool)
    starts, ends = table["start"], table["start"] + table["length"]
    for lost in damage:
        begin = np.searchsorted(ends, lost.start, side="right")
        hit[begin : np.searchsorted(starts, lost.stop)] = True
    return hit


def merge(ranges: Iterable[tuple[int, int]], first: int = 0) -> tuple[tuple[int, int], ...]:
    """Return row ranges in order, joined where they touch, without the rows below `first`."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted((max(a, first), b) for a, b in ranges if b > first):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing about damage, for code that damages logs on purpose."""
    log = logging.getLogger("wm_datasets")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
