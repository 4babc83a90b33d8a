"""Writing a log: append to a write-ahead segment, seal full blocks into zarr, lose nothing."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from wm_datasets.column import ColumnWriter, sync_folder
from wm_datasets.episodes import EpisodeIndex
from wm_datasets.errors import LogError, LogFormatError, LogFullError, LogSpecError, disk_errors
from wm_datasets.lock import LOCK_NAME, WriterLock
from wm_datasets.manifest import Manifest, load_manifest
from wm_datasets.reader import WAL_FOLDER
from wm_datasets.rows import RowPacker
from wm_datasets.segment import SegmentReader, SegmentWriter, record_dtype, seal_record
from wm_datasets.spec import LogSpec

_log = logging.getLogger(__name__)


class LogWriter:
    """The one writer of a log; a context manager.

    append() puts a row into the segment file: from then on readers see it and kill -9 cannot take
    it back. A background thread syncs the segment at most `durable_s` [s] later, which protects it
    from a power cut too, and seals full segments into the zarr arrays. append() waits for neither;
    flush() returns when all appended rows are durable.

    Opening creates the log, or continues it: whole records left in segments are sealed, a torn
    tail is dropped (`repaired` says what was), and an episode that was left open is over: it stays
    as it is, incomplete, and the next row must begin a new one. `capacity_steps` keeps the newest
    rows: as blocks are sealed, whole oldest episodes go while more rows than that are sealed.
    """

    def __init__(
        self,
        path: str | Path,
        spec: LogSpec,
        *,
        durable_s: float = 1.0,
        capacity_steps: int | None = None,
    ) -> None:
        if not (math.isfinite(durable_s) and durable_s >= 0):
            raise LogSpecError(f"durable_s must be >= 0 [s], got {durable_s}")
        if capacity_steps is not None and capacity_steps < 1:
            raise LogSpecError(f"capacity_steps must be >= 1 or None, got {capacity_steps}")
        self.path, self.durable_s, self.capacity_steps = Path(path), durable_s, capacity_steps
        self.repaired: str | None = None
        self._closed = False
        with disk_errors(self.path):
            _claim_folder(self.path)
            self._lock = WriterLock(self.path)
            try:
                self._open(spec)
            except BaseException:
                self._lock.release()
                raise
        self._wake = threading.Condition()  # guards all below
        self._segments: list[SegmentWriter] = []  # unsealed, oldest first; the last one grows
        self._dirty_since: float | None = None
        self._stop = False
        self._fault: LogError | None = None
        self._in_episode, self._last_stamp = False, 0
        self._io = threading.Lock()  # held while syncing or sealing
        self._keeper = threading.Thread(target=self._keep, name="log keeper", daemon=True)
        self._keeper.start()

    @property
    def spec(self) -> LogSpec:
        return self._manifest.spec

    @property
    def first(self) -> int:
        """The oldest row kept."""
        return self._manifest.first

    @property
    def length(self) -> int:
        """One past the newest row."""
        return self._length

    def append(self, row: Mapping[str, Any]) -> int:
        """Record one row, given as field -> value, and return its number.

        After LogFullError the row is not in the log and its episode is over: the next row taken
        is one with is_first.
        """
        with self._wake:
            self._check_writable()
            record = self._packer.pack(row, self._length)
            self._check_order(row)
            try:
                with disk_errors(self.path):
                    self._segment().append(seal_record(record))
            except LogError:
                self._in_episode = False
                raise
            self._in_episode, self._last_stamp = not row["is_last"], int(row["stamp"])
            self._length += 1
            full = self._length % self._manifest.segment_rows == 0
            if full or self._dirty_since is None:
                self._dirty_since = self._dirty_since or time.monotonic()
                self._wake.notify()
            return self._length - 1

    def flush(self) -> None:
        """Return when every appended row would survive a power cut."""
        with self._wake:
            self._check_writable()
        self._sync()

    def close(self) -> None:
        """Seal every row into zarr and release the log; an open episode stays incomplete."""
        if self._closed:
            return
        self._closed = True
        with self._wake:
            self._stop = True
            self._wake.notify()
        self._keeper.join()
        try:
            with disk_errors(self.path):
                while self._segments:
                    self._seal_oldest()
                self._seal(self._none, end_open=True)
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
        if not (self.path / "zarr.json").exists():
            manifest = Manifest.new(spec)
            manifest.create_folders(self.path)
            (self.path / WAL_FOLDER).mkdir(exist_ok=True)
            manifest.commit(self.path)
            sync_folder(self.path.parent)
        self._manifest = load_manifest(self.path)
        if differences := self._manifest.spec.differences(spec):
            raise LogSpecError(
                f"the log at {self.path} was made with another spec. It has "
                f"{'; '.join(differences)} as given. Use another path, or the log's own spec."
            )
        self._packer = RowPacker(self._manifest.spec)
        self._dtype = record_dtype(self._manifest.spec.fields)
        self._none = np.zeros(0, self._dtype)
        self._sweep()
        sealed, first = self._manifest.sealed, self._manifest.first
        columns = self._manifest.columns(self.path)
        self._columns = {n: ColumnWriter(c, sealed) for n, c in columns.items()}
        episodes = self._manifest.episode_columns(self.path)
        self._table = {n: ColumnWriter(c, self._manifest.episodes) for n, c in episodes.items()}
        self._index = EpisodeIndex(first)
        self._index.extend(*(columns[n].read(first, sealed) for n in ("is_first", "is_last")))
        self._recover()

    def _recover(self) -> None:
        """Seal what segments hold, drop what is torn, and begin with no segment."""
        found, start, torn = [self._none], self._manifest.sealed, 0
        while True:
            try:
                segment = SegmentReader(self.path / WAL_FOLDER, start, self._dtype)
            except FileNotFoundError:
                break
            found.append(segment.poll())
            torn += segment.torn_bytes()
            start += segment.rows
            segment.close()
            if not segment.rows:
                break
        self._seal(np.concatenate(found), end_open=True)
        self._length = self._manifest.sealed
        for path in sorted((self.path / WAL_FOLDER).glob("*.seg")):
            if int(path.stem) > start:
                torn += path.stat().st_size
            path.unlink()
        if torn:
            self.repaired = (
                f"{self.path}: dropped {torn} bytes of an unfinished write after row "
                f"{self._length - 1}; {self._length - self.first} whole rows kept"
            )
            _log.warning(self.repaired)

    def _sweep(self) -> None:
        """Remove what a killed writer left beside the log."""
        for aside in self.path.rglob("*.tmp"):
            aside.unlink()
        for column in self._manifest.columns(self.path).values():
            for path in column.folder.glob("c.*"):
                if int(path.name.split(".")[1]) < self._manifest.first // column.chunk:
                    path.unlink()

    # Appending (under _wake)

    def _check_writable(self) -> None:
        if self._closed:
            raise LogError(f"{self.path} is closed; open a new LogWriter to go on")
        if self._fault is not None:
            self._in_episode = False
            raise type(self._fault)(str(self._fault)) from self._fault

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

    def _segment(self) -> SegmentWriter:
        """The segment that takes the next row."""
        if not self._segments or self._length % self._manifest.segment_rows == 0:
            if not self._segments or self._segments[-1].start != self._length:
                folder = self.path / WAL_FOLDER
                self._segments.append(SegmentWriter(folder, self._length, self._dtype))
        return self._segments[-1]

    # Keeping (the background thread)

    def _keep(self) -> None:
        while True:
            with self._wake:
                while not self._stop and (wait := self._rest()) != 0:
                    self._wake.wait(wait)
                if self._stop:
                    return
            try:
                with disk_errors(self.path):
                    self._work()
                fault = None
            except LogError as error:
                fault = error
                _log.error("%s", error)
            with self._wake:
                self._fault = fault
                if fault is not None and not self._stop:
                    if not isinstance(fault, LogFullError):
                        return  # a disk that failed is not trusted again
                    self._wake.wait(max(self.durable_s, 0.1))

    def _rest(self) -> float | None:
        """Seconds until there is something to do; None until somebody says so."""
        if self._fault is not None or len(self._full_segments()):
            return 0
        if self._dirty_since is None:
            return None
        return max(0.0, self._dirty_since + self.durable_s - time.monotonic())

    def _full_segments(self) -> list[SegmentWriter]:
        rows = self._manifest.segment_rows
        return [s for s in self._segments if s.rows and (s.start + s.rows) % rows == 0]

    def _work(self) -> None:
        with self._wake:
            full = len(self._full_segments())
            dirty = self._dirty_since
        if dirty is not None and time.monotonic() >= dirty + self.durable_s:
            self._sync()
        for _ in range(full):
            self._seal_oldest()

    def _sync(self) -> None:
        with self._io, disk_errors(self.path):
            with self._wake:
                self._dirty_since, segments = None, list(self._segments)
            for segment in segments:
                segment.sync()
            sync_folder(self.path / WAL_FOLDER)

    def _seal_oldest(self) -> None:
        with self._io:
            segment = self._segments[0]
            source = SegmentReader(self.path / WAL_FOLDER, segment.start, self._dtype)
            records = source.poll()
            source.close()
            if len(records) < segment.rows:
                raise LogFormatError(f"{segment.path} changed under its writer")
            self._seal(records)
            with self._wake:
                del self._segments[0]
            segment.close()
            segment.path.unlink()

    # Sealing (under _io)

    def _seal(self, records: np.ndarray, *, end_open: bool = False) -> None:
        """Move records into the zarr arrays; the rows count when the root's zarr.json is in place.

        A failure on the way leaves the log as it was, and the same call may be made again.
        """
        for name, column in self._columns.items():
            column.stage(records[name])
        if self._index.length == self._manifest.sealed:
            self._index.extend(records["is_first"], records["is_last"])
        new = self._stage_episodes(end_open)
        if new == self._manifest:
            return
        new.commit(self.path)
        old, self._manifest = self._manifest, new
        for column in (*self._columns.values(), *self._table.values()):
            column.commit()
        self._drop_before(old.first, new.first)

    def _stage_episodes(self, end_open: bool) -> Manifest:
        """Bring the episode table up to the index and choose what the capacity drops."""
        old, table = self._manifest, self._index.table
        ended = len(table) - (len(table) > 0 and not end_open and not table["complete"][-1])
        fresh = table[max(0, old.episodes - old.first_episode) : ended]
        for name, column in self._table.items():
            column.stage(fresh[name.removeprefix("episode/")])
        drop = 0
        if self.capacity_steps is not None:
            over = self._index.length - self.capacity_steps
            drop = min(int(np.searchsorted(table["start"], over)), max(0, len(table) - 1))
        return replace(
            old,
            sealed=self._index.length,
            first=int(table["start"][drop]) if drop else old.first,
            episodes=max(old.episodes, old.first_episode + ended),
            first_episode=old.first_episode + drop,
        )

    def _drop_before(self, old: int, new: int) -> None:
        self._index.drop_before(new)
        for column in (c.column for c in self._columns.values()):
            for i in range(old // column.chunk, new // column.chunk):
                column.chunk_path(i).unlink(missing_ok=True)


def _claim_folder(path: Path) -> None:
    """Make the folder, or make sure that it is a log's."""
    path.mkdir(parents=True, exist_ok=True)
    others = [n for n in os.listdir(path) if n not in (LOCK_NAME, "zarr.json")]
    if others and not (path / LOCK_NAME).exists() and not (path / "zarr.json").exists():
        raise LogFormatError(
            f"{path} holds other things ({others[0]}, ...); give the path of a log or a new one"
        )
