"""Reading a log, whole or while another process writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from wm_datasets.episodes import EpisodeIndex
from wm_datasets.errors import LogFormatError, LogRowError
from wm_datasets.manifest import Manifest, load_manifest
from wm_datasets.segment import SegmentReader, record_dtype
from wm_datasets.spec import LogSpec

WAL_FOLDER = "wal"
_PATIENCE = 1000


class LogReader:
    """Rows [first, length) of a log as they stood at the last refresh().

    Sealed rows come from the zarr arrays, newer ones from the write-ahead segments; both are one
    log here. A row seen once stays, with the same content, even when the writer is killed with
    -9 the next moment; only the log's capacity drops rows, whole oldest episodes at a time.
    One thread at a time; as many readers as wanted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._root_stat: tuple[int, ...] | None = None
        self._manifest = self._load()
        self._columns = self._manifest.columns(self.path)
        self._dtype = record_dtype(self.spec.fields)
        self._index = EpisodeIndex(self.first)
        self._segment: SegmentReader | None = None
        self._pieces: list[np.ndarray] = []  # records of rows [sealed, length)
        self._length = self._manifest.sealed
        self.refresh()

    @property
    def spec(self) -> LogSpec:
        return self._manifest.spec

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

    def refresh(self) -> bool:
        """Follow the log; True when rows came or went."""
        before = (self.first, self.length)
        for _ in range(_PATIENCE):
            self._follow_manifest()
            if self._follow_segments() and self._follow_episodes():
                return before != (self.first, self.length)
            self._root_stat = None  # the writer sealed meanwhile: look again
        raise LogFormatError(f"{self.path}: its segments and its zarr.json do not fit together")

    def read(self, field: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return rows [start, stop) of a field, (stop - start, *shape), in `out` if given."""
        if field not in self._columns:
            raise LogRowError(f"no field '{field}' in {self.path}; fields: {list(self._columns)}")
        if not self.first <= start <= stop <= self.length:
            raise LogRowError(
                f"rows {start} to {stop} asked for; {self.path} holds {self.first} to {self.length}"
            )
        column, sealed = self._columns[field], self._manifest.sealed
        if out is None:
            out = np.empty((stop - start, *column.field.shape), column.field.dtype)
        if start < sealed:
            column.read(start, min(stop, sealed), out[: sealed - start])
        at = sealed
        for piece in self._pieces:
            lo, hi = max(start, at), min(stop, at + len(piece))
            if lo < hi:
                out[lo - start : hi - start] = piece[field][lo - at : hi - at]
            at += len(piece)
        return out

    def read_rows(
        self, start: int, stop: int, fields: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return rows [start, stop) of several fields (default all)."""
        return {name: self.read(name, start, stop) for name in fields or self._columns}

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

    def _load(self) -> Manifest:
        """The manifest on disk; the one at hand while its file has not changed."""
        try:
            stat = (self.path / "zarr.json").stat()
            now: tuple[int, ...] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            now = ()
        if not now or now != self._root_stat:
            self._manifest = load_manifest(self.path)
            self._root_stat = now
        return self._manifest

    def _follow_manifest(self) -> None:
        old, new = self._manifest, self._load()
        if new.sealed < old.sealed or new.first < old.first or new.spec != old.spec:
            raise LogFormatError(f"{self.path} was replaced by another log; open it anew")
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
            if self._segment is None:
                try:
                    self._segment = SegmentReader(self.path / WAL_FOLDER, self._length, self._dtype)
                except FileNotFoundError:
                    return load_manifest(self.path).sealed <= self._length
            records = self._segment.poll()
            if len(records):
                self._pieces.append(records)
                self._length += len(records)
            if self._segment.rows == 0 or self._length % self._manifest.segment_rows:
                return True
            self.close()

    def _follow_episodes(self) -> bool:
        if self.first > self._index.length:
            self._index = EpisodeIndex(self.first)
        self._index.drop_before(self.first)
        start, stop = self._index.length, self.length
        try:
            flags = self.read("is_first", start, stop), self.read("is_last", start, stop)
        except LogRowError:
            return False
        self._index.extend(*flags)
        return True
