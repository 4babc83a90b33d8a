"""Reading a log's archive in an object store as if it lay here, with a bounded copy on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np

from wm_datasets.cache_folder import default_cache_folder
from wm_datasets.errors import LogFormatError
from wm_datasets.log.reader import LogReader
from wm_datasets.remote.object_store import ObjectStore, is_url
from wm_datasets.remote.upload import IDENTITY
from wm_datasets.storage.column import Column, write_whole
from wm_datasets.storage.file_reads import read_file
from wm_datasets.storage.manifest import ROOT, Manifest, parse_root

LOOK_S = 5.0  # between two looks whether the archive has grown


def open_log(
    place: str | Path, *, download_bytes: int = 8 << 30, folder: Path | None = None
) -> LogReader:
    """Open a log by its folder, or its archive by a URL as s3://bucket/log."""
    if isinstance(place, str) and is_url(place):
        return RemoteReader(place, download_bytes=download_bytes, folder=folder)
    return LogReader(place)


class RemoteReader(LogReader):
    """A LogReader of an archive. Chunks are fetched when they are needed, several at once, and
    kept on this disk, at most `download_bytes` of them: the least recently used go first.

    The copy lies under `folder` (default ~/.cache/wm_nodes) and outlives the process. LogError when
    the store cannot be reached.
    """

    def __init__(
        self, url: str, *, download_bytes: int = 8 << 30, folder: Path | None = None
    ) -> None:
        self.url, self._store = url.rstrip("/"), ObjectStore(url)
        self._looked, self._root_data = float("-inf"), b""
        root = self._fetch_root()
        attributes = json.loads(root)["attributes"]
        name = f"{self.url}#{attributes.get(IDENTITY, {}).get('id', '')}"
        self._identity = zlib.crc32(name.encode())
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = (folder or default_cache_folder()) / "remote" / key
        self._downloads = _Downloads(path, download_bytes)
        self._take_root(path, root)
        self._fetch_table(path, root)
        super().__init__(path)

    def refresh(self) -> bool:
        """Follow the archive; it is looked at every few seconds, not each time."""
        if time.monotonic() - self._looked >= LOOK_S:
            root = self._fetch_root()
            if root != self._root_data:
                self._take_root(self.path, root)
        return super().refresh()

    def read(self, field: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        column = self._columns.get(field)
        if isinstance(column, _RemoteColumn) and self.first <= start < stop <= self.sealed:
            column.fetch(range(start // column.chunk, -(-stop // column.chunk)))
        return super().read(field, start, stop, out)

    def _make_columns(self, manifest: Manifest) -> dict[str, Column]:
        return {
            name: _RemoteColumn(column, name, self) for name, column in manifest.columns(
                self.path).items()
        }  # fmt: skip

    def _fetch_root(self) -> bytes:
        self._looked = time.monotonic()
        data = self._store.read_one(ROOT)
        if data is None:
            raise LogFormatError(
                f"no log at {self.url}: there is no {ROOT}. Give the URL of an archive."
            )
        parse_root(json.loads(data), f"{self.url}/{ROOT}")
        return data

    def _take_root(self, path: Path, data: bytes) -> None:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / ROOT).exists() or (path / ROOT).read_bytes() != data:
            write_whole(path / ROOT, data)
        self._root_data = data

    def _fetch_table(self, path: Path, root: bytes) -> None:
        """Bring the episode table here; it is short."""
        manifest = parse_root(json.loads(root), self.url)
        paths = {
            f"{name}/{column.chunk_path(i).name}": column.chunk_path(i)
            for name, column in manifest.episode_columns(path).items()
            for i in range(manifest.first_episode // column.chunk,
                           -(-manifest.episodes // column.chunk))
        }  # fmt: skip
        for key, data in self._store.read(paths).items():
            paths[key].parent.mkdir(parents=True, exist_ok=True)
            write_whole(paths[key], data)


class _RemoteColumn(Column):
    """Chunks of one field, fetched into files here: full ones for good, the last one until it has
    more rows (its file is named after how many the log had)."""

    def __init__(self, column: Column, name: str, reader: RemoteReader) -> None:
        super().__init__(column.folder, column.field, column.chunk, column.since)
        self._name, self._reader = name, reader
        self.folder.mkdir(parents=True, exist_ok=True)

    def signature(self, i: int) -> tuple[int, int, int]:
        return self._reader._identity, self._version(i), 0

    def fetch(self, chunks: range) -> None:
        """Bring chunks here that are not, all at once; those that do not exist stay away."""
        paths = {f"{self._name}/{self.chunk_path(i).name}": self._local(i) for i in chunks}
        downloads = self._reader._downloads
        missing = {key: path for key, path in paths.items() if not downloads.touch(path)}
        if not missing:
            return
        for key, data in self._reader._store.read(missing).items():
            downloads.put(missing[key], data)

    def _read_bytes(self, i: int) -> bytes:
        self.fetch(range(i, i + 1))
        try:
            return read_file(self._local(i))
        except FileNotFoundError:  # another process made room meanwhile, or the store has none
            self.fetch(range(i, i + 1))
            return read_file(self._local(i))

    def _version(self, i: int) -> int:
        """0 for a chunk that is full; else how many rows the log has."""
        sealed = self._reader.sealed
        return 0 if (i + 1) * self.chunk <= sealed else sealed

    def _local(self, i: int) -> Path:
        path, version = self.chunk_path(i), self._version(i)
        return path if version == 0 else path.with_name(f"{path.name}@{version}")


class _Downloads:
    """Files of chunks, bounded in bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._limit = limit
        files = [(p.stat(), p) for p in folder.rglob("c.*") if p.parent.parent.name != "episode"]
        files = [(stat, path) for stat, path in files if not path.name.endswith(".tmp")]
        files.sort(key=lambda pair: pair[0].st_mtime_ns)
        self._sizes = OrderedDict((path, stat.st_size) for stat, path in files)
        self._total = sum(self._sizes.values())

    def touch(self, path: Path) -> bool:
        """Is the file here? It counts as used now."""
        if path not in self._sizes:
            if not path.exists():
                return False
            self._note(path, path.stat().st_size)  # another process fetched it
        elif not path.exists():  # or dropped it
            self._total -= self._sizes.pop(path)
            return False
        self._sizes.move_to_end(path)
        return True

    def put(self, path: Path, data: bytes) -> None:
        aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        aside.write_bytes(data)
        aside.replace(path)
        self._note(path, len(data))
        while self._total > self._limit and len(self._sizes) > 1:
            oldest, size = self._sizes.popitem(last=False)
            self._total -= size
            with contextlib.suppress(FileNotFoundError):
                oldest.unlink()

    def _note(self, path: Path, size: int) -> None:
        self._total += size - self._sizes.pop(path, 0)
        self._sizes[path] = size
