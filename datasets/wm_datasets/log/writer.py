"""Writing a log: append to a write-ahead segment, seal full blocks into zarr, lose nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from wm_datasets.errors import LogError, LogSpecError, disk_errors
from wm_datasets.log.keeper import Keeper
from wm_datasets.log.recovery import claim_folder, open_for_writing
from wm_datasets.log.row_order import RowOrder
from wm_datasets.log.segment_queue import SegmentQueue
from wm_datasets.spec import LogSpec
from wm_datasets.storage.lock import WriterLock
from wm_datasets.storage.row_packer import RowPacker
from wm_datasets.storage.segment import seal_record


class LogWriter:
    """The one writer of a log; a context manager.

    append() puts a row into the segment file: from then on readers see it and kill -9 cannot take
    it back. A background thread syncs the segment at most `durable_s` [s] later, which protects it
    from a power cut too, and seals full segments into the zarr arrays. append() waits for it only
    when about 128 MB of full segments (at least 4 segments, at most 64) are not sealed yet: rows
    then come faster than they can be stored. flush() returns when all appended rows are durable.
    Any thread may append; a forked process may not.

    Opening creates the log, or continues it: whole records left in segments are sealed, a torn
    tail is dropped (`repaired` says what was), and an episode that was left open is over: it stays
    as it is, incomplete, and the next row must begin a new one. Rows that a damaged file has taken
    never keep a log from being written: they stay as lost rows, which readers refuse, and the file
    is kept in `damaged/`. What the machine cannot read (no descriptors, memory or permission) is
    not damaged: opening ends with LogReadError, and the log stays as it is.

    A spec with cameras, sensors, signals or the evaluation mark on top of the log's own adds them:
    they are declared durably before the first row that has them, and absent in every row before.

    `capacity_steps` and `capacity_bytes` keep the newest rows: whenever a segment is sealed, whole
    oldest episodes go while more rows are sealed, or more bytes of chunks, than that (never the
    newest episode). When an episode ends, its rate is held against the declared one (`irregular`).
    """

    def __init__(
        self,
        path: str | Path,
        spec: LogSpec,
        *,
        durable_s: float = 1.0,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
    ) -> None:
        if not (math.isfinite(durable_s) and durable_s >= 0):
            raise LogSpecError(f"durable_s: got {durable_s}, expected a finite number >= 0 [s].")
        for name, value in (("steps", capacity_steps), ("bytes", capacity_bytes)):
            if value is not None and value < 1:
                raise LogSpecError(f"capacity_{name}: got {value}, expected at least 1, or None.")
        self.path = Path(path)
        with disk_errors(self.path):
            claim_folder(self.path)
            lock = WriterLock(self.path)
            try:
                log = open_for_writing(self.path, spec, capacity_steps, capacity_bytes)
            except BaseException:
                lock.release()
                raise
        self.repaired = log.repaired
        self._sealer = log.sealer
        self._packer = RowPacker(self.spec)
        self._order = RowOrder(self.path, self.spec.control_period_s)
        self._queue = SegmentQueue(self.path, log.sealer, log.length, lock)
        self._keeper = Keeper(self.path, self._queue, durable_s)

    @property
    def spec(self) -> LogSpec:
        return self._sealer.manifest.spec

    @property
    def irregular(self) -> deque[str]:
        """Episodes of this writer whose rate is not the declared one, in words; the newest 100."""
        return self._order.irregular

    @property
    def first(self) -> int:
        """The oldest row kept."""
        return self._sealer.manifest.first

    @property
    def length(self) -> int:
        """One past the newest row."""
        return self._queue.length

    @property
    def durable(self) -> int:
        """Rows before this one would survive a power cut."""
        return self._queue.durable

    def append(self, row: Mapping[str, Any]) -> int:
        """Record one row, given as field -> value, and return its number.

        After LogFullError the row is not in the log and its episode is over: the next row taken
        is one with is_first.
        """
        queue = self._queue
        queue.refuse_forked()
        with queue.work:
            while queue.is_behind():
                queue.room.wait()
            self._check_writable()
            number = queue.length
            record = self._packer.pack(row, number)
            self._order.check(row, number)
            try:
                with disk_errors(self.path):
                    queue.append(seal_record(record))
            except LogError:
                self._order.break_episode()
                raise
            self._order.appended(row, number)
            return number

    def flush(self) -> None:
        """Return when every appended row would survive a power cut."""
        self._queue.refuse_forked()
        with self._queue.work:
            self._check_writable()
        with disk_errors(self.path):
            self._queue.sync()

    def end_episode(self) -> None:
        """Give up the open episode, if any: it stays incomplete, the next row begins another."""
        self._queue.refuse_forked()
        with self._queue.work:
            self._order.end_episode(self.length)

    def close(self) -> None:
        """Seal every row into zarr and release the log; an open episode stays incomplete.

        When that fails (disk full), the rows stay in their segments: readers see them, and the
        next writer seals them. In a forked process it does nothing: the log is not that one's.
        """
        queue = self._queue
        if not queue.lock.held:
            return
        with queue.work:
            if queue.closed:
                return
            queue.closed = True
            queue.work.notify()
            queue.room.notify_all()
        self._keeper.join()
        try:
            with disk_errors(self.path):
                queue.sync()
                queue.seal_all()
        finally:
            queue.release()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_writable(self) -> None:
        try:
            self._queue.check_writable()
        except LogError:
            self._order.break_episode()
            raise
