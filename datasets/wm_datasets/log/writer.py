"""Writing a log: append to a write-ahead segment, seal full blocks into zarr, lose nothing."""

# A simulated power cut records what is asked of `os` (durability/power_cut.py):
# ruff: noqa: PTH108

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from wm_datasets.errors import (
    LogError,
    LogFormatError,
    LogFullError,
    LogReadError,
    LogSpecError,
    disk_errors,
)
from wm_datasets.log.reader import WAL_FOLDER, LogReader
from wm_datasets.spec import LogSpec
from wm_datasets.storage.added_fields import clear_undeclared
from wm_datasets.storage.column import clean_up, sync_folder
from wm_datasets.storage.damage import Damage
from wm_datasets.storage.damaged_copies import keep_aside
from wm_datasets.storage.file_reads import exists, list_names
from wm_datasets.storage.lock import LOCK_NAME, WriterLock
from wm_datasets.storage.manifest import ROOT, ROOT_COPY, Manifest, load_manifest
from wm_datasets.storage.row_packer import RowPacker
from wm_datasets.storage.sealer import Sealer
from wm_datasets.storage.segment import (
    HEADER_BYTES,
    SegmentReader,
    SegmentWriter,
    list_segments,
    mark_durable,
    read_mark,
    record_dtype,
    seal_record,
    segment_path,
)

