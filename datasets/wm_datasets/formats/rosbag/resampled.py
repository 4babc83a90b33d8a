"""A bag of topics that come at their own rates: rows at the ticks of a clock.

A row's observation is, of each topic, the latest message at or before the tick. The action that
was executed from it is the one in force when the next tick comes: the latest command before that.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_datasets.formats.contract import CorruptInputError
from wm_datasets.formats.rosbag.arrivals import Arrival, nothing_led
from wm_datasets.formats.rosbag.bag import Bag
from wm_datasets.formats.rosbag.mapping import Mapping, Part
from wm_datasets.formats.rosbag.messages import depth_of, picture, vector
from wm_datasets.spec import LogSpec, Source

HORIZON_NS = 1_000_000_000  # messages are received within this time of one another's stamps


@dataclass
class Latest:
    """The newest value of a part of the observation, or the two newest of a command."""

    name: str
    topic: str
    read: Callable[[Any], np.ndarray | None]
    stamp_ns: int = -1
    value: Any = None
    before: Any = None  # of a command: what was in force before `stamp_ns`
    lazy: bool = False  # decode pictures only when a row wants them

    def hear(self, stamp_ns: int, message: Any) -> None:
        if stamp_ns < self.stamp_ns:
            return
        value = message if self.lazy else self.read(message)
        if value is not None:
            self.before = self.value if stamp_ns > self.stamp_ns else self.before
            self.stamp_ns, self.value = stamp_ns, value

    def at(self) -> np.ndarray | None:
        return self.read(self.value) if self.lazy and self.value is not None else self.value

    def before_tick(self, tick_ns: int) -> Any:
        return self.value if self.stamp_ns < tick_ns else self.before


def arrivals(
    bag: Bag,
    spec: LogSpec,
    mapping: Mapping,
    cameras: dict[str, str],
    depths: dict[str, str],
    names: dict[Part, tuple[str, ...]],
) -> Iterator[Arrival]:
    """Yield the bag's arrivals, in one episode.

    It begins where every part has been heard and a command follows, and ends where one is heard no
    more. CorruptInputError where a part is away for longer than max_age_s and comes back.
    """
    clock = None if mapping.period_s else cameras[mapping.clock or next(iter(cameras))]
    observed = [_camera(mapping, spec, c, t) for c, t in cameras.items()]
    observed += [_depth(spec, name, topic) for name, topic in depths.items()]
    observed += [_part("proprio", part, names[part]) for part in mapping.proprio]
    commands = [_part("action", part, names[part]) for part in mapping.action]
    heard: dict[str, list[Latest]] = {}
    for latest in [*observed, *commands]:
        heard.setdefault(latest.topic, []).append(latest)
    limit_ns = mapping.max_age_s * 1e9
    first: Arrival | None = None  # the last tick before a command
    stale: Latest | None = None
    tick = -1
    step_ns = round(spec.control_period_s * 1e9)
    for stamp, topic, message in _by_stamp(bag, heard, mapping.stamps):
        while 0 <= tick < stamp:
            if stale is None and _begun(observed):
                stale = next((p for p in observed if tick - p.stamp_ns > limit_ns), None)
            if stale is None and _begun(observed):
                arrival = _arrival(bag, spec, tick, observed, commands)
                if arrival.led:
                    yield from [first, arrival] if first else [arrival]
                first = None if arrival.led else arrival
            tick = -1 if clock else tick + step_ns
        if stale is not None and topic == stale.topic:
            raise CorruptInputError(
                bag.path,
                f"nothing on {topic} for {mapping.max_age_s} s after {stale.stamp_ns} ns. "
                "Right: a larger max_age_s, in --topics",
            )
        for latest in heard.get(topic, []):
            try:
                latest.hear(stamp, message)
            except ValueError as error:
                raise CorruptInputError(bag.path, f"{topic}: {error}") from error
        if topic == clock or (tick < 0 and not clock and _begun(observed)):
            tick = stamp


def _begun(observed: list[Latest]) -> bool:
    return all(part.value is not None for part in observed)


def _by_stamp(
    bag: Bag, topics: dict[str, list[Latest]], stamps: str
) -> Iterator[tuple[int, str, Any]]:
    """Yield (stamp [ns], topic, message) in the order of stamps, at last one of no topic."""
    held: list[tuple[int, int, str, Any]] = []
    newest = -1
    for number, message in enumerate(bag.messages(topics)):
        decoded = message.decode()
        stamp = bag.stamp(message, decoded, stamps)
        heapq.heappush(held, (stamp, number, message.topic, decoded))
        newest = max(newest, stamp)
        while held[0][0] <= newest - HORIZON_NS:
            at, _, topic, decoded = heapq.heappop(held)
            yield at, topic, decoded
    while held:
        at, _, topic, decoded = heapq.heappop(held)
        yield at, topic, decoded
    yield newest + 1, "", None  # time goes on until the last tick is due


def _camera(mapping: Mapping, spec: LogSpec, camera: str, topic: str) -> Latest:
    depth, wanted = mapping.depth_m(camera), spec.cameras[camera]

    def read(message: Any) -> np.ndarray:
        frame = picture(message, depth)
        if frame.shape != wanted:
            raise ValueError(f"a picture of {frame.shape}, the log has {wanted}")
        return frame

    return Latest(f"image/{camera}", topic, read, lazy=True)


def _depth(spec: LogSpec, name: str, topic: str) -> Latest:
    shape = spec.sensors[name].shape
    return Latest(f"sensor/{name}", topic, lambda message: depth_of(message, shape), lazy=True)


def _part(name: str, part: Part, names: tuple[str, ...]) -> Latest:
    return Latest(name, part.topic, lambda message: vector(message, part.fields, names))


def _arrival(
    bag: Bag, spec: LogSpec, tick: int, observed: list[Latest], commands: list[Latest]
) -> Arrival:
    """The observation at a tick; nothing led to it where no command came before."""
    try:
        parts = {p.name: p.at() for p in observed if p.name != "proprio"}
    except ValueError as error:
        raise CorruptInputError(bag.path, f"a picture at or before {tick} ns: {error}") from error
    if spec.proprio is not None:
        parts["proprio"] = np.concatenate([p.value for p in observed if p.name == "proprio"])
    led = nothing_led(spec) | {"source": Source.PERSON}
    if spec.action is not None:
        given = [command.before_tick(tick) for command in commands]
        if any(value is None for value in given):
            return Arrival(tick, parts)
        led["action"] = led["commanded"] = np.concatenate(given)
    return Arrival(tick, parts, led)
