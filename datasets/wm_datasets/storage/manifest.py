"""The root of a log: what its arrays are, and how many of their rows exist (the commit point).

The root's `zarr.json` names every array with its length (consolidated metadata), so putting that
one file in place commits a block of all fields at once.
"""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogFormatError, LogReadError
from wm_datasets.spec import Field, LogSpec
from wm_datasets.storage.column import Column, chunk_rows, sync_folder, write_json
from wm_datasets.storage.damage import Damage
from wm_datasets.storage.file_reads import exists, read_file

_log = logging.getLogger(__name__)

SCHEMA = 1
ADDED_FIELDS_SCHEMA = 2  # of logs with sensors or added fields, which older versions would misread
EVALUATION_SCHEMA = 3  # of logs with the field `evaluation`, for the same reason
_SCHEMAS = (SCHEMA, ADDED_FIELDS_SCHEMA, EVALUATION_SCHEMA)
ROOT = "zarr.json"
ROOT_COPY = "zarr.json.copy"  # read when the root is damaged
_EPISODE_FIELDS = (
    Field("episode/start", np.dtype("<i8")),
    Field("episode/length", np.dtype("<i8")),
    Field("episode/complete", np.dtype("?")),
)
_SEGMENT_BYTES = 4 << 20


def new_identity() -> str:
    """Return a random id for a log: 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Manifest:
    """Rows [first, sealed) lie in the zarr arrays; episodes [first_episode, episodes) have ended.

    Both count from the log's beginning: a row keeps its number when older ones are dropped.
    `lost` are ranges of rows whose content was damaged before it could be sealed: zeros.
    `since` names the fields that were added later, with the first row that has them.
    `identity` is a random id, given at creation and when rows are taken back; '' in logs of older
    versions.
    """

    spec: LogSpec
    segment_rows: int
    chunks: dict[str, int] = field(default_factory=dict)
    first: int = 0
    sealed: int = 0
    first_episode: int = 0
    episodes: int = 0
    lost: tuple[tuple[int, int], ...] = ()
    since: dict[str, int] = field(default_factory=dict)
    identity: str = ""

    @classmethod
    def new(cls, spec: LogSpec) -> Manifest:
        row = sum(f.row_bytes for f in spec.fields.values())
        segment = int(2 ** np.floor(np.log2(np.clip(_SEGMENT_BYTES / row, 16, 1024))))
        chunks = {f.name: chunk_rows(f) for f in (*spec.fields.values(), *_EPISODE_FIELDS)}
        return cls(spec, segment, chunks, identity=new_identity())

    def is_of_another_log(self, other: Manifest) -> bool:
        """Were the two created apart, as far as both say?"""
        return bool(self.identity and other.identity) and self.identity != other.identity

    def columns(self, root: Path) -> dict[str, Column]:
        """The arrays of the steps, by field."""
        return {
            n: Column(root / n, f, self.chunks[n], self.since.get(n, 0))
            for n, f in self.spec.fields.items()
        }

    def with_fields_of(self, spec: LogSpec) -> Manifest:
        """Return this manifest with the fields that `spec`, a LogSpec.with_fields_of(), has on top.

        All rows must be sealed, so that no segment of the old layout is left.
        """
        fresh = Manifest.new(spec)
        added = [name for name in spec.fields if name not in self.spec.fields]
        return replace(
            self,
            spec=spec,
            segment_rows=min(self.segment_rows, fresh.segment_rows),  # a divisor of the old one
            chunks=self.chunks | {name: fresh.chunks[name] for name in added},
            since=self.since | {name: self.sealed for name in added if self.sealed},
        )

    def episode_columns(self, root: Path) -> dict[str, Column]:
        """The arrays of the episode table, by field."""
        return {f.name: Column(root / f.name, f, self.chunks[f.name]) for f in _EPISODE_FIELDS}

    def commit(self, root: Path) -> None:
        """Write every zarr.json, the root's last; the columns' chunks must be in place."""
        nodes = dict(self._nodes(root))
        for name, node in nodes.items():
            write_json(root / name / "zarr.json", node)
            sync_folder(root / name)
        group = self.root(nodes)
        write_json(root / ROOT_COPY, group)
        write_json(root / ROOT, group)
        sync_folder(root)

    def restore_arrays(self, root: Path) -> None:
        """Write again each array's zarr.json that differs from the committed one.

        A commit writes them before the root. Where a power cut ends it in between and takes the
        rows, they count rows that the log does not have. One that cannot be written is logged and
        stays until the next commit: this package reads the root's copy.
        """
        for name, node in self._nodes(root):
            path = root / name / "zarr.json"
            try:
                content = read_json(path)
            except (FileNotFoundError, NotADirectoryError, ValueError):
                content = None
            except LogReadError:
                continue  # the machine cannot read it now
            if content == node:
                continue
            try:
                write_json(path, node)
                sync_folder(path.parent)
            except OSError as error:
                _log.warning("%s: it cannot be restored: %s", path, error.strerror)

    def damage(self, root: Path) -> list[Damage]:
        """What is known to be lost of the sealed rows."""
        reason = "they were damaged before they were sealed"
        return [Damage(root, start, stop, reason) for start, stop in self.lost]

    def metadata(self) -> dict[str, dict[str, Any]]:
        """The zarr.json that every array and group below the root should have."""
        return dict(self._nodes(Path()))

    def create_folders(self, root: Path) -> None:
        """Make the arrays' folders that do not exist; commit() makes their names durable."""
        for name, _ in self._nodes(root):
            if not exists(root / name):
                (root / name).mkdir(parents=True, exist_ok=True)

    def _nodes(self, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        groups = {"image": self.spec.cameras, "sensor": self.spec.sensors}
        for name in ("episode", *(name for name, held in groups.items() if held)):
            yield name, {"zarr_format": 3, "node_type": "group", "attributes": {}}
        for name, column in self.columns(root).items():
            yield name, column.metadata(self.sealed, self._array_attributes(name))
        for name, column in self.episode_columns(root).items():
            yield name, column.metadata(self.episodes, {})

    def _schema(self) -> int:
        if self.spec.evaluation:
            return EVALUATION_SCHEMA
        return ADDED_FIELDS_SCHEMA if self.since or self.spec.sensors else SCHEMA

    def _array_attributes(self, name: str) -> dict[str, Any]:
        absent = {"absent_before": self.since[name]} if name in self.since else {}
        sensor = self.spec.sensors.get(name.removeprefix("sensor/"))
        if name.startswith("sensor/") and sensor is not None:
            described = sensor.to_json()
            return {part: described[part] for part in ("units", "names")} | absent
        return self._vector_attributes(name) | absent

    def _vector_attributes(self, name: str) -> dict[str, Any]:
        vector = self.spec.proprio if name == "proprio" else self.spec.action
        if name in ("proprio", "action", "commanded") and vector is not None:
            return vector.to_json()
        return {"units": "ns"} if name == "stamp" else {}

    def root(self, nodes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The root's zarr.json; `nodes` is metadata()."""
        log = {
            "schema": self._schema(),
            "first": self.first,
            "sealed": self.sealed,
            "first_episode": self.first_episode,
            "episodes": self.episodes,
            "segment_rows": self.segment_rows,
            "chunk_rows": self.chunks,
            "lost": [[a, min(b, self.sealed)] for a, b in self.lost if a < self.sealed],
            "spec": self.spec.to_json(),
        }
        if self.since:
            log["since"] = self.since
        if self.identity:
            log["id"] = self.identity
        log["crc32"] = _checksum(log)
        return {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"wm_log": log},
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": nodes,
            },
        }


