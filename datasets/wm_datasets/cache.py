"""A decoded copy of a log's newest rows in memory, bounded, from which windows are copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from wm_datasets.errors import LogRowError
from wm_datasets.reader import LogReader

_FILL_ROWS = 1024
_SHAPES = 64  # kinds of array kept for use again
_SMALL_ROW_BYTES = 1024  # below this a gather beats one copy per window


class RowCache:
    """The newest `capacity` rows of a log: row r of a field lies at index r modulo capacity.

    Memory is taken from the system as rows arrive, not before. What does not fit is read from the
    log each time: slower, but the same rows. Lost rows are zeros; they are not to be drawn.
    """

    def __init__(self, reader: LogReader, fields: Sequence[str], cache_bytes: int) -> None:
        self.reader = reader
        specs = {name: reader.spec.fields[name] for name in fields}
        self.capacity = max(1, cache_bytes // sum(f.row_bytes for f in specs.values()))
        self._rings = {
            name: np.empty((self.capacity, *f.shape), f.dtype) for name, f in specs.items()
        }
        self.start = self.stop = 0

    def follow(self) -> None:
        """Take in the rows that came to the log since the last call."""
        self.reader.refresh()
        while True:
            try:
                return self._fill()
            except LogRowError:  # the log's capacity dropped rows while they were read
                if not self.reader.refresh():
                    raise

    def _fill(self) -> None:
        oldest = max(self.reader.first, self.reader.length - self.capacity)
        if self.stop < oldest:
            self.start = self.stop = oldest
        while self.stop < self.reader.length:
            at = self.stop % self.capacity
            count = min(_FILL_ROWS, self.reader.length - self.stop, self.capacity - at)
            for name, ring in self._rings.items():
                self.reader.read_around(name, self.stop, self.stop + count, ring[at : at + count])
            self.stop += count
        self.start = max(self.start, self.stop - self.capacity)

    def copy_windows(
        self,
        starts: np.ndarray,
        length: int,
        slots: np.ndarray,
        targets: Sequence[tuple[str, np.ndarray]],
    ) -> None:
        """Fill target[slots[i]], (length, ...), with the field's rows from starts[i] on."""
        cached = int(starts.min(initial=self.stop)) >= self.start
        rows = (starts[:, None] + np.arange(length)) % self.capacity
        for field, target in targets:
            ring = self._rings[field]
            if not cached or ring[0].nbytes >= _SMALL_ROW_BYTES:
                self._copy_one_by_one(field, starts.tolist(), slots.tolist(), target)
            elif len(slots) == len(target):
                np.take(ring, rows, axis=0, out=target, mode="clip")
            else:
                target[slots] = ring[rows]

    def _copy_one_by_one(
        self, field: str, starts: list[int], slots: list[int], out: np.ndarray
    ) -> None:
        ring, length = self._rings[field], out.shape[1]
        for slot, start in zip(slots, starts):
            window, at = out[slot], start % self.capacity
            if start < self.start:
                self.reader.read(field, start, start + length, window)
            elif at + length <= self.capacity:
                window[...] = ring[at : at + length]
            else:
                head = self.capacity - at
                window[:head], window[head:] = ring[at:], ring[: length - head]


class BufferPool:
    """Output arrays, used again once nobody else holds them.

    A fresh array of 30 MB costs as much in page faults as the copy into it. An array handed out is
    left alone while anything refers to it (a view, a tensor made from it): nobody need copy.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[tuple[int, ...], str], list[np.ndarray]] = {}
        self._unused = self._references([np.empty(0)], 0)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an array of arbitrary content."""
        if len(self._buffers) > _SHAPES:
            self._buffers.clear()
        buffers = self._buffers.setdefault((shape, dtype.str), [])
        for i in range(len(buffers)):
            if self._references(buffers, i) == self._unused:
                return buffers[i]
        buffers.append(np.empty(shape, dtype))
        return buffers[-1]

    @staticmethod
    def _references(buffers: list[np.ndarray], i: int) -> int:
        return sys.getrefcount(buffers[i])
