"""One zarr v3 array on disk that grows along its first axis, with every write made durable.

The bytes are those of zarr's own codecs (`bytes` little endian, then `zstd` with checksum), so any
zarr v3 library reads them. They are written here because zarr-python never calls fsync, skips
chunks of zeros, and needs tens of milliseconds of CPU where this needs one.
"""

# A simulated power cut records what is asked of `os` (durability/power_cut.py):
# ruff: noqa: PTH105, PTH108

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import zstd

from wm_datasets.spec import Field
from wm_datasets.storage.damage import Damage, LogDamageError
from wm_datasets.storage.file_reads import create_file, read_file, retried

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZARR_TYPES = {"u1": "uint8", "i4": "int32", "i8": "int64", "f4": "float32", "b1": "bool",
               "u2": "uint16"}  # fmt: skip


def chunk_rows(field: Field) -> int:
    """Rows per chunk: about 1 MB of a camera's frames, at most 4096 of anything."""
    rows = max(1, _CHUNK_BYTES // field.row_bytes)
    if not field.name.startswith("image/"):
        rows = min(rows, 1024)
    return int(2 ** np.floor(np.log2(min(rows, 4096))))


class Column:
    """Rows of one field, in chunk files `c.<i>.0...` under `folder`; none below row `since`."""

    def __init__(self, folder: Path, field: Field, chunk: int, since: int = 0) -> None:
        self.folder, self.field, self.chunk, self.since = folder, field, chunk, since

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Decode rows [start, stop) into `out` or a new array (stop - start, *shape)."""
        if out is None:
            out = np.empty((stop - start, *self.field.shape), self.field.dtype)
        for i in range(start // self.chunk, -(-stop // self.chunk) if start < stop else 0):
            lo, hi = max(start, i * self.chunk), min(stop, (i + 1) * self.chunk)
            rows = self.read_chunk(i)
            out[lo - start : hi - start] = rows[lo - i * self.chunk : hi - i * self.chunk]
        return out

    def read_chunk(self, i: int) -> np.ndarray:
        """Return the i-th chunk whole: (chunk, *shape); rows past the log's end are anything."""
        try:
            data = self._read_bytes(i)
        except (FileNotFoundError, NotADirectoryError):
            raise self._damage(i, "the file is missing") from None
        size, held = self.chunk * self.field.row_bytes, decoded_bytes(data)
        if held != size:
            raise self._damage(i, f"got {held} decoded bytes, expected {size}")
        try:
            rows = retried(self.chunk_path(i), lambda: _decompress(data))
        except (RuntimeError, ValueError) as error:
            raise self._damage(i, str(error)) from error
        return np.frombuffer(rows, self.field.dtype).reshape(self.chunk, *self.field.shape)

    def _read_bytes(self, i: int) -> bytes:
        """The chunk's file; FileNotFoundError without one, LogReadError where it is not known."""
        return read_file(self.chunk_path(i))

    def signature(self, i: int) -> tuple[int, int, int]:
        """Numbers that change when the chunk's file does: its time [ns], its size and the checksum
        of its content, with which the file ends; zeros without a file."""
        path = self.chunk_path(i)

        def look() -> tuple[int, int, int]:
            with path.open("rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                end = os.pread(file.fileno(), 4, max(0, stat.st_size - 4))
            return stat.st_mtime_ns, stat.st_size, int.from_bytes(end, "little")

        try:
            return retried(path, look)
        except (FileNotFoundError, NotADirectoryError):
            return 0, 0, 0

    def _damage(self, i: int, reason: str) -> LogDamageError:
        start = i * self.chunk
        begin = max(start, min(self.since, start + self.chunk - 1))  # no rows are lost below since
        return LogDamageError(Damage(self.chunk_path(i), begin, start + self.chunk, reason))

    def chunk_path(self, i: int) -> Path:
        return self.folder / ("c." + ".".join([str(i)] + ["0"] * len(self.field.shape)))

    def chunk_number(self, name: str) -> int | None:
        """Which chunk the file of this name is; None when it is none."""
        part = name.removeprefix("c.").partition(".")[0]
        i = int(part) if part.isascii() and part.isdecimal() else -1
        return i if i >= 0 and name == self.chunk_path(i).name else None

    def drop_chunks(self, old: int, new: int) -> None:
        """Delete the chunks whose rows are all below `new`, from the one of row `old` on.

        One that cannot be deleted is logged and stays: nothing reads it, and opening tries again.
        """
        for i in range(old // self.chunk, new // self.chunk):
            clean_up(self.chunk_path(i))

    def metadata(self, length: int, attributes: dict[str, Any]) -> dict[str, Any]:
        """The array's zarr.json."""
        dtype, shape = self.field.dtype, list(self.field.shape)
        codecs: list[dict[str, Any]] = [{"name": "bytes"}]
        if dtype.itemsize > 1:
            codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
        codecs.append({"name": "zstd", "configuration": {"level": 1, "checksum": True}})
        axes = {0: [], 1: ["dimension"], 2: ["height", "width"], 3: ["height", "width", "channel"],
                4: ["depth", "height", "width", "channel"]}[len(shape)]  # fmt: skip
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [length, *shape],
            "data_type": _ZARR_TYPES[dtype.str.lstrip("<|")],
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.chunk, *shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": False if dtype == np.bool_ else 0,
            "codecs": codecs,
            "attributes": attributes,
            "dimension_names": ["time" if self.field.name[:8] != "episode/" else "episode", *axes],
            "storage_transformers": [],
        }


class ColumnWriter:
    """The end of a column: rows are staged in whole files, and count only once committed.

    `lost` names the rows of the last chunk when that is damaged: they are zeros from now on.
    `tail`, where given, stands in for a last chunk that is not to be trusted.
    """

    def __init__(self, column: Column, length: int, tail: np.ndarray | None = None) -> None:
        self.column, self.length = column, length
        self.lost: Damage | None = None
        self.sizes: dict[int, int] = {}  # bytes of the chunks on disk, as far as they are known
        self._tail = self._read_tail() if tail is None else tail
        self._staged = (self.length, self._tail)

    def stage(self, rows: np.ndarray) -> None:
        """Write the chunks that end with `rows`; what was committed stays readable throughout."""
        chunk, at, tail = self.column.chunk, self.length, self._tail
        while len(rows):
            part, rows = np.split(rows, [chunk - len(tail)])
            filled = np.zeros((chunk, *rows.shape[1:]), rows.dtype)
            filled[: len(tail)] = tail
            filled[len(tail) : len(tail) + len(part)] = part
            data = zstd.compress(filled, 1, True)
            write_whole(self.column.chunk_path(at // chunk), data)
            self.sizes[at // chunk] = len(data)
            at += len(part)
            tail = filled[: at % chunk]
        self._staged = (at, tail)

    def commit(self) -> None:
        """Take the staged rows as part of the log."""
        self.length, self._tail = self._staged

    def drop(self, old: int, new: int) -> None:
        """Delete the chunks that end with `new` or before; none below `old` is left."""
        self.column.drop_chunks(old, new)
        for i in range(old // self.column.chunk, new // self.column.chunk):
            self.sizes.pop(i, None)

    def _read_tail(self) -> np.ndarray:
        last, used = divmod(self.length, self.column.chunk)
        if used and self.length > self.column.since:
            try:
                return self.column.read_chunk(last)[:used]
            except LogDamageError as error:
                damage = error.damage
                self.lost = Damage(damage.path, damage.start, self.length, damage.reason)
        return np.zeros((used, *self.column.field.shape), self.column.field.dtype)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place at once: written aside, fsync, rename. Sync the folder afterwards."""
    aside = path.with_name(path.name + ".tmp")
    fd = create_file(aside)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], done)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(aside, path)


def write_json(path: Path, data: dict[str, Any]) -> None:
    write_whole(path, json.dumps(data, allow_nan=False).encode())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = retried(path, lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def clean_up(path: Path | str) -> None:
    """Delete a file that counts for nothing any more; where that fails it is logged and stays."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning(
            "%s: it is not needed any more and cannot be deleted: %s", path, error.strerror
        )


def decoded_bytes(data: bytes) -> int:
    """Return how many bytes a zstd frame says that it holds (RFC 8878); -1 where it is none."""
    if len(data) < 6 or data[:4] != _ZSTD_MAGIC:
        return -1
    kind, single, key = data[4] >> 6, data[4] >> 5 & 1, data[4] & 3
    size = 1 << kind if kind or single else 0
    at = 5 + (not single) + (0, 1, 2, 4)[key]
    if not size or len(data) < at + size:
        return -1
    return int.from_bytes(data[at : at + size], "little") + 256 * (size == 2)


def _decompress(data: bytes) -> bytes:
    """Decode a frame; RuntimeError where it is damaged, MemoryError where there is no memory."""
    try:
        return bytes(zstd.decompress(data))
    except RuntimeError as error:
        if "memory" in str(error):
            raise MemoryError(str(error)) from error
        raise