def read_json(path: Path) -> Any:
    return json.loads(read_file(path))


_warned: set[Path] = set()  # logs for which the warning about the copy was logged


def load_manifest(root: Path) -> Manifest:
    """Read what is committed; LogFormatError when there is no log of this schema.

    A root that is damaged or missing is replaced by its copy, which was written just before it.
    LogReadError where the machine cannot read it: the copy may be ahead, so it is no way out.
    """
    try:
        return read_root(root, ROOT)
    except LogFormatError as error:
        if isinstance(error, _OtherSchema) or not exists(root / ROOT_COPY):
            raise
        try:
            manifest = read_root(root, ROOT_COPY)
        except LogFormatError:
            raise error from None
        if root not in _warned:
            _warned.add(root)
            _log.warning(
                "%s: it is damaged (%s), read from %s instead", root / ROOT, error, ROOT_COPY
            )
        return manifest


class _OtherSchema(LogFormatError):
    pass


def read_root(root: Path, name: str) -> Manifest:
    """Read the root, or its copy, and check it against its checksum."""
    try:
        content = read_json(root / name)
    except (FileNotFoundError, NotADirectoryError):
        what = f"the folder holds no {name}" if root.is_dir() else "there is no such folder"
        raise LogFormatError(f"no log at {root}: {what}. Give the path of a log.") from None
    except ValueError:
        content = None
    return parse_root(content, root / name)


def parse_root(content: Any, path: Path | str) -> Manifest:
    """Make a manifest of a root's content, which `path` held; checked against its checksum."""
    root, _, name = str(path).rpartition("/")
    try:
        log = dict(content["attributes"]["wm_log"])
        schema = log["schema"]
    except (ValueError, KeyError, TypeError):
        raise LogFormatError(
            f"{root}: it is not a log: its {name} has no readable attribute 'wm_log'."
        ) from None
    crc = log.pop("crc32", None)
    if crc is not None and crc != _checksum(log) and schema in _SCHEMAS:
        raise LogFormatError(f"{path}: it is damaged: its checksum does not fit.")
    if schema not in _SCHEMAS:
        raise _OtherSchema(f"{root}: schema: got {schema}, expected one of {_SCHEMAS}.")
    try:
        return Manifest(
            LogSpec.from_json(log["spec"]),
            **{k: log[k] for k in ("segment_rows", "first", "sealed", "first_episode", "episodes")},
            chunks=dict(log["chunk_rows"]),
            lost=tuple((start, stop) for start, stop in log.get("lost", ())),
            since=dict(log.get("since", {})),
            identity=str(log.get("id", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LogFormatError(f"{root}: its attribute 'wm_log' is damaged: {error!r}.") from None


def _checksum(log: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(log, sort_keys=True).encode())
