"""One bag of any storage: its topics, and its messages one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

from wm_datasets.formats.contract import CorruptInputError, FormatError, need
from wm_datasets.formats.rosbag.messages import stamp_of

FILES = (".mcap", ".db3")
DAY_NS = 86_400_000_000_000


def find_bags(source: Path) -> list[Path]:
    """Bags in `source`: itself, or folders with metadata.yaml and loose files below it."""
    if source.is_file():
        if source.suffix not in FILES:
            raise FormatError(f"{source} is no bag: a file of {' or '.join(FILES)}, or a folder")
        return [source]
    if (source / "metadata.yaml").exists():
        return [source]
    whole = [path.parent for path in source.rglob("metadata.yaml")]
    loose = [p for p in source.rglob("*") if p.suffix in FILES and p.parent not in whole]
    if not whole and not loose:
        raise FormatError(f"{source} holds no bag ({', '.join(FILES)} or metadata.yaml)")
    return sorted([*whole, *loose])


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
    """Turns whatever the reader trips over into a CorruptInputError with the bag's name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, FormatError):
            raise CorruptInputError(self._path, str(error) or repr(error)) from error


class Bag:
    """An open bag; CorruptInputError wherever it cannot be read."""

    def __init__(self, path: Path) -> None:
        highlevel, typesys = need("rosbags.highlevel"), need("rosbags.typesys")
        self.path = path
        store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
        with self.watched():
            self.reader = highlevel.AnyReader(
                [_Folder(path) if path.is_dir() else path], default_typestore=store
            )
            self.reader.open()
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

    @property
    def seconds(self) -> float:
        return float(self.reader.duration) / 1e9

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which they were received."""
        wanted = [c for c in self.reader.connections if c.topic in topics]
        if not wanted:
            return
        with self.watched():
            for connection, received, raw in self.reader.messages(wanted, start_ns, stop_ns):
                yield Message(self, connection, received, raw)

    def first(self, topic: str) -> Message:
        """Return a topic's first message."""
        for message in self.messages([topic]):
            return message
        raise CorruptInputError(self.path, f"no message on {topic}")

    def stamp(self, message: Message, decoded: Any, stamps: str) -> int:
        """Time of a message [ns]: its header's where it has one, and `stamps` says so."""
        own = stamp_of(decoded) if stamps == "header" else None
        return message.received_ns if own is None else own
