"""Copying the sealed part of a log into an object store, also while it is recorded.

Chunks come first, then the arrays' metadata, then the root's zarr.json: what the root names is
there, so a reader of the archive never sees half. Chunks that are full never change; the last ones
are written again with more rows in them. Where an upload is cut off, the next one
continues from what the archive's root says.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wm_datasets.errors import LogFormatError, LogSpecError
from wm_datasets.remote.object_store import ObjectStore
from wm_datasets.storage.column import Column
from wm_datasets.storage.damage import merge
from wm_datasets.storage.file_reads import read_file
from wm_datasets.storage.index import sealed_index
from wm_datasets.storage.manifest import ROOT, ROOT_COPY, Manifest, load_manifest, parse_root

IDENTITY = "wm_archive"  # attribute of the archive's root
_PART_BYTES = 64 << 20  # decoded rows per commit, so that what is cut off is not done again
_OBJECTS = 64  # read from disk and written at once


@dataclass(frozen=True)
class Uploaded:
    """What one call of Archive.sync() did, and where the archive stands."""

    objects: int
    bytes: int
    rows: int  # the archive holds rows [first, rows)
    episodes: int


class Archive:
    """The archive of one log under a URL; one uploader at a time."""

    def __init__(self, log: str | Path, url: str) -> None:
        self.log, self.store = Path(log), ObjectStore(url)
        self._identity = uuid.uuid4().hex
        self._done: Manifest | None = None
        self._find_done()

    @property
    def rows(self) -> int:
        """One past the newest row in the archive."""
        return self._done.sealed if self._done else 0

    def sync(self, progress: Callable[[int, int], None] = lambda rows, total: None) -> Uploaded:
        """Upload what was sealed since the last time; progress(rows, total) after every part.

        LogSpecError when the archive is another log's.
        """
        objects = size = 0
        while True:
            whole = load_manifest(self.log)
            self._check(whole)
            if self._done == whole:
                return Uploaded(objects, size, whole.sealed, whole.episodes)
            part = self._next_part(whole)
            try:
                for batch in self._batches(part):
                    self.store.write(batch)
                    objects, size = objects + len(batch), size + sum(map(len, batch.values()))
            except FileNotFoundError as error:
                if load_manifest(self.log).first == whole.first:
                    raise LogFormatError(
                        f"{error.filename}: it is missing, so {self.log} cannot be archived whole. "
                        "`wm log verify` names all damage."
                    ) from error
                continue  # the log's capacity dropped rows meanwhile
            objects += self._commit(part)
            self._done = part
            progress(part.sealed, whole.sealed)

    def _find_done(self) -> None:
        data = self.store.read_one(ROOT)
        if data is not None:
            root = json.loads(data)
            self._done = parse_root(root, f"{self.store.url}/{ROOT}")
            self._identity = root["attributes"].get(IDENTITY, {}).get("id", self._identity)

    def _check(self, whole: Manifest) -> None:
        """Refuse to mix two logs in one archive."""
        done = self._done
        if done is None:
            return
        differences = done.spec.differences(whole.spec)
        if differences and done.spec.with_fields_of(whole.spec) is None:
            raise LogSpecError(
                f"archive: got {self.store.url}, which is of another log, expected that of "
                f"{self.log}. Differences: {'; '.join(differences)}. Give another URL."
            )
        if (
            not done.chunks.items() <= whole.chunks.items()
            or done.sealed > whole.sealed
            or done.first > whole.first
        ):
            raise LogSpecError(
                f"archive: got {self.store.url}, which holds rows {done.first} to {done.sealed}, "
                f"expected that of {self.log}, which has rows {whole.first} to {whole.sealed} "
                "sealed. Give another URL."
            )
        if done.is_of_another_log(whole):
            raise LogSpecError(
                f"archive: got {self.store.url}, which is of another log (id {done.identity}), "
                f"expected that of {self.log} (id {whole.identity}). Give another URL."
            )

    def _next_part(self, whole: Manifest) -> Manifest:
        """The manifest of the archive after the next commit: some more rows of the log's."""
        row = sum(f.row_bytes for f in whole.spec.fields.values())
        longest = max(whole.chunks[name] for name in whole.spec.fields)
        begin = max(self.rows, whole.first)
        stop = (begin + max(longest, _PART_BYTES // row)) // longest * longest
        if stop >= whole.sealed:
            return whole
        table = sealed_index(self.log, whole)[0].table
        ended = int((table["start"] + table["length"] <= stop).sum())
        lost = merge((a, min(b, stop)) for a, b in whole.lost if a < stop)
        return replace(whole, sealed=stop, episodes=whole.first_episode + ended, lost=lost)

    def _batches(self, part: Manifest) -> Iterator[dict[str, bytes]]:
        """Yield the chunks that the archive lacks, some at a time."""
        batch: dict[str, bytes] = {}
        for name, column, begin, end in self._ranges(part):
            for i in range(begin // column.chunk, -(-end // column.chunk)):
                path = column.chunk_path(i)
                batch[f"{name}/{path.name}"] = read_file(path)
                if len(batch) == _OBJECTS:
                    yield batch
                    batch = {}
        if batch:
            yield batch

    def _ranges(self, part: Manifest) -> Iterator[tuple[str, Column, int, int]]:
        """Yield field, column and range of rows whose chunks are to be written."""
        done = self._done
        for name, column in part.columns(self.log).items():
            begin = max(part.first, column.since, done.sealed if done else 0)
            if begin < part.sealed:
                yield name, column, begin, part.sealed
        for name, column in part.episode_columns(self.log).items():
            yield name, column, max(part.first_episode, done.episodes if done else 0), part.episodes

    def _commit(self, part: Manifest) -> int:
        """Write the metadata, the root last; return the number of objects."""
        nodes = part.metadata()
        self.store.write({f"{name}/zarr.json": _json(node) for name, node in nodes.items()})
        root = part.root(nodes)
        root["attributes"][IDENTITY] = {"id": self._identity}
        self.store.write({ROOT_COPY: _json(root)})
        self.store.write({ROOT: _json(root)})
        return len(nodes) + 2


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode()
