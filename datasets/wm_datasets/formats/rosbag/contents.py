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
from wm_datasets.formats.rosbag.messages import depth, dimensions, image_of
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

    def __init__(self, bag: Bag, mapping: Mapping, options: Options) -> None:
        self._bag, self._mapping, self._options = bag, mapping, options
        self.joins = mapping.step in bag.types
        self.own_spec = self._read_own_spec()
        if self.own_spec is not None:
            options.refuse_beside_spec(bag.path, {"topics"})
        self._find_topics()
        there = self._find_parts()
        self.names = {part: () for part in there}
        self.scan = None if self.joins else self.look(bag)
        self.names = {part: self._part_names(part) for part in there}
        self.spec = self._spec()

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
        """Read the stamps of all messages of a bag that become the log."""
        if missing := sorted(self.topics - bag.types.keys()):
            raise CorruptInputError(bag.path, f"it has no topics {missing}.")
        fields: dict[str, tuple[str, ...]] = {}
        for part in self.names:
            fields[part.topic] = tuple(dict.fromkeys((*fields.get(part.topic, ()), *part.fields)))
        scan = Scan(bag, self.topics, fields, self._mapping.stamps)
        for part, names in self.names.items():
            known = scan.topics[part.topic].names
            if known and (gone := [name for name in names if name not in known]):
                raise CorruptInputError(
                    bag.path,
                    f"{part.topic}: names: got {gone}, which no message has, expected some of "
                    f"{list(known)}.",
                )
        return scan

    def takes(self, scan: Scan) -> list[Span]:
        return scan.takes(self.clock, self._mapping.max_age_s)

    # --------------------------------------------------------------------------------------------

    def _read_own_spec(self) -> LogSpec | None:
        """Return the spec that the bag itself has on the topic `spec`; None without one."""
        bag, topic = self._bag, self._mapping.spec or ""
        if not self.joins or topic not in bag.types:
            return None
        try:
            return LogSpec.from_json(json.loads(bag.first(topic).decode().data))
        except (ValueError, TypeError, KeyError, AttributeError, LogSpecError) as error:
            raise CorruptInputError(bag.path, f"{topic}: {error!r}") from error

    def _find_topics(self) -> None:
        types, own = list(self._bag.types), self.own_spec
        self.cameras = self._mapping.camera_topics(types)
        self.depths = self._mapping.depth_topics(types)
        if self.joins:
            sensors = own.sensors.items() if own is not None else ()
            deep = [name for name, sensor in sensors if sensor.is_depth]
            self.depths = {d: t for d, t in self.depths.items() if d in deep}
        if own is not None:
            self.cameras = {c: t for c, t in self.cameras.items() if c in own.cameras}

    def _find_parts(self) -> list[Part]:
        """The parts of vectors that the bag has; FormatError where it lacks what was asked for."""
        mapping, bag, own = self._mapping, self._bag, self.own_spec
        parts = mapping.proprio if self.joins else (*mapping.proprio, *mapping.action)
        if self.joins and own is not None and own.proprio is None:
            parts = ()
        there = [part for part in parts if part.topic in bag.types]
        asked = {p.topic for p in parts} - {p.topic for p in there}
        asked |= {c for c in mapping.cameras if "{camera}" not in c} - self.cameras.keys()
        asked |= {d for d in mapping.depths if "{camera}" not in d} - self.depths.keys()
        if (not self.cameras and not there) or (asked and not self.joins):
            listed = "; ".join(f"{t} ({kind})" for t, kind in sorted(bag.types.items()))
            what = f"no {sorted(asked)}" if asked else "none of the topics that are mapped"
            raise FormatError(
                f"{bag.path}: {what}. It has: {listed}. Give --topics FILE, which says what is a "
                "camera, proprio and action (docs/formats.md)."
            )
        if self.joins and len(there) > 1:
            raise FormatError(
                f"--topics: proprio: got {len(there)} topics, expected one beside `step`."
            )
        if not self.joins and not mapping.period_s:
            clock = mapping.clock or next(iter(self.cameras), None)
            if clock not in self.cameras:
                raise FormatError(
                    f"--topics: clock: got {clock!r}, expected a camera of {sorted(self.cameras)} "
                    "whose images make the rows. Or give --period SECONDS."
                )
        return there

    def _part_names(self, part: Part) -> tuple[str, ...]:
        if self.own_spec is not None and self.own_spec.proprio is not None:
            return self.own_spec.proprio.names
        known = tuple(self.scan.topics[part.topic].names) if self.scan is not None else ()
        if part.names:
            gone = [name for name in part.names if known and name not in known]
            if gone:
                raise FormatError(
                    f"--topics: {part.topic}: names: got {gone}, expected some of "
                    f"{', '.join(known)} as in {self._bag.path}."
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
                shape = image_of(bag.first(topic).decode(), mapping.depth_m(name)).shape
            except ValueError as error:
                raise FormatError(f"{bag.path}: {topic}: {error}") from error
            cameras[name] = shape
        sensors = {name: self._depth_spec(topic) for name, topic in self.depths.items()}
        if self.own_spec is not None:
            return replace(self.own_spec, cameras=cameras, sensors=sensors)
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
        parts = {k: [f"{p.topic}: {', '.join(p.fields)}" for p in self.names if p in mapped]
                 for k, mapped in (("proprio", self._mapping.proprio),
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
                    f"--topics: {what}: {part.topic}: got {max(counts)} of unit, low or high, "
                    f"expected 1 or {len(own)}, for {list(own)}."
                )
            units += _each(part.units, own)
            low += _each(part.low, own)
            high += _each(part.high, own)
        try:
            return (
                VectorSpec(tuple(names), tuple(units), tuple(low), tuple(high)) if parts else None
            )
        except LogSpecError as error:
            raise FormatError(f"--topics: {what}: {error} Give names of your own.") from error

    def _rate(self) -> float:
        """Median distance of the stamps of the clock [s]."""
        if self.scan is not None:
            period = self.scan.period_s(self.clock or "")
        else:
            takes = find_takes(self._bag, self._mapping.step or "")
            period = median_period_s(takes)
        if not period:
            raise FormatError(f"{self._bag.path}: it does not say its rate. Give --period SECONDS.")
        return period


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


def _each(values: tuple[T, ...], names: tuple[str, ...]) -> tuple[T, ...]:
    return values * len(names) if len(values) == 1 else values


def _free(names: list[str]) -> VectorSpec:
    """Dimensions of which only the names are known."""
    size = len(names)
    return VectorSpec(tuple(names), ("",) * size, (-math.inf,) * size, (math.inf,) * size)
