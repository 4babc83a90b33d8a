"""One bag of any storage: its topics, and its messages one after the other."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

from wm_datasets.formats.base import CorruptInputError, FormatError, need
from wm_datasets.formats.rosbag.files import check_files, remedy
from wm_datasets.formats.rosbag.messages import SECOND_NS

_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}  # of a header that comes first


@dataclass(frozen=True)
class Message:
    """A message as it lies in the bag, and what it says when asked."""

    bag: Bag
    connection: Any
    received_ns: int
    raw: bytes

    @property
    def topic(self) -> str:
        return str(self.connection.topic)

    def decode(self) -> Any:
        with self.bag.watched():
            return self.bag.reader.deserialize(self.raw, self.connection.msgtype)


class _Folder(PosixPath):
    """A bag of ROS 2 in a folder that may be named x.bag, as files of ROS 1 are."""

    suffix = ""


class _Watched:
    """Turns any error of the reader into a CorruptInputError with the bag's name."""

    def __init__(self, path: Path, *, opening: bool = False) -> None:
        self._path, self._opening = path, opening

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, FormatError):
            what = " ".join(str(error).split()) or repr(error)
            help_ = remedy(self._path, what) if self._opening else ""
            what = f"{what.rstrip('.')}. {help_}" if help_ else what
            raise CorruptInputError(self._path, what) from error


class Bag:
    """An open bag; CorruptInputError wherever it cannot be read."""

    def __init__(self, path: Path) -> None:
        highlevel, typesys = need("rosbags.highlevel"), need("rosbags.typesys")
        self.path = path
        check_files(path)
        store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
        with _Watched(path, opening=True):
            self.reader = highlevel.AnyReader(
                [_Folder(path) if path.is_dir() else path], default_typestore=store
            )
            self.reader.open()
        self._headers: dict[str, bool] = {}  # message type -> does it begin with a header?
        self.types: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        for connection in self.reader.connections:
            self.types[connection.topic] = connection.msgtype
            count = self.counts.get(connection.topic, 0) + connection.msgcount
            self.counts[connection.topic] = count

    def watched(self) -> _Watched:
        return _Watched(self.path)

    def close(self) -> None:
        self.reader.close()

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which they were received."""
        connections = [c for c in self.reader.connections if c.topic in topics]
        if not connections:
            return
        with self.watched():
            for connection, received, raw in self.reader.messages(connections, start_ns, stop_ns):
                yield Message(self, connection, received, raw)

    def first(self, topic: str) -> Message:
        """Return a topic's first message."""
        for message in self.messages([topic]):
            return message
        raise CorruptInputError(self.path, f"no message on {topic}.")

    def header_stamp(self, message: Message) -> int | None:
        """Time in a message's header [ns], without decoding the message; None: as stamp_of."""
        kind = message.connection.msgtype
        if kind not in self._headers:
            fields = self._fields(kind)
            self._headers[kind] = bool(fields) and fields[0][1][1] == "std_msgs/msg/Header"
        if not self._headers[kind]:
            return None
        if len(message.raw) < 12:
            raise CorruptInputError(
                self.path,
                f"{message.topic}: got {len(message.raw)} bytes, expected a message with a header.",
            )
        seconds, nanoseconds = _STAMP[message.raw[1] & 1].unpack_from(message.raw, 4)
        stamp = int(seconds) * SECOND_NS + int(nanoseconds)
        if stamp < 0:
            raise CorruptInputError(
                self.path, f"{message.topic}: stamp: got {stamp} ns, expected at least 0."
            )
        return stamp or None

    def is_named(self, kind: str) -> bool:
        """Whether messages of a type name their numbers, as JointState does."""
        return any(
            name == "name" and what[0].name == "SEQUENCE" for name, what in self._fields(kind)
        )

    def _fields(self, kind: str) -> Any:
        with self.watched():
            return self.reader.typestore.fielddefs[kind][1]
