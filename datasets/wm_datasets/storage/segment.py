"""The write-ahead segment: checksummed records of one size in a file that only grows.

    header   magic 8 | version u32 | layout u32 | start i64 | record bytes u32 | crc32 u32
    record   length u32 | crc32 u32 | row i64 | fields in the spec's order, packed
    record   ...

`length` counts the bytes after the crc, which are the bytes that the crc covers. A record exists
if and only if both agree: a torn write is never mistaken for a row.
"""

# A simulated power cut records what is asked of `os` (durability/power_cut.py):
# ruff: noqa: PTH108

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogFormatError
from wm_datasets.spec import Field
from wm_datasets.storage.file_reads import list_names, read_file, retried

WAL_FOLDER = "wal"  # of a log, where its segments lie
MARK = "durable"  # beside the segments
_MAGIC = b"WMLOGSEG"
_VERSION = 1
_HEADER = struct.Struct("<8sIIqI")
HEADER_BYTES = _HEADER.size + 4
_FRAME_BYTES = 8  # length and crc
_FRAME = struct.Struct("<IIq")
_NAME = re.compile(r"(\d{12,})\.seg", re.ASCII)
_HELD_BYTES, _PIECE_BYTES = 1 << 17, 4096  # of a checksum that keeps the interpreter's lock


def record_dtype(fields: Mapping[str, Field]) -> np.dtype[Any]:
    """The packed layout of one record."""
    frame = [("_length", "<u4"), ("_crc", "<u4"), ("_row", "<i8")]
    return np.dtype([*frame, *((f.name, f.dtype, f.shape) for f in fields.values())])


def segment_path(folder: Path, start: int) -> Path:
    """Where the segment lives whose first record is row `start`."""
    return folder / f"{start:012d}.seg"


def list_segments(folder: Path) -> list[int]:
    """Return the first rows of all segments in a folder, oldest first; [] without the folder."""
    return sorted(row for name in list_names(folder) if (row := _start_of(name)) is not None)


def list_foreign(folder: Path) -> list[Path]:
    """What lies in a folder of segments and is none, by its name: a log ignores it."""
    names = [name for name in list_names(folder) if name != MARK and _start_of(name) is None]
    return [folder / name for name in sorted(names)]