_log = logging.getLogger(__name__)
_SEAL_AT_ONCE = 16  # segments per commit, at most
_SEAL_BYTES = 32 << 20  # of records per commit, where that is more than one segment
_BACKLOG = 4  # commits' worth of full segments before append() waits
_PASSING = (LogFullError, LogReadError)  # faults after which the keeper tries again
MISSING = "they were on the disk, and the file is missing or cut"
RATE_TOLERANCE = 0.1  # of the declared control period


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
            raise LogSpecError(f"durable_s must be >= 0 [s], got {durable_s}")
        for name, value in (("steps", capacity_steps), ("bytes", capacity_bytes)):
            if value is not None and value < 1:
                raise LogSpecError(f"capacity_{name} must be >= 1 or None, got {value}")
        self.path, self.durable_s = Path(path), durable_s
        self.capacity_steps, self.capacity_bytes = capacity_steps, capacity_bytes
        self.repaired: str | None = None
        self.irregular: deque[str] = deque(maxlen=100)  # episodes whose rate is not the declared
        self._closed = False
        with disk_errors(self.path):
            _claim_folder(self.path)
            self._lock = WriterLock(self.path)
            try:
                self._open(spec)
            except BaseException:
                self._lock.release()
                raise
        guard = threading.RLock()
        self._wake = threading.Condition(guard)  # of the keeper; guards all below
        self._room = threading.Condition(guard)  # of an append() that waits
        self._segments: list[SegmentWriter] = []  # unsealed, oldest first; the last one grows
        self._dirty_since: float | None = None
        self._fault: LogError | None = None
        self._durable = self._length
        self._in_episode, self._last_stamp = False, 0
        self._first_row, self._first_stamp = -1, 0  # of the open episode
        self._keeper = threading.Thread(target=self._keep, name="log keeper", daemon=True)
        self._keeper.start()

    @property
    def spec(self) -> LogSpec:
        return self._sealer.manifest.spec

    @property
    def first(self) -> int:
        """The oldest row kept."""
        return self._sealer.manifest.first

    @property
    def length(self) -> int:
        """One past the newest row."""
        return self._length

    @property
    def durable(self) -> int:
        """Rows before this one would survive a power cut."""
        return self._durable

    def append(self, row: Mapping[str, Any]) -> int:
        """Record one row, given as field -> value, and return its number.

        After LogFullError the row is not in the log and its episode is over: the next row taken
        is one with is_first.
        """
        self._refuse_forked()
        with self._wake:
            while self._is_behind():
                self._room.wait()
            self._check_writable()
            record = self._packer.pack(row, self._length)
            self._check_order(row)
            try:
                with disk_errors(self.path):
                    self._segment().append(seal_record(record))
            except LogError:
                self._in_episode = False
                raise
            if row["is_first"]:
                self._check_rate()
                self._first_row, self._first_stamp = self._length, int(row["stamp"])
            self._in_episode, self._last_stamp = not row["is_last"], int(row["stamp"])
            self._length += 1
            if row["is_last"]:
                self._check_rate()
            full = self._length % self._segment_rows == 0
            if full or self._dirty_since is None:
                self._dirty_since = self._dirty_since or time.monotonic()
                self._wake.notify()
            return self._length - 1

    def flush(self) -> None:
        """Return when every appended row would survive a power cut."""
        self._refuse_forked()
        with self._wake:
            self._check_writable()
        with disk_errors(self.path):
            self._sync()

    def end_episode(self) -> None:
        """Give up the open episode, if any: it stays incomplete, the next row begins another."""
        self._refuse_forked()
        with self._wake:
            self._check_rate()
            self._in_episode = False

    def close(self) -> None:
        """Seal every row into zarr and release the log; an open episode stays incomplete.

        When that fails (disk full), the rows stay in their segments: readers see them, and the
        next writer seals them. In a forked process it does nothing: the log is not that one's.
        """
        if not self._lock.held:
            return
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
            self._room.notify_all()
        self._keeper.join()
        try:
            with disk_errors(self.path):
                self._sync()
                while len(self._segments) > self._at_once:
                    self._seal_oldest(self._at_once)
                self._seal_oldest(len(self._segments), end_open=True)
        finally:
            for segment in self._segments:
                segment.close()
            self._lock.release()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Opening

    def _open(self, spec: LogSpec) -> None:
        if not exists(self.path / ROOT) and not exists(self.path / ROOT_COPY):
            manifest = Manifest.new(spec)
            manifest.create_folders(self.path)
            (self.path / WAL_FOLDER).mkdir(exist_ok=True)
            manifest.commit(self.path)
        manifest = load_manifest(self.path)
        differences, whole = manifest.spec.differences(spec), manifest.spec.grown(spec)
        if differences and whole is None:
            raise LogSpecError(
                f"the log at {self.path} was made with another spec. It has "
                f"{'; '.join(differences)} as given. Use another path, or the log's own spec."
            )
        clear_undeclared(self.path, manifest)
        manifest.create_folders(self.path)  # one that is missing takes its rows, not the next ones
        self._take_up(manifest)
        self._recover()
        if whole is not None and differences:
            manifest = self._sealer.manifest.grown(whole)
            manifest.create_folders(self.path)
            sync_folder(self.path)
            manifest.commit(self.path)
            self._take_up(manifest)
        self._packer = RowPacker(self.spec)

    def _take_up(self, manifest: Manifest) -> None:
        self._segment_rows, self._dtype = manifest.segment_rows, record_dtype(manifest.spec.fields)
        fitting = _SEAL_BYTES // (self._segment_rows * self._dtype.itemsize)
        self._at_once = min(_SEAL_AT_ONCE, max(1, fitting))
        self._sealer = Sealer(self.path, manifest, self.capacity_steps, self.capacity_bytes)

    def _recover(self) -> None:
        """Seal what segments hold, drop what is torn, and begin with no segment."""
        sealed, said = self._sealer.manifest.sealed, [str(d) for d in self._sealer.damage]
        with LogReader(self.path) as reader:
            records, self._length = reader.unsealed, reader.length
            segments = [d for d in reader.damage if d.path.suffix == ".seg"]
        lost = [row for d in segments for row in range(d.start, d.stop)]
        wal = self.path / WAL_FOLDER
        starts, mark = list_segments(wal), read_mark(wal)
        torn = {start: self._torn_bytes(start) for start in starts if start >= sealed}
        self._keep_segments(segments, torn if mark > self._length else {})
        while True:
            # sealed rows end where a segment does, so that a kill in between leaves no half of one
            into = self._sealer.manifest.sealed % self._segment_rows
            part, records = np.split(records, [self._at_once * self._segment_rows - into])
            self._sealer.seal(part, end_open=not len(records), lost=lost)
            if not len(records):
                break
        for start in starts:
            if start < self._length:
                clean_up(segment_path(wal, start))
            else:  # one without rows: it must be gone before a new layout is declared
                os.unlink(segment_path(wal, start))
        sync_folder(wal)  # or one without rows is back under a grown spec
        if dropped := sum(torn.values()):
            said.insert(0, f"dropped {dropped} bytes of an unfinished write after row "
                           f"{self._length - 1}")  # fmt: skip
        said += [str(damage) for damage in segments]
        if mark > self._length:
            gone = Damage(segment_path(wal, self._length), self._length, mark, MISSING)
            said.append(str(gone))
        mark_durable(wal, self._length)
        if said:
            lost_rows = sum(stop - start for start, stop in self._sealer.manifest.lost)
            whole = self._length - self.first - lost_rows
            self.repaired = f"{self.path}: {'; '.join(said)}; {whole} whole rows kept"
            _log.warning(self.repaired)

    def _torn_bytes(self, start: int) -> int:
        """Bytes of a segment that are no whole record."""
        size = segment_path(self.path / WAL_FOLDER, start).stat().st_size
        end = (start // self._segment_rows + 1) * self._segment_rows
        rows = max(0, min(self._length, end) - start)
        good = HEADER_BYTES + rows * self._dtype.itemsize
        return size if size < HEADER_BYTES else max(0, size - good)

    def _keep_segments(self, damaged: Iterable[Damage], torn: Mapping[int, int]) -> None:
        """Keep segments aside that hold rows which were recorded and cannot be read."""
        wal, rows = self.path / WAL_FOLDER, self._segment_rows
        found = {damage.path: int(damage.path.stem) for damage in damaged}
        found |= {segment_path(wal, start): start for start, count in torn.items() if count}
        for path, start in found.items():
            keep_aside(self.path, path, start, (start // rows + 1) * rows)

    # Appending (under _wake)

    def _refuse_forked(self) -> None:
        """Refuse a process that was forked from the writer's; it has no keeper, and no lock."""
        if not (self._lock.held or self._closed):
            raise LogError(
                f"{self.path} is written by another process, from which this one was forked. "
                "Append in the process that opened the LogWriter."
            )

    def _is_behind(self) -> bool:
        """Would the next row begin a segment on top of as many as may wait to be sealed?"""
        if self._length % self._segment_rows or self._closed or self._fault is not None:
            return False
        return self._count_full() >= _BACKLOG * self._at_once

    def _check_writable(self) -> None:
        if self._closed:
            raise LogError(f"{self.path} is closed; open a new LogWriter to go on")
        if self._fault is not None:
            self._in_episode = False
            raise type(self._fault)(*self._fault.args) from self._fault

    def _check_order(self, row: Mapping[str, Any]) -> None:
        if not (self._in_episode or row["is_first"]):
            raise LogSpecError(
                f"row {self._length}: no episode is open, so the row must have is_first=True"
            )
        if self._in_episode and not row["is_first"] and row["stamp"] <= self._last_stamp:
            raise LogSpecError(
                f"row {self._length}: stamp must grow within an episode, got {row['stamp']} ns "
                f"after {self._last_stamp} ns"
            )

    def _check_rate(self) -> None:
        """Hold the rate of the episode that ends here against the declared one."""
        steps = self._length - 1 - self._first_row
        if self._first_row < 0 or steps < 1:
            return
        declared = self.spec.control_period_s
        seconds = (self._last_stamp - self._first_stamp) * 1e-9
        if not math.isclose(seconds, steps * declared, rel_tol=RATE_TOLERANCE):
            said = (
                f"rows {self._first_row} to {self._length}: one step took {seconds / steps:.4g} s "
                f"on average, {declared:g} s are declared"
            )
            self.irregular.append(said)
            _log.warning("%s: %s", self.path, said)
        self._first_row = -1

    def _segment(self) -> SegmentWriter:
        """The segment that takes the next row."""
        if not self._segments or self._is_full(self._segments[-1]):
            folder = self.path / WAL_FOLDER
            self._segments.append(SegmentWriter(folder, self._length, self._dtype))
        return self._segments[-1]

    def _is_full(self, segment: SegmentWriter) -> bool:
        return segment.rows > 0 and (segment.start + segment.rows) % self._segment_rows == 0

    def _count_full(self) -> int:
        return sum(self._is_full(segment) for segment in self._segments)

    # Keeping (the background thread)

    def _keep(self) -> None:
        while True:
            with self._wake:
                while not self._closed and (wait := self._rest()) != 0:
                    self._wake.wait(wait)
                if self._closed:
                    return
                full, due = min(self._count_full(), self._at_once), self._is_due()
            fault: LogError | None = None
            try:
                with disk_errors(self.path):
                    if due:
                        self._sync()
                    if full:
                        self._seal_oldest(full)
            except LogError as error:
                fault = error
            except Exception as error:
                fault = LogError(f"{self.path}: recording failed inside: {error!r}")
            if fault is not None:
                _log.error("%s", fault)
            with self._wake:
                if self._fault is None or isinstance(self._fault, _PASSING):
                    self._fault = fault
                self._room.notify_all()
                if self._fault is not None and not isinstance(self._fault, _PASSING):
                    return  # a disk that failed is not trusted again
                if self._fault is not None and not self._closed:
                    self._wake.wait(max(self.durable_s, 0.1))

    def _rest(self) -> float | None:
        """Seconds until there is something to do; None until asked."""
        if self._fault is not None or self._count_full():
            return 0
        if self._dirty_since is None:
            return None
        return max(0.0, self._dirty_since + self.durable_s - time.monotonic())

    def _is_due(self) -> bool:
        return (
            self._dirty_since is not None and time.monotonic() >= self._dirty_since + self.durable_s
        )

    def _sync(self) -> None:
        """Make all rows durable.

        LogReadError where a file cannot be opened just now: nothing is lost, and the call may be
        made again. Any other error of a sync is a fault for good.
        """
        syncs: list[Callable[[], None]] = []
        failed: list[OSError] = []
        with self._wake:
            since, length = self._dirty_since, self._length
            dirty = [(s, s.rows) for s in self._segments if s.rows > s.synced]
            try:
                for segment, _ in dirty:
                    syncs.append(segment.syncer())
            except LogReadError as error:
                failed.append(error)
            self._dirty_since = None
        syncs.append(partial(sync_folder, self.path / WAL_FOLDER))
        for sync in syncs:
            try:  # each is called, whatever the others do: it closes its descriptor
                sync()
            except OSError as error:
                failed.append(error)
        for cause in failed:
            if not isinstance(cause, LogReadError):  # the kernel may have dropped the data
                self._fault = LogError(
                    f"{self.path}: the disk did not take rows before {self._length} ({cause}); "
                    "they may be lost at a power cut. Check the disk and open the log again."
                )
                raise self._fault from cause
        if failed:
            with self._wake:
                self._dirty_since = since or self._dirty_since or time.monotonic()
                self._wake.notify()
            raise failed[0]
        for segment, rows in dirty:
            segment.synced = max(segment.synced, rows)
        self._durable = max(self._durable, length)
        with contextlib.suppress(OSError):  # it only tells of a segment that is gone
            mark_durable(self.path / WAL_FOLDER, self._durable)

    def _seal_oldest(self, count: int, *, end_open: bool = False) -> None:
        """Seal the oldest `count` segments in one commit."""
        with self._wake:
            segments = self._segments[:count]
        found, lost = [np.zeros(0, self._dtype)], []
        for segment in segments:
            records, damaged = self._read_back(segment)
            found.append(records)
            lost += damaged
            if damaged:
                rows = segment.start, segment.start + segment.rows
                keep_aside(self.path, segment.path, *rows)
        self._sealer.seal(
            found[1] if len(found) == 2 else np.concatenate(found), end_open=end_open, lost=lost
        )
        with self._wake:
            del self._segments[:count]
        for segment in segments:
            segment.close()
            clean_up(segment.path)

    def _read_back(self, segment: SegmentWriter) -> tuple[np.ndarray, list[int]]:
        """Return a segment's records, checked, and the rows that its file has lost."""
        source = SegmentReader(self.path / WAL_FOLDER, segment.start, self._dtype)
        try:
            records = source.poll(segment.rows)[: segment.rows]
        finally:
            source.close()
        if source.lost:
            _log.error("%s is damaged, rows %s are lost", segment.path, source.lost)
        return records, source.lost


def _claim_folder(path: Path) -> None:
    """Make the folder, or make sure that it is a log's."""
    made = [p for p in (path, *path.parents) if not exists(p)]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        sync_folder(folder.parent)
    if exists(path / ROOT) or exists(path / ROOT_COPY):
        load_manifest(path)
    elif not exists(path / LOCK_NAME) and (others := list_names(path)):
        raise LogFormatError(
            f"{path} is not a log: it holds {others[0]}. Give the path of a log or a new one."
        )
