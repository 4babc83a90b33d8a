"""Reading a log, whole or while another process writes it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from wm_datasets.errors import LogAbsentError, LogRowError
from wm_datasets.log.follower import LogFollower
from wm_datasets.spec import EVALUATION, LogSpec
from wm_datasets.storage.column import Column
from wm_datasets.storage.damage import (
    Damage,
    KnownDamage,
    LogDamageError,
    episodes_hit,
    read_around,
)
from wm_datasets.storage.file_reads import exists
from wm_datasets.storage.manifest import Manifest, load_manifest


class LogReader:
    """Rows [first, length) of a log as they stood at the last refresh().

    Sealed rows come from the zarr arrays, newer ones from the write-ahead segments; both are one
    log here. A row seen once stays, with the same content, even when the writer is killed with
    -9 the next moment; only the log's capacity drops rows, whole oldest episodes at a time.
    What is lost to a damaged file raises LogDamageError when it is read, is named in `damage` and
    logged once; all other rows stay readable. Where the machine cannot read a file (no descriptors,
    memory or permission) it is a LogReadError after a second, and never taken for damage: the same
    call may be made again.
    One thread at a time; any number of readers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._damage = KnownDamage()
        self._log = LogFollower(self.path, self._make_columns, self._damage.note)
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
        return self._log.unsealed.length

    @property
    def sealed(self) -> int:
        """One past the newest row that lies in the zarr arrays; the rest lies in segments."""
        return self._manifest.sealed

    @property
    def episodes(self) -> np.ndarray:
        """(E,) of (start, length, complete), oldest first; the last may still be growing."""
        return self._log.episodes.table

    @property
    def intact(self) -> np.ndarray:
        """The episodes of which no row is known to be lost."""
        table = self.episodes
        intact: np.ndarray = table[~episodes_hit(table, self.damage)]
        return intact

    @property
    def learnable(self) -> np.ndarray:
        """The intact episodes, without those that were recorded to evaluate a policy."""
        table = self.episodes
        table = table[~self.is_evaluation(table)]
        # Damage is looked up after the marks were read: a lost mark reads as false.
        learnable: np.ndarray = table[~episodes_hit(table, self.damage)]
        return learnable

    @property
    def damage(self) -> list[Damage]:
        """What is known to be lost so far; files are only looked at when they are read."""
        return self._manifest.damage(self.path) + self._damage.since(self.first)

    @property
    def unsealed(self) -> np.ndarray:
        """The records of rows [sealed, length), (n,) of record_dtype; lost ones are zeros."""
        return self._log.unsealed.records

    def since(self, field: str) -> int:
        """The first row that has the field; 0 unless it was added to a log with rows."""
        if field not in self._columns:
            raise LogRowError(
                f"field: got {field!r}, expected one of {list(self._columns)} as in {self.path}."
            )
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
        read = partial(self.read_around, EVALUATION)
        return self._log.episodes.evaluation_rows(self.first, self.length, read)

    def is_evaluation(self, episodes: np.ndarray) -> np.ndarray:
        """Return a mask (E,) of a part of `episodes`: those recorded to evaluate a policy."""
        mask: np.ndarray = self.evaluation_rows()[episodes["start"] - self.first]
        return mask

    def refresh(self) -> bool:
        """Follow the log; True when rows came or went since the last call that succeeded."""
        return self._log.refresh(self._read, self._make_columns)

    def note(self, damage: Damage) -> None:
        """Take damage as known, and log it once."""
        self._damage.note(damage)

    def read(self, field: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return rows [start, stop) of a field, (stop - start, *shape), in `out` if given.

        LogDamageError where one of them is lost: read_around() gives the others. LogAbsentError
        where one is older than the field (see since() and present()).
        """
        since = self.since(field)
        if not self.first <= start <= stop <= self.length:
            raise LogRowError(
                f"rows: got {start} to {stop}, expected some of {self.first} to {self.length}, "
                f"which {self.path} holds."
            )
        if start < min(since, stop):
            raise LogAbsentError(
                f"field '{field}': got rows {start} to {stop}, expected rows from {since} on: "
                f"{self.path} has no such field before. present('{field}') says which episodes "
                "have it."
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
        self._log.unsealed.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _manifest(self) -> Manifest:
        return self._log.manifest

    @property
    def _columns(self) -> dict[str, Column]:
        return self._log.columns

    def _make_columns(self, manifest: Manifest) -> dict[str, Column]:
        return manifest.columns(self.path)

    def _empty(self, field: str, rows: int) -> np.ndarray:
        spec = self.spec.fields[field]
        return np.empty((rows, *spec.shape), spec.dtype)

    def _read(self, field: str, start: int, stop: int, out: np.ndarray) -> None:
        """Fill `out` with rows [start, stop), zeros in place of lost records."""
        sealed = self._manifest.sealed
        if start < sealed:
            try:
                self._columns[field].read(start, min(stop, sealed), out[: sealed - start])
            except LogDamageError as error:
                raise self._explain(error.damage) from error
        if stop > sealed:
            self._log.unsealed.copy(field, start, stop, out)

    def _refuse_lost(self, start: int, stop: int) -> None:
        """Refuse rows that were lost before they were sealed; files say it of themselves."""
        if not (self._damage or self._manifest.lost):
            return
        lost = self._manifest.damage(self.path) + self._damage.of_segments()
        for damage in sorted(lost, key=lambda d: d.start):
            if damage.start < stop and start < damage.stop:
                raise LogDamageError(damage)

    def _explain(self, missing: Damage) -> LogDamageError | LogRowError:
        """Is the file damaged, or has the capacity dropped its rows since the last refresh?"""
        if not exists(missing.path) and load_manifest(self.path).first >= missing.stop:
            return LogRowError(
                f"rows {missing.start} to {missing.stop} of '{missing.path.parent.name}' are gone "
                "(dropped by the log's capacity). Call refresh() and read rows from `first` on."
            )
        start, stop = max(missing.start, self.first), min(missing.stop, self.sealed)
        damage = Damage(missing.path, start, stop, missing.reason)
        self.note(damage)
        return LogDamageError(damage)