def _start_of(name: str) -> int | None:
    """The first row of the segment of that name; None when it is no segment's."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and name == f"{int(match[1]):012d}.seg" else None


def seal_record(record: np.ndarray) -> bytes:
    """Frame one filled record, (1,) of record_dtype, and return its bytes."""
    record["_length"] = record.dtype.itemsize - _FRAME_BYTES
    record["_crc"] = zlib.crc32(record.view("u1").data[_FRAME_BYTES:])
    return record.tobytes()


class SegmentWriter:
    """A new segment file; append never syncs."""

    def __init__(self, folder: Path, start: int, dtype: np.dtype[Any]) -> None:
        self.path, self.start, self.rows = segment_path(folder, start), start, 0
        self.synced = 0  # of the rows, as the owner notes it
        self._size = HEADER_BYTES
        self._fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        try:
            self._write(_header(start, dtype), 0)
        except OSError:
            os.close(self._fd)
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            raise

    def append(self, record: bytes) -> None:
        """Write one sealed record whole, or raise OSError and leave the segment as it was."""
        try:
            self._write(record, self._size)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(record)
        self.rows += 1

    def syncer(self) -> Callable[[], None]:
        """Return a call, good for once and for any thread, that makes the rows so far durable."""
        fd = retried(self.path, lambda: os.dup(self._fd))

        def sync() -> None:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

        return sync

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, data: bytes, at: int) -> None:
        done = os.pwrite(self._fd, data, at)
        while done < len(data):  # a short write: the next one says why (disk full)
            done += os.pwrite(self._fd, data[done:], at + done)


class SegmentReader:
    """A segment being written by another process (or left behind); yields only whole records."""

    def __init__(self, folder: Path, start: int, dtype: np.dtype[Any]) -> None:
        """Open the file; FileNotFoundError when it does not exist (any more)."""
        self.path, self.start, self.rows, self._dtype = segment_path(folder, start), start, 0, dtype
        try:
            self._fd = retried(self.path, lambda: os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        self._headed = False
        self.lost: list[int] = []  # rows that are damaged

    def poll(self, known: int = 0) -> np.ndarray:
        """Return the records that became whole since the last call: (n,) of record_dtype.

        A record that is damaged, which shows in whole ones after it, comes as zeros and its row is
        noted in `lost`; it begins an episode where the one before ended. The same holds for what
        is missing of the `known` first records, which are known to have been written.
        """
        if not self._headed and not self._check_header() and not known:
            return np.zeros(0, self._dtype)
        size, offset = self._dtype.itemsize, HEADER_BYTES + self.rows * self._dtype.itemsize
        data = self._pread(max(0, self._bytes() - offset) // size * size, offset)
        records = np.frombuffer(data, self._dtype, count=len(data) // size)
        whole = self._find_whole(records, memoryview(data))
        count = max(known - self.rows, int(np.flatnonzero(whole).max(initial=-1)) + 1)
        if not whole[:count].all() or count > len(whole):
            records = self._mend(records, whole, count)
        self.rows += count
        return records[:count]

    def has_grown(self) -> bool:
        """Is there more than the records that poll() has returned?"""
        known = HEADER_BYTES + self.rows * self._dtype.itemsize
        return not self._headed or self._bytes() >= known + self._dtype.itemsize

    def close(self) -> None:
        os.close(self._fd)

    def _bytes(self) -> int:
        return retried(self.path, lambda: os.fstat(self._fd)).st_size

    def _pread(self, count: int, offset: int) -> bytes:
        return retried(self.path, lambda: _pread(self._fd, count, offset))

    def _check_header(self) -> bool:
        data = self._pread(HEADER_BYTES, 0)
        if len(data) < HEADER_BYTES:
            return False
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            return True  # damaged: the records speak for themselves
        if data != _header(self.start, self._dtype):
            raise LogFormatError(
                f"{self.path}: it is a segment of another log or format version. Open the log "
                "again."
            )
        self._headed = True
        return True

    def _find_whole(self, records: np.ndarray, data: memoryview) -> np.ndarray:
        """Return a mask (n,) of the records whose length, number and crc agree."""
        size, first = self._dtype.itemsize, self.start + self.rows
        whole: np.ndarray = records["_length"] == size - _FRAME_BYTES
        whole &= records["_row"] == np.arange(first, first + len(records))
        crcs = records["_crc"].tolist()
        for i in np.flatnonzero(whole).tolist():
            whole[i] = crcs[i] == _checksum(data[i * size + _FRAME_BYTES : (i + 1) * size])
        return whole

    def _mend(self, records: np.ndarray, whole: np.ndarray, count: int) -> np.ndarray:
        """Read the bad ones of the first `count` records again; what stays bad becomes zeros.

        One that was just being written when the file was read is whole now, as its successor is.
        """
        size, mended = self._dtype.itemsize, np.zeros(count, self._dtype)
        mended[: len(whole)] = records[:count]
        for i in [i for i in range(count) if i >= len(whole) or not whole[i]]:
            row = self.start + self.rows + i
            data = self._pread(size, HEADER_BYTES + (self.rows + i) * size)
            mended[i] = np.zeros((), self._dtype)
            if len(data) == size and is_whole(data, row):
                mended[i] = np.frombuffer(data, self._dtype)[0]
                continue
            mended[i]["_row"] = row
            mended[i]["is_first"] = i == 0 or mended[i - 1]["is_last"]
            self.lost.append(row)
        return mended


def _checksum(data: memoryview) -> int:
    """The crc32 of a record. zlib lets other threads run for each call of 5 KB or more, and a busy
    one may then keep the interpreter for 5 ms: small records are done in smaller pieces."""
    if len(data) > _HELD_BYTES:
        return zlib.crc32(data)
    crc = 0
    for at in range(0, len(data), _PIECE_BYTES):
        crc = zlib.crc32(data[at : at + _PIECE_BYTES], crc)
    return crc


def is_whole(record: bytes, row: int) -> bool:
    """Do the record's length, number and crc agree with its content and with `row`?"""
    length, crc, number = _FRAME.unpack_from(record)
    body = record[_FRAME_BYTES:]
    return (length, number, crc) == (len(body), row, zlib.crc32(body))


def mark_durable(folder: Path, rows: int) -> None:
    """Note that all rows before `rows` are on the disk: a whole segment that is gone is missed."""
    data = struct.pack("<q", rows)
    fd = os.open(folder / MARK, os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.pwrite(fd, data + zlib.crc32(data).to_bytes(4, "little"), 0)
    finally:
        os.close(fd)


def read_mark(folder: Path) -> int:
    """Return what mark_durable() noted last; 0 where it is missing or damaged."""
    try:
        data = read_file(folder / MARK)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    if len(data) != 12 or zlib.crc32(data[:8]) != int.from_bytes(data[8:], "little"):
        return 0
    return int(struct.unpack("<q", data[:8])[0])


def _header(start: int, dtype: np.dtype[Any]) -> bytes:
    describe: Callable[[np.dtype[Any]], object] = np.lib.format.dtype_to_descr
    layout = zlib.crc32(json.dumps(describe(dtype)).encode())
    head = _HEADER.pack(_MAGIC, _VERSION, layout, start, dtype.itemsize)
    return head + zlib.crc32(head).to_bytes(4, "little")


def _pread(fd: int, count: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while count > 0 and (part := os.pread(fd, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
