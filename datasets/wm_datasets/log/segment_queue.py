"""The segments of a log that are not sealed yet: appended at the end, made durable, sealed."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from wm_datasets.errors import LogError, LogReadError
from wm_datasets.storage.column import clean_up, sync_folder
from wm_datasets.storage.damaged_copies import keep_aside
from wm_datasets.storage.lock import WriterLock
from wm_datasets.storage.manifest import Manifest
from wm_datasets.storage.sealer import Sealer
from wm_datasets.storage.segment import (
    WAL_FOLDER,
    SegmentReader,
    SegmentWriter,
    mark_durable,
    record_dtype,
)

_log = logging.getLogger(__name__)
_SEAL_AT_ONCE = 16  # segments per commit, at most
_SEAL_BYTES = 32 << 20  # of records per commit, where that is more than one segment
_BACKLOG = 4  # commits' worth of full segments before append() waits


def segments_per_commit(manifest: Manifest) -> int:
    """Return how many segments are sealed in one commit."""
    record_bytes = record_dtype(manifest.spec.fields).itemsize
    fitting = _SEAL_BYTES // (manifest.segment_rows * record_bytes)
    return min(_SEAL_AT_ONCE, max(1, fitting))


class SegmentQueue:
    """Rows [sealed, length) of a log that is open for writing; it holds the writer's lock.

    One lock guards everything: hold `work`, or `room`, to append or to look. sync(), seal_oldest()
    and seal_all() take it themselves, so that rows can be appended meanwhile; one thread at a time
    calls those that seal. `work` is notified when there is something to sync or to seal, `room`
    when segments were sealed.
    """

    def __init__(self, path: Path, sealer: Sealer, length: int, lock: WriterLock) -> None:
        self.lock = lock
        self.length, self.durable = length, length  # one past the newest row, and the newest synced
        self.fault: LogError | None = None  # why no row is taken
        self.closed = False
        self.dirty_since: float | None = None  # when the oldest row that is not synced was appended
        guard = threading.RLock()
        self.work, self.room = threading.Condition(guard), threading.Condition(guard)
        self.segments: list[SegmentWriter] = []  # oldest first; the last one grows
        self._path, self._sealer = path, sealer
        self._segment_rows = sealer.manifest.segment_rows
        self._dtype = record_dtype(sealer.manifest.spec.fields)
        self._at_once = segments_per_commit(sealer.manifest)

    def refuse_forked(self) -> None:
        """Refuse a process that was forked from the writer's; it has no keeper, and no lock."""
        if not (self.lock.held or self.closed):
            raise LogError(
                f"{self._path}: the writer belongs to another process, from which this one was "
                "forked. Append in the process that opened the LogWriter."
            )

    def check_writable(self) -> None:
        """LogError: the log is closed, or rows cannot be stored."""
        if self.closed:
            raise LogError(f"{self._path}: the writer is closed. Open a new LogWriter to continue.")
        if self.fault is not None:
            raise type(self.fault)(*self.fault.args) from self.fault

    def is_behind(self) -> bool:
        """Would the next row begin a segment on top of as many as may wait to be sealed?"""
        if self.length % self._segment_rows or self.closed or self.fault is not None:
            return False
        return self.count_full() >= _BACKLOG * self._at_once

    def append(self, record: bytes) -> None:
        """Write one sealed record, of row `length`; OSError leaves the log as it was."""
        self._open_segment().append(record)
        self.length += 1
        if self.dirty_since is None or self.length % self._segment_rows == 0:
            self.dirty_since = self.dirty_since or time.monotonic()
            self.work.notify()

    def count_full(self) -> int:
        """Return the number of segments that can be sealed."""
        return sum(self._is_full(segment) for segment in self.segments)

    def sync(self) -> None:
        """Make all rows durable.

        LogReadError where a file cannot be opened just now: nothing is lost, and the call may be
        made again. Any other error of a sync is a fault for good.
        """
        syncs: list[Callable[[], None]] = []
        failed: list[OSError] = []
        with self.work:
            since, length = self.dirty_since, self.length
            dirty = [(s, s.rows) for s in self.segments if s.rows > s.synced]
            try:
                for segment, _ in dirty:
                    syncs.append(segment.syncer())
            except LogReadError as error:
                failed.append(error)
            self.dirty_since = None
        syncs.append(partial(sync_folder, self._path / WAL_FOLDER))
        for sync in syncs:
            try:  # each is called, also after an error of another: it closes its descriptor
                sync()
            except OSError as error:
                failed.append(error)
        if failed:
            self._sync_failed(failed, since, length)
        for segment, rows in dirty:
            segment.synced = max(segment.synced, rows)
        self.durable = max(self.durable, length)
        with contextlib.suppress(OSError):  # it only tells of a segment that is gone
            mark_durable(self._path / WAL_FOLDER, self.durable)

    def seal_full(self) -> None:
        """Seal the oldest full segments in one commit, if there are any."""
        with self.work:
            count = min(self.count_full(), self._at_once)
        if count:
            self._seal_oldest(count, end_open=False)

    def seal_all(self) -> None:
        """Seal every row; an open episode stays incomplete."""
        while len(self.segments) > self._at_once:
            self._seal_oldest(self._at_once, end_open=False)
        self._seal_oldest(len(self.segments), end_open=True)

    def release(self) -> None:
        """Close the files and let another writer have the log."""
        for segment in self.segments:
            segment.close()
        self.lock.release()

    def _sync_failed(self, failed: list[OSError], since: float | None, length: int) -> None:
        """Raise the first error that is a fault for good; else the first one, to try again."""
        for cause in failed:
            if not isinstance(cause, LogReadError):  # the kernel may have dropped the data
                self.fault = LogError(
                    f"{self._path}: the disk did not take rows before {length} ({cause}); "
                    "they may be lost at a power cut. Check the disk and open the log again."
                )
                raise self.fault from cause
        with self.work:
            self.dirty_since = since or self.dirty_since or time.monotonic()
            self.work.notify()
        raise failed[0]

    def _seal_oldest(self, count: int, *, end_open: bool) -> None:
        with self.work:
            segments = self.segments[:count]
        parts, lost = [np.zeros(0, self._dtype)], []
        for segment in segments:
            records, damaged = self._read_back(segment)
            parts.append(records)
            lost += damaged
            if damaged:
                rows = segment.start, segment.start + segment.rows
                keep_aside(self._path, segment.path, *rows)
        records = parts[1] if len(parts) == 2 else np.concatenate(parts)
        self._sealer.seal(records, end_open=end_open, lost=lost)
        with self.work:
            del self.segments[:count]
        for segment in segments:
            segment.close()
            clean_up(segment.path)

    def _read_back(self, segment: SegmentWriter) -> tuple[np.ndarray, list[int]]:
        """Return a segment's records, checked, and the rows that its file has lost."""
        source = SegmentReader(self._path / WAL_FOLDER, segment.start, self._dtype)
        try:
            records = source.poll(segment.rows)[: segment.rows]
        finally:
            source.close()
        if source.lost:
            _log.error("%s is damaged, rows %s are lost", segment.path, source.lost)
        return records, source.lost

    def _open_segment(self) -> SegmentWriter:
        """Return the segment that takes the next row."""
        if not self.segments or self._is_full(self.segments[-1]):
            folder = self._path / WAL_FOLDER
            self.segments.append(SegmentWriter(folder, self.length, self._dtype))
        return self.segments[-1]

    def _is_full(self, segment: SegmentWriter) -> bool:
        return segment.rows > 0 and (segment.start + segment.rows) % self._segment_rows == 0
