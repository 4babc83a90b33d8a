"""Reading a log, whole or while another process writes it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from wm_datasets.errors import LogAbsentError, LogFormatError, LogRowError
from wm_datasets.spec import EVALUATION, LogSpec
from wm_datasets.storage.column import Column
from wm_datasets.storage.damage import Damage, LogDamageError, episodes_hit, merge, read_around
from wm_datasets.storage.episodes import EpisodeIndex
from wm_datasets.storage.file_reads import exists
from wm_datasets.storage.index import sealed_index
from wm_datasets.storage.manifest import ROOT, Manifest, load_manifest
from wm_datasets.storage.segment import SegmentReader, list_segments, record_dtype, segment_path

_log = logging.getLogger(__name__)

WAL_FOLDER = "wal"
_PATIENCE = 1000
_CLOCK_NS = 100_000_000  # two changes nearer than that may have one time stamp


class LogReader:
    """Rows [first, length) of a log as they stood at the last refresh().

    Sealed rows come from the zarr arrays, newer ones from the write-ahead segments; both are one
    log here. A row seen once stays, with the same content, even when the writer is killed with
    -9 the next moment; only the log's capacity drops rows, whole oldest episodes at a time.
    What is lost to a damaged file raises LogDamageError when it is read, is named in `damage` and
    logged once; all other rows stay readable. Where the machine cannot read a file (no descriptors,
    memory or permission) it is a LogReadError after a second, and never taken for damage: the same
    call may be made again.
    One thread at a time; as many readers as wanted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._root_path, self._wal_path = str(self.path / ROOT), str(self.path / WAL_FOLDER)
        self._root_stat: tuple[int, ...] | None = None
        self._segments_stat: int | None = None  # when the folder of segments last changed [ns]
        self._manifest = self._load()
        self._columns = self._make_columns(self._manifest)
        self._dtype, self._rows = record_dtype(self.spec.fields), self._manifest.segment_rows
        self._damage: dict[tuple[Path, int], Damage] = {}  # found so far
        self._index, found = sealed_index(self.path, self._manifest)
        for damage in found:
            self.note(damage)
        self._segment: SegmentReader | None = None
        self._pieces: list[np.ndarray] = []  # records of rows [sealed, length)
        self._length = self._manifest.sealed
        self._followed = (self.first, self.length)  # at the last refresh() that succeeded
        self._evaluation = (self.first, np.zeros(0, bool))  # first row, marks of the rows from it
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> LogSpec:
        return self._manifest.spec

    @property
    def identity(self) -> str:
        """The random id that the log was given when it was created; '' in older logs."""
        return self._manifest.identity

    @property
    def first(self) -> int:
        """The oldest row that exists; 0 unless a capacity dropped episodes."""
        return self._manifest.first

    @property
    def length(self) -> int:
        """One past the newest row that exists."""
        return self._length

    @property
    def sealed(self) -> int:
        """One past the newest row that lies in the zarr arrays; the rest lies in segments."""
        return self._manifest.sealed

    @property
    def episodes(self) -> np.ndarray:
        """(E,) of (start, length, complete), oldest first; the last may still be growing."""
        return self._index.table

    @property
    def intact(self) -> np.ndarray:
        """The episodes of which no row is known to be lost."""
        table = self.episodes
        return table[~episodes_hit(table, self.damage)]

    @property
    def learnable(self) -> np.ndarray:
        """The intact episodes, without those that were recorded to evaluate a policy."""
        table = self.episodes
        table = table[~self.is_evaluation(table)]
        # Damage is looked up after the marks were read: a lost mark reads as false.
        return table[~episodes_hit(table, self.damage)]

    @property
    def damage(self) -> list[Damage]:
        """What is known to be lost so far; files are only looked at when they are read."""
        found = [d for d in self._damage.values() if d.stop > self.first or d.start == d.stop]
        return self._manifest.damage(self.path) + found

    @property
    def unsealed(self) -> np.ndarray:
        """The records of rows [sealed, length), (n,) of record_dtype; lost ones are zeros."""
        return np.concatenate([np.zeros(0, self._dtype), *self._pieces])

    def since(self, field: str) -> int:
        """The first row that has the field; 0 unless it was added to a log with rows."""
        if field not in self._columns:
            raise LogRowError(f"no field '{field}' in {self.path}; fields: {list(self._columns)}")
        return self._columns[field].since

    def present(self, *fields: str) -> np.ndarray:
        """Return a mask (E,) of `episodes`: those that have all of these fields."""
        held: np.ndarray = self.episodes["start"] >= max(map(self.since, fields), default=0)
        return held

    def evaluation_rows(self) -> np.ndarray:
        """Return a mask (length - first,) of the rows of episodes recorded to evaluate a policy.

        False in rows that are older than the mark, and in all rows of a log without it.
        """
        if EVALUATION not in self._columns:
            return np.zeros(self.length - self.first, bool)
        start, known = self._evaluation
        if (start, start + len(known)) != (self.first, self.length):
            known = known[self.first - start :]
            fresh = self.read_around(EVALUATION, self.first + len(known), self.length)
            known = np.concatenate([known, fresh])
            self._evaluation = self.first, known
        return known

    def is_evaluation(self, episodes: np.ndarray) -> np.ndarray:
        """Return a mask (E,) of a part of `episodes`: those recorded to evaluate a policy."""
        mask: np.ndarray = self.evaluation_rows()[episodes["start"] - self.first]
        return mask

    def refresh(self) -> bool:
        """Follow the log; True when rows came or went since the last call that succeeded."""
        try:
            self._refresh()
        except BaseException:
            self._segments_stat = None  # what is half followed is looked at in full next time
            raise
        before, self._followed = self._followed, (self.first, self.length)
        return before != self._followed

    def _refresh(self) -> None:
        if self._only_grew():
            return
        for _ in range(_PATIENCE):
            folder = self._stat_segments()
            self._follow_manifest()
            try:
                followed = self._follow_segments() and self._follow_episodes()
            except LogFormatError:  # a segment with fields that were added this moment?
                if self._peek().spec == self.spec:
                    raise
                followed = False
            if followed:
                self._segments_stat = folder
                return
            self._root_stat = None  # the writer sealed meanwhile: look again
        raise LogFormatError(f"{self.path}: its segments and its zarr.json do not fit together")

    def read(self, field: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return rows [start, stop) of a field, (stop - start, *shape), in `out` if given.

        LogDamageError where one of them is lost: read_around() gives the others. LogAbsentError
        where one is older than the field (see since() and present()).
        """
        since = self.since(field)
        if not self.first <= start <= stop <= self.length:
            raise LogRowError(
                f"rows {start} to {stop} asked for; {self.path} holds {self.first} to {self.length}"
            )
        if start < min(since, stop):
            raise LogAbsentError(
                f"field '{field}' is declared absent in {self.path} before row {since}, rows "
                f"{start} to {stop} asked for. present('{field}') says which episodes have it."
            )
        if out is None:
            out = self._empty(field, stop - start)
        if start < stop:
            self._refuse_lost(start, stop)
            self._read(field, start, stop, out)
        return out

    def read_around(
        self, field: str, start: int, stop: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Like read(), but rows that are lost, or older than the field, are zeros.

        `damage` names the lost ones, since() says where the field begins.
        """
        begin = min(max(start, self.since(field)), max(start, stop))
        if out is None:
            out = self._empty(field, stop - start)
        out[: begin - start] = 0
        read_around(partial(self.read, field), begin, stop, out[begin - start :])
        return out

    def read_rows(
        self, start: int, stop: int, fields: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return rows [start, stop) of several fields (default: all that the row `start` has)."""
        if fields is None:
            fields = [name for name in self._columns if self.since(name) <= start]
        return {name: self.read(name, start, stop) for name in fields}

    def chunk_rows(self, field: str) -> int:
        """Rows per chunk of a field's array."""
        return self._columns[field].chunk

    def read_chunk(self, field: str, i: int) -> np.ndarray:
        """Decode the i-th chunk of a field, (chunk_rows, *shape), which must be sealed whole."""
        try:
            return self._columns[field].read_chunk(i)
        except LogDamageError as error:
            raise self._explain(error.damage) from error

    def chunk_signature(self, field: str, i: int) -> tuple[int, int, int]:
        """Numbers that change when the chunk's file does: time, size, checksum; zeros: unknown."""
        return self._columns[field].signature(i)

    def close(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make_columns(self, manifest: Manifest) -> dict[str, Column]:
        return manifest.columns(self.path)

    def _empty(self, field: str, rows: int) -> np.ndarray:
        spec = self.spec.fields[field]
        return np.empty((rows, *spec.shape), spec.dtype)

    def _read(self, field: str, start: int, stop: int, out: np.ndarray) -> None:
        """Fill `out` with rows [start, stop), whatever stands there for lost records included."""
        sealed = self._manifest.sealed
        if start < sealed:
            try:
                self._columns[field].read(start, min(stop, sealed), out[: sealed - start])
            except LogDamageError as error:
                raise self._explain(error.damage) from error
        at = sealed
        for piece in self._pieces:
            lo, hi = max(start, at), min(stop, at + len(piece))
            if lo < hi:
                out[lo - start : hi - start] = piece[field][lo - at : hi - at]
            at += len(piece)

    def note(self, damage: Damage) -> None:
        """Take damage as known, and log it once."""
        if (damage.path, damage.start) not in self._damage:
            self._damage[damage.path, damage.start] = damage
            _log.error("%s", damage)

    def _refuse_lost(self, start: int, stop: int) -> None:
        """Refuse rows that were lost before they were sealed; files say it of themselves."""
        if not (self._damage or self._manifest.lost):
            return
        lost = [d for d in self._damage.values() if d.path.suffix == ".seg"]
        for damage in sorted(self._manifest.damage(self.path) + lost, key=lambda d: d.start):
            if damage.start < stop and start < damage.stop:
                raise LogDamageError(damage)

    def _explain(self, found: Damage) -> LogDamageError | LogRowError:
        """Is the file damaged, or has the capacity dropped its rows since the last refresh?"""
        if not exists(found.path) and load_manifest(self.path).first >= found.stop:
            return LogRowError(
                f"rows {found.start} to {found.stop} of '{found.path.parent.name}' are gone "
                "(dropped by the log's capacity); refresh() and read rows from `first` on"
            )
        start, stop = max(found.start, self.first), min(found.stop, self.sealed)
        damage = Damage(found.path, start, stop, found.reason)
        self.note(damage)
        return LogDamageError(damage)

    def _load(self) -> Manifest:
        """Take the manifest on disk; the one at hand while its file has not changed."""
        now = self._stat_root()
        if not now or now != self._root_stat:
            self._manifest = load_manifest(self.path)
            self._root_stat = now
        return self._manifest

    def _peek(self) -> Manifest:
        """The manifest on disk, as _load(), without taking it."""
        now = self._stat_root()
        return self._manifest if now and now == self._root_stat else load_manifest(self.path)

    def _stat_root(self) -> tuple[int, ...]:
        """What changes when the root's file does; () where that cannot be known."""
        try:
            stat = os.stat(self._root_path)  # noqa: PTH116  (this is asked for every batch)
        except OSError:
            return ()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _stat_segments(self) -> int | None:
        """When a segment last came or went [ns]; None where that is not known, or just now."""
        try:
            changed = os.stat(self._wal_path).st_mtime_ns  # noqa: PTH116
        except OSError:
            return None
        return changed if time.time_ns() - changed > _CLOCK_NS else None

    def _only_grew(self) -> bool:
        """Has nothing come but rows of the open segment, if that? Takes them; False when in doubt.

        This is the way of nearly every refresh: three looks at files' states.
        """
        known = self._segments_stat is not None and self._root_stat is not None
        if not known or self._segments_stat != self._stat_segments():
            return False
        if self._root_stat != self._stat_root():
            return False
        if self._segment is None or not self._segment.has_grown():
            return True
        self._take(self._segment, 0)
        return self._length % self._rows != 0 and self._follow_episodes()

    def _follow_manifest(self) -> None:
        old, new = self._manifest, self._load()
        whole = new.spec == old.spec or old.spec.grown(new.spec) is not None
        if new.spec != old.spec and new.sealed < self._length:
            whole = False
        gone = new.sealed < old.sealed or new.first < old.first
        if gone or not whole or new.is_of_another_log(old):
            self._manifest, self._root_stat = old, None  # so that the next refresh() refuses too
            raise LogFormatError(f"{self.path} was replaced by another log; open it anew")
        if new.spec != old.spec:  # fields were added, when all rows there were had been sealed
            self._columns, self._rows = self._make_columns(new), new.segment_rows
            self._dtype = record_dtype(new.spec.fields)
        if new.sealed >= self._length:  # everything known is sealed; the segment may be a new file
            self.close()
            self._length, self._pieces = new.sealed, []
        drop = new.sealed - (self._length - sum(map(len, self._pieces)))
        while drop > 0 and self._pieces:
            taken = min(drop, len(self._pieces[0]))
            self._pieces[0] = self._pieces[0][taken:]
            drop -= taken
            if not len(self._pieces[0]):
                del self._pieces[0]

    def _follow_segments(self) -> bool:
        """Read on through the segments; False when the log was sealed underneath."""
        while True:
            if self._segment is None and not self._open_segment():
                return self._peek().sealed <= self._length
            if self._segment is None:
                continue
            self._take(self._segment, 0)
            following = (self._length // self._rows + 1) * self._rows
            if self._segment.rows and self._length % self._rows == 0:
                self.close()
            elif self._has_rows(following):  # so this one is full, and what it lacks is lost
                if self._peek().sealed > self._manifest.sealed:
                    return False
                self._take(self._segment, following - self._segment.start)
            else:
                return True

    def _take(self, segment: SegmentReader, known: int) -> None:
        """Append what the segment has; its first `known` records must exist."""
        lost = len(segment.lost)
        records = segment.poll(known)
        if len(records):
            self._pieces.append(records)
            self._length += len(records)
        for start, stop in merge((row, row + 1) for row in segment.lost[lost:]):
            self.note(Damage(segment.path, start, stop, "the checksum does not fit"))

    def _open_segment(self) -> bool:
        """Open the segment of the next row; skip over one that is missing; False without any."""
        folder = self.path / WAL_FOLDER
        later: list[int] = []
        for _ in range(2):
            try:
                self._segment = SegmentReader(folder, self._length, self._dtype)
                return True
            except FileNotFoundError:
                later = later or [row for row in list_segments(folder) if row > self._length]
        found = next((start for start in later if self._has_rows(start)), None)
        if found is None or self._peek().sealed > self._manifest.sealed:
            return False
        missing = np.zeros(found - self._length, self._dtype)
        missing["is_first"][0] = True
        path = segment_path(folder, self._length)
        self.note(Damage(path, self._length, found, "the file is missing"))
        self._pieces.append(missing)
        self._length = found
        return True

    def _has_rows(self, start: int) -> bool:
        """Is there a segment from row `start` on with a whole record in it?"""
        try:
            segment = SegmentReader(self.path / WAL_FOLDER, start, self._dtype)
        except FileNotFoundError:
            return False
        try:
            return len(segment.poll()) > 0
        finally:
            segment.close()

    def _follow_episodes(self) -> bool:
        if self.first > self._index.length:
            self._index = EpisodeIndex(self.first)
        self._index.drop_before(self.first)
        start, stop = self._index.length, self.length
        flags = {name: np.zeros(stop - start, bool) for name in ("is_first", "is_last")}
        try:
            for name, values in flags.items():
                for found in read_around(partial(self._read, name), start, stop, values):
                    if name == "is_first":  # an episode of unknown rows begins
                        values[found.start - start] = True
        except LogRowError:
            return False
        self._index.extend(flags["is_first"], flags["is_last"])
        return True
