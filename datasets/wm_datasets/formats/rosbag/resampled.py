"""A bag of topics that come at their own rates: rows at the ticks of a clock.

A row's observation is, of each topic, the latest message at or before the tick. The action that
was executed from it is the one in force when the next tick comes: the latest command before that.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_datasets.formats.base import CorruptInputError
from wm_datasets.formats.rosbag.arrivals import Arrival, nothing_led
from wm_datasets.formats.rosbag.bag import Bag, Message
from wm_datasets.formats.rosbag.mapping import Mapping, Part
from wm_datasets.formats.rosbag.messages import depth_of, image_of, numbers
from wm_datasets.formats.rosbag.scan import Scan, Span
from wm_datasets.spec import LogSpec, Source


@dataclass
class Latest:
    """The newest message of a part of the observation that is decoded when a row needs it."""

    name: str
    topic: str
    read: Callable[[Any], np.ndarray]
    stamps: np.ndarray = field(default_factory=lambda: np.full(1, -1, np.int64))
    message: Any = None

    def update(self, stamp_ns: int, message: Any) -> None:
        self.stamps[0], self.message = stamp_ns, message

    def at(self) -> np.ndarray:
        return self.read(self.message)

    def silent(self, mask: np.ndarray) -> str:
        return self.topic


class LatestNumbers:
    """The newest value of each dimension of a vector, from any number of publishers."""

    def __init__(self, name: str, part: Part, names: tuple[str, ...]) -> None:
        self.name, self.topic, self._part, self._names = name, part.topic, part, names
        self.stamps = np.full(len(names), -1, np.int64)
        self.value = np.zeros(len(names), np.float32)
        self._before = np.full(len(names), np.nan, np.float32)  # in force before `stamps`

    def update(self, stamp_ns: int, message: Any) -> None:
        places, values = numbers(message, self._part.fields, self._names)
        later = [place for place in places if 0 <= self.stamps[place] < stamp_ns]
        self._before[later] = self.value[later]
        self.stamps[places], self.value[places] = stamp_ns, values

    def before_tick(self, tick_ns: int) -> np.ndarray | None:
        """Return what was in force before a tick; None: not all dimensions had a value by then."""
        value = np.where(self.stamps < tick_ns, self.value, self._before)
        return None if (self.stamps < 0).any() or np.isnan(value).any() else value

    def silent(self, mask: np.ndarray) -> str:
        names = [name for name, quiet in zip(self._names, mask) if quiet]
        return self.topic if mask.all() else f"{self.topic} of {', '.join(names)}"


def arrivals(
    bag: Bag,
    take: Span,
    scan: Scan,
    spec: LogSpec,
    mapping: Mapping,
    cameras: dict[str, str],
    depths: dict[str, str],
    names: dict[Part, tuple[str, ...]],
) -> Iterator[Arrival]:
    """Yield a take's arrivals, in one episode.

    It begins where every part has had a message and a command follows, and ends where a part has
    no more messages. CorruptInputError where a part has none for longer than max_age_s and then
    has one again.
    """
    clock = None if mapping.period_s else cameras[mapping.clock or next(iter(cameras))]
    observed: list[Latest | LatestNumbers] = []
    observed += [_camera(mapping, spec, c, t) for c, t in cameras.items()]
    observed += [_depth(spec, name, topic) for name, topic in depths.items()]
    observed += [LatestNumbers("proprio", part, names[part]) for part in mapping.proprio]
    commands = [LatestNumbers("action", part, names[part]) for part in mapping.action]
    by_topic: dict[str, list[Latest | LatestNumbers]] = {}
    for latest in [*observed, *commands]:
        by_topic.setdefault(latest.topic, []).append(latest)
    limit_ns = mapping.max_age_s * 1e9
    first: Arrival | None = None  # the last tick before a command
    lost: tuple[Latest | LatestNumbers, np.ndarray] | None = None  # a part, and what of it
    tick = -1
    step_ns = round(spec.control_period_s * 1e9)
    for stamp, topic, message in _by_stamp(bag, take, scan, mapping):
        while 0 <= tick < stamp:
            if lost is None and _begun(observed):
                lost = _lost(observed, tick - limit_ns)
            if lost is None and _begun(observed):
                arrival = _arrival(bag, spec, tick, observed, commands)
                if arrival.led:
                    yield from [first, arrival] if first else [arrival]
                first = None if arrival.led else arrival
            tick = -1 if clock or lost is not None else tick + step_ns
        for latest in by_topic.get(topic, []):
            _take(latest, stamp, message, bag)
            if lost is not None and latest is lost[0] and (latest.stamps[lost[1]] == stamp).any():
                raise CorruptInputError(
                    bag.path,
                    f"nothing on {latest.silent(lost[1])} for {mapping.max_age_s} s before "
                    f"{stamp} ns. Give a larger max_age_s, or `names` without it, in --topics.",
                )
        if topic == clock or (tick < 0 and not clock and lost is None and _begun(observed)):
            tick = stamp


def _take(latest: Latest | LatestNumbers, stamp_ns: int, message: Any, bag: Bag) -> None:
    """Let a part take a message; CorruptInputError where it does not hold what it should."""
    try:
        latest.update(stamp_ns, message)
    except ValueError as error:
        raise CorruptInputError(bag.path, f"{latest.topic}: {error}") from error


def _begun(observed: list[Latest | LatestNumbers]) -> bool:
    return all((part.stamps >= 0).all() for part in observed)


def _lost(
    observed: list[Latest | LatestNumbers], since_ns: float
) -> tuple[Latest | LatestNumbers, np.ndarray] | None:
    """Return a part that has had no message since, and which of its dimensions."""
    for part in observed:
        if (quiet := part.stamps < since_ns).any():
            return part, quiet
    return None


def _by_stamp(bag: Bag, take: Span, scan: Scan, mapping: Mapping) -> Iterator[tuple[int, str, Any]]:
    """Yield (stamp [ns], topic, message) of a take by their stamps, at last one of no topic."""
    held: list[tuple[int, int, str, Message]] = []
    newest = -1
    for number, (stamp, message) in enumerate(scan.messages(bag, take, mapping.stamps)):
        heapq.heappush(held, (stamp, number, message.topic, message))
        newest = max(newest, stamp)
        while held[0][0] < newest - scan.horizon_ns:
            at, _, topic, first = heapq.heappop(held)
            yield at, topic, first.decode()
    while held:
        at, _, topic, first = heapq.heappop(held)
        yield at, topic, first.decode()
    yield newest + 1, "", None  # time goes on until the last tick is due


def _camera(mapping: Mapping, spec: LogSpec, camera: str, topic: str) -> Latest:
    depth, shape = mapping.depth_m(camera), spec.cameras[camera]

    def read(message: Any) -> np.ndarray:
        frame = image_of(message, depth)
        if frame.shape != shape:
            raise ValueError(f"image: got {frame.shape}, expected {shape} as in the log")
        return frame

    return Latest(f"image/{camera}", topic, read)


def _depth(spec: LogSpec, name: str, topic: str) -> Latest:
    shape = spec.sensors[name].shape
    return Latest(f"sensor/{name}", topic, lambda message: depth_of(message, shape))


def _arrival(
    bag: Bag,
    spec: LogSpec,
    tick: int,
    observed: list[Latest | LatestNumbers],
    commands: list[LatestNumbers],
) -> Arrival:
    """The observation at a tick; nothing led to it where no command came before."""
    try:
        parts = {p.name: p.at() for p in observed if isinstance(p, Latest)}
    except ValueError as error:
        raise CorruptInputError(bag.path, f"an image at or before {tick} ns: {error}") from error
    if spec.proprio is not None:
        vectors = [p.value for p in observed if isinstance(p, LatestNumbers)]
        parts["proprio"] = np.concatenate(vectors)
    led = nothing_led(spec) | {"source": Source.PERSON}
    if spec.action is not None:
        values = [command.before_tick(tick) for command in commands]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return Arrival(tick, parts)
        led["action"] = led["commanded"] = np.concatenate(known)
    return Arrival(tick, parts, led)
