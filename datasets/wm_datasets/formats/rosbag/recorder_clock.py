"""Whether the clock of the recorder itself was set back, which readers hide: they sort by time.

Messages from before and after that lie at the same times of reception, in between one another. The
order in which they were written tells, read from the index of MCAP files and the rows of databases.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from wm_datasets.formats.rosbag.files import files_of

SET_BACK_NS = 200_000_000  # writers put messages of a topic that far out of order at most
_FOOTER_BYTES = 37
_CHANNEL, _MESSAGE_INDEX, _CHUNK_INDEX = 0x04, 0x07, 0x08


def set_back(bag: Path, topics: Collection[str]) -> tuple[str, int] | None:
    """Return a topic whose times of reception decrease as written, and by how much [ns]."""
    for suffix, read in ((".db3", _of_database), (".mcap", _of_mcap)):
        for file in files_of(bag, suffix):
            newest: dict[tuple[str, int], int] = {}
            # Files that cannot be read are reported where they are opened.
            with contextlib.suppress(sqlite3.Error, struct.error, UnicodeDecodeError, OSError):
                for topic, channel, received in read(file, topics):
                    before = newest.get((topic, channel), received)
                    if received < before - SET_BACK_NS:
                        return topic, before - received
                    newest[topic, channel] = max(before, received)
    return None


def _of_database(file: Path, topics: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (topic, its number, received [ns]) as the messages were written."""
    base = sqlite3.connect(f"{file.resolve().as_uri()}?immutable=1", uri=True)
    try:
        known = {n: t for n, t in base.execute("SELECT id, name FROM topics") if t in topics}
        for number, received in base.execute(
            "SELECT topic_id, timestamp FROM messages ORDER BY id"
        ):
            if number in known:
                yield known[number], number, received
    finally:
        base.close()


def _of_mcap(path: Path, topics: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the same, from the message indexes behind the chunks; nothing where there are none."""
    with path.open("rb") as file:
        file.seek(-_FOOTER_BYTES, 2)
        footer = file.read()
        (start,) = struct.unpack_from("<Q", footer, 9)
        if not start:
            return
        file.seek(start)
        records = list(_records(file))
        known: dict[int, str] = {}
        for kind, body in records:
            if kind == _CHANNEL:
                number, _, size = struct.unpack_from("<HHI", body)
                topic = body[8 : 8 + size].decode()
                if topic in topics:
                    known[number] = topic
        chunks = [(*struct.unpack_from("<QQQQI", body), body) for kind, body in records
                  if kind == _CHUNK_INDEX]  # fmt: skip
        for *_, size, body in sorted(chunks, key=lambda chunk: chunk[2]):
            for number, place in struct.iter_unpack("<HQ", body[36 : 36 + size]):
                if number in known:
                    file.seek(place)
                    for received in _indexed(file):
                        yield known[number], number, received


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, content) of the records of a summary."""
    while len(head := file.read(9)) == 9:
        kind, size = struct.unpack("<BQ", head)
        if kind == 0x02:
            return
        yield kind, file.read(size)


def _indexed(file: BinaryIO) -> list[int]:
    """Return the times of the messages of one channel in a chunk, as they lie there."""
    kind, _, _, size = struct.unpack("<BQHI", file.read(15))
    if kind != _MESSAGE_INDEX:
        return []
    entries = sorted(struct.iter_unpack("<QQ", file.read(size)), key=lambda entry: entry[1])
    return [int(received) for received, _ in entries]
