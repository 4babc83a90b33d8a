"""Decoded chunks in memory-mapped files: what a log larger than memory is sampled from.

A file holds one field, chunk i in slot i modulo the number of slots, so that the rows of a
window lie side by side. The kernel keeps in memory what is used and takes it back when memory is
short: no process is killed for it. The files are of one log, by its path and its identity; a slot
counts when its entry in the index names the very chunk file (time, size, checksum) that it was
decoded from and its own checksum fits. So they outlive the process, and a kill or a power cut
costs no more than decoding again.

    <cache folder>/<key of the log>/
      layout.json        which log (path, identity), how many rows, what each field looks like
      lock               held with flock; a second process makes files of its own, without names
      <field>.rows       (slots * chunk rows, ...), sparse
      <field>.index      (slots,) of INDEX, sparse
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wm_datasets.cache_folder import default_cache_folder
from wm_datasets.log.reader import LogReader

_log = logging.getLogger(__name__)

_LEFT_FREE = 1 << 30  # bytes of the disk
_LAYOUT = 2  # version of the files; 1 did not know which log they were of
INDEX = np.dtype(
    [
        ("chunk", "<i8"),
        ("time", "<i8"),
        ("size", "<i8"),
        ("content", "<u4"),
        ("crc", "<u4"),
        ("used", "?"),
    ]
)


class DecodedRows:
    """The newest sealed chunks of some fields of a log, at most `disk_bytes` of them.

    Chunks are decoded when they are first needed. The last gigabyte of the disk is left alone; a
    disk that is full ends the taking, not the reading. The files and their lock are released by
    `close`, or when the object is collected.
    """

    def __init__(
        self, reader: LogReader, fields: Sequence[str], disk_bytes: int, folder: Path
    ) -> None:
        self._reader = reader
        specs = [reader.spec.fields[name] for name in fields]
        step = max(reader.chunk_rows(name) for name in fields)
        row_bytes = sum(field.row_bytes for field in specs)
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = disk_bytes // (row_bytes * step) * step  # rows that there is room for
        if not self.rows:
            return
        lock = _take_lock(folder)
        named = lock is not None
        self._unlock = weakref.finalize(self, _close, *([] if lock is None else [lock]))
        if named:
            self._claim(folder, fields)
        self._columns = {
            name: _DecodedColumn(reader, name, self.rows, folder, named) for name in fields
        }

    def hold(self, starts: np.ndarray, length: int, fields: Sequence[str]) -> np.ndarray:
        """Make windows [start, start + length) ready; return a mask (n,) of those that are.

        LogDamageError where a chunk of theirs is damaged.
        """
        held = np.ones(len(starts), bool)
        if not self.rows:
            return ~held
        for name in fields:
            held &= self._columns[name].covers(starts, length)
        for name in fields:
            held[held] = self._columns[name].load(starts[held], length)
        return held

    def ring(self, field: str) -> np.ndarray:
        """All slots as (rows, ...): row r lies at r modulo rows. Only what is held has meaning."""
        return self._columns[field].ring

    def close(self) -> None:
        if not self.rows:
            return
        for column in self._columns.values():
            column.close()
        self._unlock()
        self.rows = 0

    def _claim(self, folder: Path, fields: Sequence[str]) -> None:
        """Empty the folder where it was laid out in another way."""
        described = {
            name: [str(f.dtype), list(f.shape), self._reader.chunk_rows(name)]
            for name, f in self._reader.spec.fields.items()
        }
        layout = {
            "version": _LAYOUT,
            "log": str(self._reader.path.resolve()),
            "id": self._reader.identity,
            "rows": self.rows,
            "fields": described,
        }
        path = folder / "layout.json"
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()) == layout:
                return
        for file in (path, *folder.glob("*.rows"), *folder.glob("*.index")):
            file.unlink(missing_ok=True)
        path.write_text(json.dumps(layout))


class _DecodedColumn:
    def __init__(self, reader: LogReader, name: str, rows: int, folder: Path, named: bool) -> None:
        self._reader, self._name, self._folder = reader, name, folder
        self._chunk = reader.chunk_rows(name)
        self._slots = rows // self._chunk
        field = reader.spec.fields[name]
        self._slot_bytes = self._chunk * field.row_bytes
        self._file = _open(folder, name, "rows", self._slots * self._slot_bytes, named)
        self._entries = _open(folder, name, "index", self._slots * INDEX.itemsize, named)
        self._closing = weakref.finalize(self, _close, self._file, self._entries)
        self._index = np.frombuffer(mmap.mmap(self._entries, 0), INDEX)
        data = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)
        self.ring = np.frombuffer(data, field.dtype).reshape(rows, *field.shape)
        self._held = np.full(self._slots, -1, np.int64)  # chunks that this process has checked
        self._until = np.zeros(self._slots, np.int64)  # one past the newest row of each
        self._full = False  # the disk

    def covers(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Which windows lie in the newest sealed chunks, as many as there are slots?"""
        sealed = self._reader.sealed
        begin = max(0, -(-sealed // self._chunk) - self._slots)
        return (starts >= begin * self._chunk) & (starts + length <= sealed)

    def load(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Decode the chunks of these windows; return a mask (n,) of those that are ready."""
        first, last = starts // self._chunk, (starts + length - 1) // self._chunk
        spans = int((last - first).max(initial=0)) + 1
        chunks = np.minimum(first + np.arange(spans)[:, None], last)  # (spans, n)
        for chunk in np.unique(chunks[~self._holds(chunks)]).tolist():
            self._load(chunk)
        ready: np.ndarray = np.logical_and.reduce(self._holds(chunks), axis=0)
        return ready

    def _holds(self, chunks: np.ndarray) -> np.ndarray:
        """Which chunks are held with all their rows? The last one gets more as the log grows."""
        slots, sealed = chunks % self._slots, self._reader.sealed
        all_rows = np.minimum((chunks + 1) * self._chunk, sealed)
        held: np.ndarray = (self._held[slots] == chunks) & (self._until[slots] >= all_rows)
        return held

    def close(self) -> None:
        self._closing()

    def _load(self, chunk: int) -> None:
        slot = chunk % self._slots
        entry, at = self._index[slot], slot * self._slot_bytes
        until = min((chunk + 1) * self._chunk, self._reader.sealed)
        signature = self._reader.chunk_signature(self._name, chunk)
        kept = entry["chunk"], entry["time"], entry["size"], entry["content"]
        known = bool(entry["used"]) and any(signature) and kept == (chunk, *signature)
        if known:
            begin = slot * self._chunk
            data = np.ascontiguousarray(self.ring[begin : begin + self._chunk])
            known = zlib.crc32(data.view("u1").reshape(-1).data) == entry["crc"]
        if not known:
            rows = self._reader.read_chunk(self._name, chunk)
            if not self._store(slot, at, chunk, signature, rows.tobytes()):
                return
        self._held[slot], self._until[slot] = chunk, until

    def _store(
        self, slot: int, at: int, chunk: int, signature: tuple[int, int, int], data: bytes
    ) -> bool:
        """Write a slot; its entry counts for nothing meanwhile."""
        if not self._full and shutil.disk_usage(self._folder).free < _LEFT_FREE:
            self._full = True
            _log.warning("%s: the disk is nearly full, no more rows are kept", self._folder)
        if self._full:
            return False
        self._held[slot] = -1
        try:  # writing to a hole of a mapped file would end the process if the disk is full
            os.posix_fallocate(self._entries, slot * INDEX.itemsize, INDEX.itemsize)
            self._index[slot]["used"] = False
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, memoryview(data)[done:], at + done)
        except OSError as error:
            self._full = True
            _log.warning("no more rows are decoded ahead: %s", error)
            return False
        self._index[slot] = (chunk, *signature, zlib.crc32(data), False)
        self._index[slot]["used"] = True
        return True


def open_decoded(
    reader: LogReader, fields: Sequence[str], disk_bytes: int, folder: Path | None = None
) -> DecodedRows:
    """Open the decoded rows of a log under `folder`, and remove those of logs that are gone."""
    root = (folder or default_cache_folder()) / "decoded"
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    path = str(reader.path.resolve())
    key = hashlib.sha256(path.encode()).hexdigest()[:16]
    return DecodedRows(reader, fields, disk_bytes, root / key)


def _remove_abandoned(root: Path) -> None:
    """Remove the rows of logs that do not exist any more."""
    for folder in root.iterdir():
        try:
            log = Path(json.loads((folder / "layout.json").read_text())["log"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if log.is_absolute() and not log.exists() and (lock := _take_lock(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _take_lock(folder: Path) -> int | None:
    """Lock the folder until the returned file is closed; None when it is in use."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


def _open(folder: Path, field: str, suffix: str, size: int, named: bool) -> int:
    """Open a file of this size, sparse where it is new; without a name it ends with the process."""
    if named:
        path = folder / f"{field.replace('/', '.')}.{suffix}"
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    else:
        file, name = tempfile.mkstemp(dir=folder, suffix=f".{suffix}.tmp")
        Path(name).unlink()
    if os.fstat(file).st_size != size:
        os.ftruncate(file, size)
    return file
