"""A decoded copy of a log's rows, bounded, from which windows are copied: the newest in memory."""

from __future__ import annotations

import logging
import math
import mmap
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogRowError
from wm_datasets.log.reader import LogReader
from wm_datasets.sampling.disk_cache import DecodedRows, open_decoded

_log = logging.getLogger(__name__)

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray]
_FILL_ROWS = 1024
_SHAPES = 64  # kinds of array kept for use again
_LARGE_BYTES, _HUGE_PAGE = 4 << 20, 2 << 20
_SMALL_ROW_BYTES = 1024  # below this a gather beats one copy per window


class RowCache:
    """The newest `capacity` rows of a log: row r of a field lies at index r modulo capacity.

    Memory is taken from the system as rows arrive, not before. What does not fit into `cache_bytes`
    is decoded into memory-mapped files of at most `disk_bytes`; what does not fit there either is
    read from the log each time: slower, but the same rows. Lost rows are zeros; they are not to be
    drawn.
    """

    def __init__(
        self,
        reader: LogReader,
        fields: Sequence[str],
        cache_bytes: int,
        disk_bytes: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.reader = reader
        specs = {name: reader.spec.fields[name] for name in fields}
        self.capacity = max(1, cache_bytes // sum(f.row_bytes for f in specs.values()))
        self._rings = {name: roomy((self.capacity, *f.shape), f.dtype) for name, f in specs.items()}
        self._disk_bytes, self._folder = disk_bytes, folder
        self._decoded: DecodedRows | None = None
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

    def close(self) -> None:
        """Let go of the files."""
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None

    def _fill(self) -> None:
        oldest = max(self.reader.first, self.reader.length - self.capacity)
        if self.stop < oldest:
            self.start = self.stop = oldest
        while self.stop < self.reader.length:
            at = self.stop % self.capacity
            count = min(_FILL_ROWS, self.reader.length - self.stop, self.capacity - at)
            # A read that fails below leaves the slots of the oldest rows partly overwritten.
            self.start = max(self.start, self.stop + count - self.capacity)
            for name, ring in self._rings.items():
                self.reader.read_around(name, self.stop, self.stop + count, ring[at : at + count])
            self.stop += count

    def copy_windows(
        self,
        starts: np.ndarray,
        length: int,
        slots: np.ndarray,
        targets: Sequence[tuple[str, np.ndarray]],
    ) -> None:
        """Fill target[slots[i]], (length, ...), with the field's rows from starts[i] on."""
        near = (starts >= self.start) & (starts + length <= self.stop)
        for field, target in targets:
            _copy(self._rings[field], starts[near], slots[near], target)
        if near.all():
            return
        starts, slots = starts[~near], slots[~near]
        held = self._hold(starts, length, [field for field, _ in targets])
        for field, target in targets:
            if held.any() and self._decoded is not None:
                _copy(self._decoded.ring(field), starts[held], slots[held], target)
            for slot, start in zip(slots[~held].tolist(), starts[~held].tolist()):
                self.reader.read(field, start, start + length, target[slot])

    def _hold(self, starts: np.ndarray, length: int, fields: Sequence[str]) -> np.ndarray:
        """Decode windows into files; return a mask (n,) of those that lie there now."""
        if self._disk_bytes < 1:
            return np.zeros(len(starts), bool)
        if self._decoded is None:
            names = list(self._rings)
            try:
                self._decoded = open_decoded(self.reader, names, self._disk_bytes, self._folder)
            except OSError as error:  # a folder that cannot be written
                _log.warning("no decoded rows are kept on disk: %s", error)
                self._disk_bytes = 0
                return np.zeros(len(starts), bool)
        return self._decoded.hold(starts, length, fields)


def _copy(ring: np.ndarray, starts: np.ndarray, slots: np.ndarray, target: np.ndarray) -> None:
    """Fill target[slots[i]], (T, ...), with rows starts[i] on: row r is ring[r % len(ring)]."""
    if not len(slots):
        return
    capacity, length = len(ring), target.shape[1]
    if ring[0].nbytes < _SMALL_ROW_BYTES:
        rows = (starts[:, None] + np.arange(length)) % capacity
        if len(slots) == len(target):
            np.take(ring, rows, axis=0, out=target, mode="clip")
        else:
            target[slots] = ring[rows]
        return
    for slot, start in zip(slots.tolist(), (starts % capacity).tolist()):
        window = target[slot]
        if start + length <= capacity:
            window[...] = ring[start : start + length]
        else:
            head = capacity - start
            window[:head], window[head:] = ring[start:], ring[: length - head]


def roomy(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array of arbitrary content; a large one begins with a (huge) page.

    Copies between two such arrays are aligned alike: malloc's, which are not, or lie in small pages
    that it hands out again, take up to half as long again.
    """
    count = math.prod(shape)
    if count * dtype.itemsize < _LARGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(shape, dtype)
    memory = mmap.mmap(
        -1, count * dtype.itemsize + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    skip = -np.frombuffer(memory, np.uint8).ctypes.data % _HUGE_PAGE
    return np.frombuffer(memory, dtype, count, skip).reshape(shape)


class BufferPool:
    """Output arrays, used again once nothing else refers to them.

    A fresh array of 30 MB costs as much in page faults as the copy into it. An array handed out is
    left alone while anything refers to it (a view, a tensor made from it): no copy is needed.
    """

    def __init__(self, allocate: Allocate = roomy) -> None:
        self._allocate = allocate
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
        buffers.append(self._allocate(shape, dtype))
        return buffers[-1]

    @staticmethod
    def _references(buffers: list[np.ndarray], i: int) -> int:
        return sys.getrefcount(buffers[i])
