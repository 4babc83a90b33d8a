"""The episode table: where episodes start and end, derived from the rows' own flags."""

from __future__ import annotations

import numpy as np

EPISODE = np.dtype([("start", "<i8"), ("length", "<i8"), ("complete", "?")])


class EpisodeIndex:
    """Episodes of the rows [first, length), followed as rows arrive.

    An episode begins at `is_first` and reaches to the next one; it is complete when its last row
    is `is_last`. One that was cut (crash, Ctrl-C, still running) is listed with complete=False.
    """

    def __init__(self, first: int = 0) -> None:
        self.length = first
        self._table = np.zeros(16, EPISODE)
        self._begin = self._end = 0  # rows of _table in use

    @classmethod
    def of(cls, table: np.ndarray, length: int) -> EpisodeIndex:
        """An index of the rows before `length`; `table`, (E,) of EPISODE, holds their episodes."""
        index = cls(length)
        index._table, index._end = table.copy(), len(table)
        return index

    def copy(self) -> EpisodeIndex:
        """An index of its own over the same rows."""
        return EpisodeIndex.of(self.table, self.length)

    def __len__(self) -> int:
        return self._end - self._begin

    def extend(self, is_first: np.ndarray, is_last: np.ndarray) -> None:
        """Append rows; both flags are bool (n,)."""
        if not len(is_first):
            return
        starts = np.flatnonzero(is_first) + self.length
        if len(self) and (not len(starts) or starts[0] > self.length):
            starts = np.concatenate([[self._table["start"][self._end - 1]], starts])
            self._end -= 1  # the open episode goes on: written again below
        self._reserve(len(starts))
        begin, self.length = self.length, self.length + len(is_first)
        ends = np.append(starts[1:], self.length)
        fresh = self._table[self._end : self._end + len(starts)]
        fresh["start"], fresh["length"] = starts, ends - starts
        fresh["complete"] = is_last[ends - 1 - begin]
        self._end += len(starts)

    def drop_before(self, row: int) -> None:
        """Forget the episodes that start before `row`."""
        while self._begin < self._end and self._table["start"][self._begin] < row:
            self._begin += 1

    @property
    def table(self) -> np.ndarray:
        """A copy of the episodes as (E,) of EPISODE, oldest first; the last one may be open."""
        return self._table[self._begin : self._end].copy()

    def _reserve(self, more: int) -> None:
        if self._end + more > len(self._table):
            kept = self.table
            self._table = np.zeros(2 * (len(kept) + more) + 16, EPISODE)
            self._table[: len(kept)] = kept
            self._begin, self._end = 0, len(kept)
