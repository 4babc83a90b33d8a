"""The episodes of a log that grows, and which of them were recorded to evaluate a policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from wm_datasets.errors import LogRowError
from wm_datasets.storage.damage import read_around
from wm_datasets.storage.episodes import EpisodeIndex

Read = Callable[[str, int, int, np.ndarray], None]  # field, start, stop, out


class EpisodeTable:
    """Episodes of rows [first, length) as they stood at the last follow()."""

    def __init__(self, index: EpisodeIndex, first: int) -> None:
        self._index = index
        self._marks = (first, np.zeros(0, bool))  # first row, marks of the rows from it

    @property
    def table(self) -> np.ndarray:
        """(E,) of (start, length, complete), oldest first; the last may still be growing."""
        return self._index.table

    def follow(self, first: int, length: int, read: Read) -> bool:
        """Take in new rows; False when some were dropped by the log's capacity meanwhile."""
        if first > self._index.length:
            self._index = EpisodeIndex(first)
        self._index.drop_before(first)
        start, stop = self._index.length, length
        flags = {name: np.zeros(stop - start, bool) for name in ("is_first", "is_last")}
        for name, values in flags.items():
            try:
                lost = read_around(partial(read, name), start, stop, values)
            except LogRowError:
                return False
            if name == "is_first":
                for damage in lost:  # an episode of unknown rows begins
                    values[damage.start - start] = True
        self._index.extend(flags["is_first"], flags["is_last"])
        return True

    def evaluation_rows(
        self, first: int, length: int, read: Callable[[int, int], np.ndarray]
    ) -> np.ndarray:
        """Return a mask (length - first,) of the rows with the evaluation mark.

        `read(start, stop)` reads marks that are not known yet.
        """
        start, known = self._marks
        if (start, start + len(known)) != (first, length):
            known = known[first - start :]
            known = np.concatenate([known, read(first + len(known), length)])
            self._marks = first, known
        return known
