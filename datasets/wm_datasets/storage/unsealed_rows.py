"""The newest rows of a log, read from the segments that a writer appends to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm_datasets.storage.damage import Damage, merge
from wm_datasets.storage.manifest import Manifest
from wm_datasets.storage.manifest_file import ManifestFile
from wm_datasets.storage.segment import (
    WAL_FOLDER,
    SegmentReader,
    list_segments,
    record_dtype,
    segment_path,
)

_CLOCK_NS = 100_000_000  # two changes nearer than that may have one time stamp


class UnsealedRows:
    """The records of rows [sealed, length), followed from segment to segment.

    `length` is one past the newest row. Damage that is met goes to `note`.
    """

    def __init__(self, root: Path, file: ManifestFile, note: Callable[[Damage], None]) -> None:
        self._folder, self._file, self._note = root / WAL_FOLDER, file, note
        self._folder_name = str(self._folder)
        self._segment: SegmentReader | None = None
        self._pieces: list[np.ndarray] = []  # records, oldest first
        self.length = file.manifest.sealed
        self.set_layout(file.manifest)

    def set_layout(self, manifest: Manifest) -> None:
        """Expect the records of this manifest, when all rows of another layout are sealed."""
        self._dtype = record_dtype(manifest.spec.fields)
        self._segment_rows = manifest.segment_rows

    @property
    def records(self) -> np.ndarray:
        """The records of rows [sealed, length), (n,) of record_dtype; lost ones are zeros."""
        return np.concatenate([np.zeros(0, self._dtype), *self._pieces])

    def copy(self, field: str, start: int, stop: int, out: np.ndarray) -> None:
        """Fill `out`, of rows [start, stop), with those rows of the field that are here."""
        at = self._file.manifest.sealed
        for piece in self._pieces:
            lo, hi = max(start, at), min(stop, at + len(piece))
            if lo < hi:
                out[lo - start : hi - start] = piece[field][lo - at : hi - at]
            at += len(piece)

    def folder_changed(self) -> int | None:
        """When a segment last came or went [ns]; None where that is not known, or just now."""
        try:
            changed = os.stat(self._folder_name).st_mtime_ns  # noqa: PTH116
        except OSError:
            return None
        return changed if time.time_ns() - changed > _CLOCK_NS else None

    def take_open(self) -> bool:
        """Take new rows of the open segment; False when it is full, and another one may follow."""
        if self._segment is None or not self._segment.has_grown():
            return True
        self._take(self._segment, 0)
        return self.length % self._segment_rows != 0

    def drop_sealed(self, sealed: int) -> None:
        """Drop the records of rows before `sealed`, which lie in the zarr arrays now."""
        if sealed >= self.length:  # everything is sealed; the segment may be a new file
            self.close()
            self.length, self._pieces = sealed, []
        drop = sealed - (self.length - sum(map(len, self._pieces)))
        while drop > 0 and self._pieces:
            count = min(drop, len(self._pieces[0]))
            self._pieces[0] = self._pieces[0][count:]
            drop -= count
            if not len(self._pieces[0]):
                del self._pieces[0]

    def follow(self) -> bool:
        """Read on through the segments; False when the log was sealed underneath."""
        while True:
            if self._segment is None and not self._open_next():
                return self._file.peek().sealed <= self.length
            if self._segment is None:
                continue
            self._take(self._segment, 0)
            following = (self.length // self._segment_rows + 1) * self._segment_rows
            if self._segment.rows and self.length % self._segment_rows == 0:
                self.close()
            elif self._has_rows(following):  # so this one is full, and what it lacks is lost
                if self._was_sealed():
                    return False
                self._take(self._segment, following - self._segment.start)
            else:
                return True

    def close(self) -> None:
        """Close the open segment; follow() opens the next one."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _was_sealed(self) -> bool:
        return self._file.peek().sealed > self._file.manifest.sealed

    def _take(self, segment: SegmentReader, known: int) -> None:
        """Append what the segment has; its first `known` records must exist."""
        lost = len(segment.lost)
        records = segment.poll(known)
        if len(records):
            self._pieces.append(records)
            self.length += len(records)
        for start, stop in merge((row, row + 1) for row in segment.lost[lost:]):
            self._note(Damage(segment.path, start, stop, "the checksum does not fit"))

    def _open_next(self) -> bool:
        """Open the segment of the next row; skip over one that is missing; False without any."""
        later: list[int] = []
        for _ in range(2):
            try:
                self._segment = SegmentReader(self._folder, self.length, self._dtype)
                return True
            except FileNotFoundError:
                later = later or [row for row in list_segments(self._folder) if row > self.length]
        next_start = next((start for start in later if self._has_rows(start)), None)
        if next_start is None or self._was_sealed():
            return False
        missing = np.zeros(next_start - self.length, self._dtype)
        missing["is_first"][0] = True
        path = segment_path(self._folder, self.length)
        self._note(Damage(path, self.length, next_start, "the file is missing"))
        self._pieces.append(missing)
        self.length = next_start
        return True

    def _has_rows(self, start: int) -> bool:
        """Is there a segment from row `start` on with a whole record in it?"""
        try:
            segment = SegmentReader(self._folder, start, self._dtype)
        except FileNotFoundError:
            return False
        try:
            return len(segment.poll()) > 0
        finally:
            segment.close()
