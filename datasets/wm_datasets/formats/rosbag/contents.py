"""What a log will hold of a bag: its spec, which topics become it, and what is lost."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.formats.base import CorruptInputError, FormatError, Options
from wm_datasets.formats.rosbag.bag import Bag
from wm_datasets.formats.rosbag.by_stamp import Take, find_takes
from wm_datasets.formats.rosbag.mapping import Mapping, Part
from wm_datasets.formats.rosbag.messages import depth, dimensions, picture
from wm_datasets.formats.rosbag.scan import Scan, Span
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, VectorSpec

T = TypeVar("T")


class Contents:
    """Made from the first bag that has them; other bags are held against it."""

    spec: LogSpec
    cameras: dict[str, str]
    depths: dict[str, str]
    names: dict[Part, tuple[str, ...]]
    joins: bool  # by the exact stamps of `step`
    losses: list[str]

    def __init__(self, bag: Bag, mapping: Mapping, options: Options) -> None:
        self._bag, self._mapping, self._options = bag, mapping, options
        self.joins = mapping.step in bag.types
        self._said = self._say()
        if self._said is not None:
            options.refuse_beside_spec(bag.path, {"topics"})
        self._find_topics()
        there = self._find_parts()
        self.names = {part: () for part in there}
        self.scan = None if self.joins else self.look(bag)
        self.names = {part: self._part_names(part) for part in there}
        self.spec = self._spec()
        self.losses = self._losses()

    @property
    def topics(self) -> set[str]:
        """Those of the observation and of commands."""
        parts = {part.topic for part in self.names}
        return {*self.cameras.values(), *self.depths.values(), *parts}

    @property
    def clock(self) -> str | None:
        """The topic whose messages make rows; None: a period does."""
        if self._mapping.period_s:
            return None
        return self.cameras[self._mapping.clock or next(iter(self.cameras))]

    def look(self, bag: Bag) -> Scan:
        """Look at all messages of a bag that the log is made of."""
        if missing := sorted(self.topics - bag.types.keys()):
            raise CorruptInputError(bag.path, f"it has no topics {missing}")
        fields: dict[str, tuple[str, ...]] = {}
        for part in self.names:
            fields[part.topic] = tuple(dict.fromkeys((*fields.get(part.topic, ()), *part.fields)))
        scan = Scan(bag, self.topics, fields, self._mapping.stamps)
        for part, names in self.names.items():
            known = scan.topics[part.topic].names
            if known and (gone := [name for name in names if name not in known]):
                raise CorruptInputError(
                    bag.path, f"no message on {part.topic} has {gone}, it has {list(known)}"
                )
        return scan

    def takes(self, scan: Scan) -> list[Span]:
        return scan.takes(self.clock, self._mapping.max_age_s)

    # --------------------------------------------------------------------------------------------

    def _say(self) -> LogSpec | None:
        """What the bag itself says of the robot, on the topic `spec`."""
        bag, topic = self._bag, self._mapping.spec or ""
        if not self.joins or topic not in bag.types:
            return None
        try:
            return LogSpec.from_json(json.loads(bag.first(topic).decode().data))
        except (ValueError, TypeError, KeyError, AttributeError, LogSpecError) as error:
            raise CorruptInputError(bag.path, f"{topic}: {error!r}") from error

    def _find_topics(self) -> None:
        types, said = list(self._bag.types), self._said
        self.cameras = self._mapping.camera_topics(types)
        self.depths = self._mapping.depth_topics(types)
        if self.joins:
            sensors = said.sensors.items() if said is not None else ()
            deep = [name for name, sensor in sensors if sensor.is_depth]
            self.depths = {d: t for d, t in self.depths.items() if d in deep}
        if said is not None:
            self.cameras = {c: t for c, t in self.cameras.items() if c in said.cameras}

    def _find_parts(self) -> list[Part]:
        """The parts of vectors that the bag has; FormatError where it lacks what was asked for."""
        mapping, bag, said = self._mapping, self._bag, self._said
        parts = mapping.proprio if self.joins else (*mapping.proprio, *mapping.action)
        if self.joins and said is not None and said.proprio is None:
            parts = ()
        there = [part for part in parts if part.topic in bag.types]
        asked = {p.topic for p in parts} - {p.topic for p in there}
        asked |= {c for c in mapping.cameras if "{camera}" not in c} - self.cameras.keys()
        asked |= {d for d in mapping.depths if "{camera}" not in d} - self.depths.keys()
        if (not self.cameras and not there) or (asked and not self.joins):
            listed = "; ".join(f"{t} ({kind})" for t, kind in sorted(bag.types.items()))
            what = f"no {sorted(asked)}" if asked else "none of the topics that are mapped"
            raise FormatError(
                f"{bag.path} has {what}. It has: {listed}. Right: --topics FILE, which says what "
                "is a camera, proprio and action (docs/formats.md)"
            )
        if self.joins and len(there) > 1:
            raise FormatError("--topics: with `step`, proprio is one topic")
        if not self.joins and not mapping.period_s:
            clock = mapping.clock or next(iter(self.cameras), None)
            if clock not in self.cameras:
                raise FormatError(
                    f"--topics: clock: given {clock!r}, right: a camera {sorted(self.cameras)} "
                    "whose pictures make the rows, or --period SECONDS"
                )
        return there

    def _part_names(self, part: Part) -> tuple[str, ...]:
        if self._said is not None and self._said.proprio is not None:
            return self._said.proprio.names
        known = tuple(self.scan.topics[part.topic].names) if self.scan is not None else ()
        if part.names:
            gone = [name for name in part.names if known and name not in known]
            if gone:
                raise FormatError(
                    f"--topics: {part.topic}: names: given {gone}, {self._bag.path} has "
                    f"{', '.join(known)}"
                )
            return part.names
        try:
            first = dimensions(self._bag.first(part.topic).decode(), part.fields)
        except ValueError as error:
            raise FormatError(f"--topics: {part.topic}: {error}") from error
        if not known:
            return first
        parts = [other for other in self.names if other.topic == part.topic]
        return known if len(parts) == 1 else tuple(n for n in known if _is_of(n, part.fields))

    def _spec(self) -> LogSpec:
        mapping, bag = self._mapping, self._bag
        cameras: dict[str, Any] = {}
        for name, topic in self.cameras.items():
            try:
                shape = picture(bag.first(topic).decode(), mapping.depth_m(name)).shape
            except ValueError as error:
                raise FormatError(f"{bag.path}: {topic}: {error}") from error
            cameras[name] = shape
        sensors = {name: self._depth_spec(topic) for name, topic in self.depths.items()}
        if self._said is not None:
            return replace(self._said, cameras=cameras, sensors=sensors)
        proprio = self._vector([p for p in self.names if p in mapping.proprio], "proprio")
        if self.joins:
            names = bag.first(mapping.step or "").decode().name
            dims = [n[7:] for n in names if n.startswith("action/")]
            action = _free(dims) if dims else None
            about = [n[7:] for n in names if n.startswith("signal/")]
            signals = _free(about) if about else None
            reward = "reward" in names
        else:
            action = self._vector([p for p in self.names if p in mapping.action], "action")
            reward, signals = False, None
        absent = [
            *([] if action else ["action"]), *([] if reward and action else ["reward"]),
            *([] if proprio else ["proprio"]), *([] if self.joins else ["success"]),
        ]  # fmt: skip
        return LogSpec(
            robot=self._options.robot or "unknown",
            task=self._options.task or bag.path.stem,
            control_period_s=mapping.period_s or self._rate(),
            cameras=cameras,
            proprio=proprio,
            action=action,
            extra={"absent": absent, "rosbag": self._origin()},
            reward=reward,
            signals=signals,
            sensors=sensors,
        )

    def _depth_spec(self, topic: str) -> SensorSpec:
        try:
            return SensorSpec.depth(*depth(self._bag.first(topic).decode()).shape)
        except ValueError as error:
            raise FormatError(f"{self._bag.path}: {topic}: {error}") from error

    def _origin(self) -> dict[str, Any]:
        """Which topics the fields came from."""
        parts = {k: [f"{p.topic}: {', '.join(p.fields)}" for p in self.names if p in given]
                 for k, given in (("proprio", self._mapping.proprio),
                                  ("action", self._mapping.action))}  # fmt: skip
        return {"cameras": dict(self.cameras), **parts}

    def _vector(self, parts: list[Part], what: str) -> VectorSpec | None:
        names: list[str] = []
        units: list[str] = []
        low: list[float] = []
        high: list[float] = []
        for part in parts:
            own = self.names[part]
            names += own
            counts = {len(part.units), len(part.low), len(part.high)}
            if not counts <= {1, len(own)}:
                raise FormatError(
                    f"--topics: {what}: {part.topic}: given {max(counts)} of unit, low or high, "
                    f"right: 1 or {len(own)}, for {list(own)}"
                )
            units += _each(part.units, own)
            low += _each(part.low, own)
            high += _each(part.high, own)
        try:
            return (
                VectorSpec(tuple(names), tuple(units), tuple(low), tuple(high)) if parts else None
            )
        except LogSpecError as error:
            raise FormatError(f"--topics: {what}: {error}. Right: names of your own") from error

    def _rate(self) -> float:
        """Median distance of the stamps of the clock [s]."""
        if self.scan is not None:
            period = self.scan.period_s(self.clock or "")
        else:
            takes = find_takes(self._bag, self._mapping.step or "")
            period = median_period_s(takes)
        if not period:
            raise FormatError(f"{self._bag.path} does not say its rate. Right: --period SECONDS.")
        return period

    def _losses(self) -> list[str]:
        mapping, bag, spec, said = self._mapping, self._bag, self.spec, self._said
        losses: list[str] = []
        used = self.topics | ({mapping.step, mapping.spec} if self.joins else set())
        if left := sorted(bag.types.keys() - used):
            losses.append(f"topics: {', '.join(left)}")
        if self.scan is not None:
            takes, period = self.takes(self.scan), spec.control_period_s
            for topic in sorted(self.topics):
                rate = self.scan.rate_hz(topic, takes)
                if rate * period > 1.05 or mapping.period_s:
                    losses.append(
                        f"{topic} at {rate:.3g} Hz: of it the latest at each row is kept "
                        f"({1 / period:.3g} Hz), with the row's stamp"
                    )
            losses.append("digits beyond float32")
        losses += self._names_left_out()
        for name in self.cameras:
            if deep := mapping.depth_m(name):
                losses.append(
                    f"depth of {name}: becomes 255 steps of grey, {deep[0]} to {deep[1]} m"
                )
        if said is not None and (gone := sorted(said.sensors.keys() - spec.sensors.keys())):
            losses.append(f"sensors: {', '.join(gone)}")
        if said is not None and said.cameras.keys() - self.cameras.keys():
            gone = sorted(said.cameras.keys() - self.cameras.keys())
            losses.append(f"cameras that the robot has and the bag has not: {', '.join(gone)}")
        return losses

    def _names_left_out(self) -> list[str]:
        """Numbers of the mapped topics that no part takes, with how often they come."""
        losses = []
        for topic in sorted({part.topic for part in self.names}):
            kept = {n for part, names in self.names.items() if part.topic == topic for n in names}
            fields = [part.fields for part in self.names if part.topic == topic]
            if self.scan is not None:
                known, total = self.scan.topics[topic].names, self._bag.counts[topic]
            elif self._said is None and self._bag.is_named(self._bag.types[topic]):
                known, total = {}, self._bag.counts[topic]
                for message in self._bag.messages([topic]):
                    for name in dimensions(message.decode(), fields[0]):
                        known[name] = known.get(name, 0) + 1
            else:
                continue
            if gone := {name: count for name, count in known.items() if name not in kept}:
                listed = ", ".join(f"{name} ({count})" for name, count in gone.items())
                losses.append(f"numbers of {topic}, in how many of its {total} messages: {listed}")
        return losses


def median_period_s(takes: list[Take]) -> float:
    """Median distance of the stamps within takes [s]; 0: unknown."""
    gaps = np.concatenate(
        [np.zeros(0, np.int64), *(np.diff(np.unique(take.stamps)) for take in takes)]
    )
    return round(float(np.median(gaps)) / 1e9, 6) if len(gaps) else 0.0


def _is_of(name: str, fields: tuple[str, ...]) -> bool:
    """Whether a dimension of a message with names is one of some of its fields."""
    _, divided, field = name.rpartition("/")
    return field in fields if divided else "position" in fields


def _each(given: tuple[T, ...], names: tuple[str, ...]) -> tuple[T, ...]:
    return given * len(names) if len(given) == 1 else given


def _free(names: list[str]) -> VectorSpec:
    """Dimensions of which only the names are known."""
    size = len(names)
    return VectorSpec(tuple(names), ("",) * size, (-math.inf,) * size, (math.inf,) * size)
