"""A bag of our own topics: `step` says where episodes begin, and all is joined by exact stamp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_datasets.formats.base import CorruptInputError
from wm_datasets.formats.rosbag.arrivals import Arrival, nothing_led
from wm_datasets.formats.rosbag.bag import Bag, Message
from wm_datasets.formats.rosbag.messages import (
    FLAGS,
    SCALARS,
    depth_of,
    image_of,
    stamp_of,
    vector,
    vector_names,
)
from wm_datasets.spec import EVALUATION, LogSpec, Source

SLACK_NS = 2_000_000_000  # parts of one observation are received within this time
AHEAD = 64  # whole observations behind one that misses a part


@dataclass
class Take:
    """An episode in a bag: when its steps were received, and their stamps. `evaluation`: was it
    recorded to evaluate a policy (`explore` 0)?"""

    start_ns: int
    stop_ns: int
    begins: bool  # with is_first; else the recording was begun in its middle
    evaluation: bool = False
    received: dict[int, int] = field(default_factory=dict)  # stamp -> when its step came [ns]

    @property
    def stamps(self) -> list[int]:
        return list(self.received)


def find_takes(bag: Bag, topic: str) -> list[Take]:
    """Episodes in the order of the bag; one begins at is_first, or where stamps turn back."""
    takes: list[Take] = []
    newest = 0
    for message in bag.messages([topic]):
        step = message.decode()
        stamp = stamp_of(step) or 0
        known = newest if takes else None
        if stamp == known:
            continue  # published again
        newest = stamp
        names = list(step.name)
        begins = "is_first" in names and bool(step.position[names.index("is_first")])
        if known is None or begins or stamp < known:
            takes.append(Take(message.received_ns, message.received_ns, begins))
        takes[-1].received[stamp] = message.received_ns
        takes[-1].stop_ns = message.received_ns
        if "explore" in names:
            takes[-1].evaluation |= not step.position[names.index("explore")]
    return takes


@dataclass
class _Waiting:
    parts: dict[str, Any] = field(default_factory=dict)
    step: dict[str, float] | None = None


@dataclass(frozen=True)
class Fields:
    """The topics of the parts of an observation."""

    step: str  # topic
    cameras: dict[str, str]  # camera -> topic
    depth_m: dict[str, tuple[float, float] | None]  # of each camera
    proprio: tuple[str, tuple[str, ...]] | None  # topic, fields of its messages
    depths: dict[str, str]  # depth camera -> topic


def arrivals(
    bag: Bag, take: Take, spec: LogSpec, fields: Fields, takes: list[Take]
) -> Iterator[Arrival]:
    """Yield the arrivals of an episode, one of the bag's `takes`.

    Parts may come in any order. Where several episodes have the same stamps, a part belongs to the
    step that was received nearest to it. CorruptInputError where an observation misses one, unless
    the recording was begun or stopped there.
    """
    topics = {fields.step, *fields.cameras.values(), *fields.depths.values()}
    topics |= {fields.proprio[0]} if fields.proprio else set()
    start, stop = take.start_ns - SLACK_NS, take.stop_ns + SLACK_NS + 1
    near = [t for t in takes if t is not take and t.stop_ns >= start - SLACK_NS
            and t.start_ns <= stop + SLACK_NS]  # fmt: skip
    join = _Join(bag, take, spec, fields, near)
    for message in bag.messages(topics, max(start, 0), stop):
        join.put(message)
        yield from join.drain(force=join.whole > AHEAD)
        if join.whole > AHEAD:
            break
    yield from join.drain(force=True)
    yield from join.end()


class _Join:
    """Observations of one episode that are not whole yet, and those behind them."""

    def __init__(
        self, bag: Bag, take: Take, spec: LogSpec, fields: Fields, near: list[Take]
    ) -> None:
        self._bag, self._take, self._spec, self._fields = bag, take, spec, fields
        self._near = near
        self._cameras = {topic: camera for camera, topic in fields.cameras.items()}
        self._depths = {topic: name for name, topic in fields.depths.items()}
        self._required = {f"image/{camera}" for camera in fields.cameras}
        self._required |= {f"sensor/{name}" for name in fields.depths}
        self._required |= {"proprio"} if fields.proprio else set()
        self._waiting = {stamp: _Waiting() for stamp in take.stamps}
        self._begun = False
        self.whole = 0  # behind the first that waits

    def put(self, message: Message) -> None:
        """Take in one message of any topic."""
        decoded = message.decode()
        stamp = stamp_of(decoded) or 0
        at = self._waiting.get(stamp)
        if at is None or self._is_whole(at) or not self._is_own(stamp, message.received_ns):
            return
        try:
            if message.topic == self._fields.step:
                at.step = at.step or _step(decoded)
            elif message.topic in self._cameras:
                self._add_image(at, self._cameras[message.topic], decoded)
            elif message.topic in self._depths:
                name = self._depths[message.topic]
                at.parts[f"sensor/{name}"] = depth_of(decoded, self._spec.sensors[name].shape)
            elif self._fields.proprio and self._spec.proprio is not None:
                proprio = vector(decoded, self._fields.proprio[1], self._spec.proprio.names)
                at.parts |= {} if proprio is None else {"proprio": proprio}
        except ValueError as error:
            raise CorruptInputError(self._bag.path, f"{message.topic}: {error}") from error
        self.whole += self._is_whole(at)

    def _is_own(self, stamp: int, received_ns: int) -> bool:
        """Whether no other episode has a step of this stamp that came nearer to a message."""
        away = abs(self._take.received[stamp] - received_ns)
        others = [take.received[stamp] for take in self._near if stamp in take.received]
        return all(away <= abs(other - received_ns) for other in others)

    def drain(self, *, force: bool) -> Iterator[Arrival]:
        """Yield what is whole, in order; `force`: leave out what was before the recording began."""
        for stamp in list(self._waiting):
            waiting = self._waiting[stamp]
            if self._is_whole(waiting):
                yield self._arrival(stamp, waiting)
                self.whole -= 1
                self._begun = True
            elif self._begun or self._take.begins or not force:
                return
            del self._waiting[stamp]

    def end(self) -> Iterator[Arrival]:
        """Yield the step after the last observation, where the recording was stopped there."""
        for stamp, waiting in self._waiting.items():
            lasts = [w.step is not None and w.step["is_last"] for w in self._waiting.values()]
            if not self._begun or any(lasts) or self.whole > 0:
                missing = sorted(self._required - waiting.parts.keys()) or ["step"]
                raise CorruptInputError(
                    self._bag.path, f"the observation of {stamp} ns lacks {missing}."
                )
            if waiting.step is not None:
                yield self._arrival(stamp, _Waiting({}, waiting.step))
            return

    def _add_image(self, at: _Waiting, camera: str, message: Any) -> None:
        name = f"image/{camera}"
        if name in at.parts:
            return
        frame, shape = image_of(message, self._fields.depth_m[camera]), self._spec.cameras[camera]
        if frame.shape != shape:
            raise ValueError(
                f"image: got {frame.shape}, expected {shape} (height, width, 3) as in the log"
            )
        at.parts[name] = frame

    def _is_whole(self, waiting: _Waiting) -> bool:
        return waiting.step is not None and waiting.parts.keys() == self._required

    def _arrival(self, stamp: int, whole: _Waiting) -> Arrival:
        step, spec = whole.step or {}, self._spec
        led = nothing_led(spec)
        try:
            for field, names in vector_names(spec).items():
                led[field] = np.array([step[name] for name in names], np.float32)
            if "reward" in led:
                led["reward"] = step["reward"]
            led |= {name: bool(step[name]) for name in FLAGS if name in led}
            led |= {"source": Source(int(step["source"])), "weights": int(step["weights"])}
            if spec.evaluation:
                led[EVALUATION] = self._take.evaluation
        except (KeyError, ValueError) as error:
            raise CorruptInputError(self._bag.path, f"the step of {stamp} ns: {error!r}") from error
        return Arrival(stamp, whole.parts, led, bool(step["is_last"]))


def _step(message: Any) -> dict[str, float]:
    values = np.asarray(message.position, np.float64)
    if len(values) != len(message.name) or not np.isfinite(values).all():
        raise ValueError(
            f"got {values.tolist()} for {len(message.name)} names, expected one finite number each"
        )
    step = dict(zip(message.name, values.tolist()))
    if missing := sorted(set(SCALARS) - step.keys()):
        raise ValueError(f"the step lacks {missing}")
    return step
