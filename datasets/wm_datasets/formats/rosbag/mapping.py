"""The YAML file that says which topic becomes which field of a log."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from wm_datasets.formats.base import FormatError

DEFAULT = Path(__file__).with_name("topics.yaml")
ENCODINGS = ("raw", "png", "jpeg")
STAMPS = ("header", "received")


@dataclass(frozen=True)
class CameraTopic:
    """A camera's topic: the first of `topics` in the bag; depth is known between near and far."""

    topics: tuple[str, ...]
    depth_m: tuple[float, float] | None = None


@dataclass(frozen=True)
class Part:
    """Dimensions of a vector: fields of one topic's messages; None: those of the messages."""

    topic: str
    fields: tuple[str, ...]
    names: tuple[str, ...] | None = None
    units: tuple[str, ...] = ("",)  # one for each dimension, or one for all
    low: tuple[float, ...] = (-math.inf,)
    high: tuple[float, ...] = (math.inf,)


@dataclass(frozen=True)
class Mapping:
    """A whole file; see topics.yaml and docs/formats.md for what each key means."""

    cameras: dict[str, CameraTopic]
    depths: dict[str, CameraTopic] = field(default_factory=dict)  # kept as distances, in mm
    proprio: tuple[Part, ...] = ()
    action: tuple[Part, ...] = ()
    step: str | None = None
    spec: str | None = None
    clock: str | None = None  # a camera, each of whose images makes a row
    period_s: float | None = None  # or rows at this distance
    stamps: str = "header"
    max_age_s: float = 1.0  # of an observation's parts
    ignore: tuple[str, ...] = ()
    images: str = "raw"

    def camera_topics(self, topics: list[str]) -> dict[str, str]:
        """Camera -> its topic among `topics`; `{camera}` in a name and its topics is a pattern."""
        return self._match(self.cameras, topics)

    def depth_topics(self, topics: list[str]) -> dict[str, str]:
        """Depth camera -> its topic among `topics`, in the same way."""
        return self._match(self.depths, topics)

    def _match(self, cameras: dict[str, CameraTopic], topics: list[str]) -> dict[str, str]:
        topics_of: dict[str, str] = {}
        for name, camera in cameras.items():
            for pattern in camera.topics:
                parts = [re.escape(part) for part in pattern.split("{camera}")]
                expression = re.compile("(?P<name>[^/]+)".join(parts[:2]) + "".join(parts[2:]))
                for topic in topics:
                    match = expression.fullmatch(topic)
                    if match and topic not in self.ignore:
                        topics_of.setdefault(match.groupdict().get("name", name), topic)
        return topics_of

    def depth_m(self, camera: str) -> tuple[float, float] | None:
        source = self.cameras.get(camera) or self.cameras.get("{camera}")
        return source.depth_m if source else None

    def topic_of(self, camera: str, ending: str) -> str:
        """Topic that an export writes a camera to; `ending` is appended when it is not there."""
        topic = self._topic(self.cameras, camera)
        return topic if topic.endswith(ending) else topic + ending

    def depth_topic_of(self, name: str) -> str:
        """Topic that an export writes a depth camera to."""
        return self._topic(self.depths, name)

    def _topic(self, cameras: dict[str, CameraTopic], name: str) -> str:
        source = cameras.get(name) or cameras.get("{camera}")
        if source is None:
            raise FormatError(
                f"--topics: cameras: {name}: the topic is missing. Add one under cameras."
            )
        return source.topics[0].replace("{camera}", name)


def load_mapping(path: Path | None) -> Mapping:
    """Read a mapping; FormatError names the key that is wrong."""
    path = path or DEFAULT
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise FormatError(f"--topics: {path}: cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"--topics: {path}: it is not YAML: {error}") from None
    try:
        return _mapping(data)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise FormatError(f"--topics: {path}: {error}") from None


def _mapping(data: Any) -> Mapping:
    _check_keys("file", data, {part.name for part in fields(Mapping)})
    entries = dict(data)
    entries["cameras"] = {k: _camera(k, v) for k, v in (entries.get("cameras") or {}).items()}
    depths = entries.get("depths") or {}
    entries["depths"] = {name: CameraTopic(_texts(topic)) for name, topic in depths.items()}
    for name in ("proprio", "action"):
        entries[name] = tuple(_part(name, part) for part in entries.get(name) or ())
    entries["ignore"] = tuple(entries.get("ignore") or ())
    for name, right in (("images", ENCODINGS), ("stamps", STAMPS)):
        if name in entries and entries[name] not in right:
            raise ValueError(f"{name}: got {entries[name]!r}, expected one of {', '.join(right)}.")
    for name in ("period_s", "max_age_s"):
        if entries.get(name) is not None and not float(entries[name]) > 0:
            raise ValueError(f"{name}: got {entries[name]!r}, expected seconds > 0.")
    return Mapping(**entries)


def _camera(name: str, entry: Any) -> CameraTopic:
    if not isinstance(entry, dict):
        return CameraTopic(_texts(entry))
    _check_keys(f"cameras: {name}", entry, {"topic", "depth_m"}, {"topic"})
    depth = entry.get("depth_m")
    if depth is not None:
        near, far = (float(x) for x in depth)
        if not 0 <= near < far:
            raise ValueError(f"cameras: {name}: depth_m: got {depth}, expected [near, far] in m.")
        depth = (near, far)
    return CameraTopic(_texts(entry["topic"]), depth)


def _part(where: str, entry: Any) -> Part:
    right = {"topic", "field", "names", "unit", "low", "high"}
    _check_keys(where, entry, right, {"topic", "field"})
    low, high = (_numbers(entry.get(k, s * math.inf)) for k, s in (("low", -1), ("high", 1)))
    names = _texts(entry["names"]) if entry.get("names") else None
    return Part(str(entry["topic"]), _texts(entry["field"]), names,
                _texts(entry.get("unit", "")), low, high)  # fmt: skip


def _check_keys(
    where: str, entry: Any, right: set[str], required: set[str] | frozenset[str] = frozenset()
) -> None:
    if not isinstance(entry, MappingOf):
        raise ValueError(f"{where}: got {entry!r}, expected a mapping of {sorted(right)}.")
    if unknown := sorted(set(entry) - right):
        raise ValueError(f"{where}: got unknown {unknown}, expected some of {sorted(right)}.")
    if missing := sorted(required - set(entry)):
        raise ValueError(f"{where}: {missing} is missing. Add it.")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(x) for x in value) if isinstance(value, list) else (str(value),)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(x) for x in value) if isinstance(value, list) else (float(value),)
