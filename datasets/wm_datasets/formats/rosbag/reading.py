"""Bags into a log."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.formats.contract import CorruptInputError, FormatError, Importer, Options
from wm_datasets.formats.rosbag import joined, resampled
from wm_datasets.formats.rosbag.arrivals import rows_of_arrivals
from wm_datasets.formats.rosbag.bag import DAY_NS, Bag, find_bags
from wm_datasets.formats.rosbag.joined import Take, find_takes
from wm_datasets.formats.rosbag.mapping import Part, load_mapping
from wm_datasets.formats.rosbag.messages import (
    depth,
    dimensions,
    picture,
    stamp_of,
)
from wm_datasets.sensor import SensorSpec
from wm_datasets.spec import LogSpec, VectorSpec

T = TypeVar("T")
RATE_STAMPS = 64  # of a camera, from which its rate is found


class Import(Importer):
    """A bag, or a folder of them. With the topic `step` key <bag>#<i> is an episode, else <bag>."""

    def __init__(self, source: Path, options: Options) -> None:
        self._mapping = mapping = load_mapping(options.topics)
        if options.period_s is not None:
            self._mapping = mapping = replace(mapping, period_s=options.period_s)
        self._options, self._open = options, None
        self._bags: dict[str, Path] = {}
        self._takes: dict[str, tuple[str, Take]] = {}
        self.keys, self.losses = [], []
        spec: LogSpec | None = None
        root = source if source.is_dir() else source.parent
        for path in find_bags(source):
            name = path.relative_to(root).as_posix() if path != root else path.name
            self._bags[name] = path
            try:
                bag = self._bag(name)
                if spec is None:
                    spec = self.spec = self._first_bag(bag)
                self._add_keys(name, bag)
            except CorruptInputError:
                self.keys.append(name)  # said when its turn comes
        if spec is None:
            self._bag(next(iter(self._bags)))  # says what is wrong with it
            raise CorruptInputError(source, "none of its bags is readable")

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        name, take = self._takes.get(key, (key, None))
        bag = self._bag(name)
        if missing := sorted(self._topics() - bag.types.keys()):
            raise CorruptInputError(bag.path, f"it has no topics {missing}")
        if self._joins:
            if take is None:
                raise CorruptInputError(bag.path, f"no step on {self._mapping.step}")
            proprio = [(p.topic, p.fields) for p in self._names if p in self._mapping.proprio]
            fields = joined.Fields(
                step=self._mapping.step or "",
                cameras=self._cameras,
                depth_m={c: self._mapping.depth_m(c) for c in self._cameras},
                proprio=proprio[0] if proprio else None,
                depths=self._depths,
            )
            arrivals = joined.arrivals(bag, take, self.spec, fields)
        else:
            arrivals = resampled.arrivals(
                bag, self.spec, self._mapping, self._cameras, self._depths, self._names
            )
        first = None
        for row in rows_of_arrivals(self.spec, arrivals):
            first = row["stamp"]
            yield row
        if first is None:
            raise CorruptInputError(bag.path, "no time at which all mapped topics were heard")

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    # --------------------------------------------------------------------------------------------

    _open: tuple[str, Bag] | None

    def _bag(self, name: str) -> Bag:
        """Open a bag; one is open at a time."""
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = (name, Bag(self._bags[name]))
        return self._open[1]

    def _topics(self) -> set[str]:
        parts = {part.topic for part in self._names}
        return {*self._cameras.values(), *self._depths.values(), *parts}

    def _add_keys(self, name: str, bag: Bag) -> None:
        takes = find_takes(bag, self._mapping.step or "") if self._joins else []
        for i, take in enumerate(takes):
            self._takes[f"{name}#{i}"] = (name, take)
            self.keys.append(f"{name}#{i}")
        if not takes:
            self.keys.append(name)

    def _first_bag(self, bag: Bag) -> LogSpec:
        """What the log will hold, from the first readable bag."""
        mapping = self._mapping
        self._joins = mapping.step in bag.types
        said = self._said(bag)
        self._cameras = mapping.camera_topics(list(bag.types))
        self._depths = mapping.depth_topics(list(bag.types))
        if self._joins:
            deep = (
                [name for name, sensor in said.sensors.items() if sensor.is_depth] if said else []
            )
            self._depths = {d: t for d, t in self._depths.items() if d in deep}
        if said is not None:
            self._cameras = {c: t for c, t in self._cameras.items() if c in said.cameras}
        parts = mapping.proprio if self._joins else (*mapping.proprio, *mapping.action)
        if self._joins and said is not None and said.proprio is None:
            parts = ()
        there = [part for part in parts if part.topic in bag.types]
        asked = {p.topic for p in parts} - {p.topic for p in there}
        asked |= {c for c in mapping.cameras if "{camera}" not in c} - self._cameras.keys()
        asked |= {d for d in mapping.depths if "{camera}" not in d} - self._depths.keys()
        if (not self._cameras and not there) or (asked and not self._joins):
            listed = "; ".join(f"{t} ({kind})" for t, kind in sorted(bag.types.items()))
            what = f"no {sorted(asked)}" if asked else "none of the topics that are mapped"
            raise FormatError(
                f"{bag.path} has {what}. It has: {listed}. Right: --topics FILE, which says what "
                "is a camera, proprio and action (docs/formats.md)"
            )
        if self._joins and len(there) > 1:
            raise FormatError("--topics: with `step`, proprio is one topic")
        if not self._joins and not mapping.period_s:
            clock = mapping.clock or next(iter(self._cameras), None)
            if clock not in self._cameras:
                raise FormatError(
                    f"--topics: clock: given {clock!r}, right: a camera {sorted(self._cameras)} "
                    "whose pictures make the rows, or --period SECONDS"
                )
        self._names = {part: self._part_names(bag, part, said) for part in there}
        spec = self._spec(bag, said)
        self._say_losses(bag, spec, said)
        return spec

    def _said(self, bag: Bag) -> LogSpec | None:
        """What the bag itself says of the robot, on the topic `spec`."""
        if not self._joins or self._mapping.spec not in bag.types:
            return None
        try:
            return LogSpec.from_json(json.loads(bag.first(self._mapping.spec or "").decode().data))
        except (ValueError, TypeError, KeyError, AttributeError, LogSpecError) as error:
            raise CorruptInputError(bag.path, f"{self._mapping.spec}: {error!r}") from error

    def _part_names(self, bag: Bag, part: Part, said: LogSpec | None) -> tuple[str, ...]:
        if said is not None and said.proprio is not None:
            return said.proprio.names
        if part.names:
            return part.names
        try:
            return dimensions(bag.first(part.topic).decode(), part.fields)
        except ValueError as error:
            raise FormatError(f"--topics: {part.topic}: {error}") from error

    def _spec(self, bag: Bag, said: LogSpec | None) -> LogSpec:
        cameras: dict[str, Any] = {}
        for name, topic in self._cameras.items():
            try:
                shape = picture(bag.first(topic).decode(), self._mapping.depth_m(name)).shape
            except ValueError as error:
                raise FormatError(f"{bag.path}: {topic}: {error}") from error
            cameras[name] = shape
        sensors = {name: self._depth_spec(bag, topic) for name, topic in self._depths.items()}
        if said is not None:
            return replace(said, cameras=cameras, sensors=sensors)
        proprio = self._vector([p for p in self._names if p in self._mapping.proprio], "proprio")
        if self._joins:
            names = bag.first(self._mapping.step or "").decode().name
            dims = [n[7:] for n in names if n.startswith("action/")]
            action = _free(dims) if dims else None
            about = [n[7:] for n in names if n.startswith("signal/")]
            signals = _free(about) if about else None
            reward = "reward" in names
        else:
            action = self._vector([p for p in self._names if p in self._mapping.action], "action")
            reward, signals = False, None
        absent = [
            *([] if action else ["action"]), *([] if reward and action else ["reward"]),
            *([] if proprio else ["proprio"]), *([] if self._joins else ["success"]),
        ]  # fmt: skip
        return LogSpec(
            robot=self._options.robot or "unknown",
            task=self._options.task or bag.path.stem,
            control_period_s=self._mapping.period_s or self._rate(bag),
            cameras=cameras,
            proprio=proprio,
            action=action,
            extra={"absent": absent, "rosbag": self._origin()},
            reward=reward,
            signals=signals,
            sensors=sensors,
        )

    def _depth_spec(self, bag: Bag, topic: str) -> SensorSpec:
        try:
            return SensorSpec.depth(*depth(bag.first(topic).decode()).shape)
        except ValueError as error:
            raise FormatError(f"{bag.path}: {topic}: {error}") from error

    def _origin(self) -> dict[str, Any]:
        """Which topics the fields came from."""
        parts = {k: [f"{p.topic}: {', '.join(p.fields)}" for p in self._names if p in given]
                 for k, given in (("proprio", self._mapping.proprio),
                                  ("action", self._mapping.action))}  # fmt: skip
        return {"cameras": dict(self._cameras), **parts}

    def _vector(self, parts: list[Part], what: str) -> VectorSpec | None:
        names: list[str] = []
        units: list[str] = []
        low: list[float] = []
        high: list[float] = []
        for part in parts:
            own = self._names[part]
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

    def _rate(self, bag: Bag) -> float:
        """Median distance of the stamps of the clock [s]."""
        clock = self._mapping.clock or next(iter(self._cameras), "")
        topic = self._mapping.step if self._joins else self._cameras[clock]
        stamps = []
        for message in bag.messages([topic or ""]):
            decoded = message.decode()
            stamps.append(bag.stamp(message, decoded, self._mapping.stamps))
            if len(stamps) == RATE_STAMPS:
                break
        gaps = np.diff(stamps)
        period = round(float(np.median(gaps[gaps > 0])) / 1e9, 6) if (gaps > 0).any() else 0.0
        if not period:
            raise FormatError(f"{bag.path} does not say its rate. Right: --period SECONDS.")
        return period

    def _say_losses(self, bag: Bag, spec: LogSpec, said: LogSpec | None) -> None:
        mapping = self._mapping
        used = self._topics() | ({mapping.step, mapping.spec} if self._joins else set())
        if left := sorted(bag.types.keys() - used):
            self.losses.append(f"topics: {', '.join(left)}")
        if not self._joins:
            self._check_clocks(bag)
            period = spec.control_period_s
            for topic in sorted(self._topics()):
                rate = bag.counts[topic] / bag.seconds if bag.seconds > 0 else 0.0
                if rate * period > 1.05 or mapping.period_s:
                    self.losses.append(
                        f"{topic} at {rate:.3g} Hz: of it the latest at each row is kept "
                        f"({1 / period:.3g} Hz), with the row's stamp"
                    )
            self.losses.append("digits beyond float32")
        for name in self._cameras:
            if depth := mapping.depth_m(name):
                self.losses.append(
                    f"depth of {name}: becomes 255 steps of grey, {depth[0]} to {depth[1]} m"
                )
        if said is not None and (gone := sorted(said.sensors.keys() - spec.sensors.keys())):
            self.losses.append(f"sensors: {', '.join(gone)}")
        if said is not None and said.cameras.keys() - self._cameras.keys():
            gone = sorted(said.cameras.keys() - self._cameras.keys())
            self.losses.append(f"cameras that the robot has and the bag has not: {', '.join(gone)}")

    def _check_clocks(self, bag: Bag) -> None:
        """Stamps of headers and times of reception can be compared, where both are needed."""
        if self._mapping.stamps == "received":
            return
        with_header, without = {}, []
        for topic in self._topics():
            message = bag.first(topic)
            stamp = stamp_of(message.decode())
            if stamp is None:
                without.append(topic)
            else:
                with_header[topic] = abs(stamp - message.received_ns)
        apart = [t for t, gap in with_header.items() if gap > DAY_NS]
        if apart and (without or len(apart) < len(with_header)):
            raise FormatError(
                f"{bag.path}: the stamps of {sorted(apart)} are of another clock than "
                f"{sorted({*without, *with_header} - {*apart})}. Right: stamps: received, in "
                "--topics"
            )


def _each(given: tuple[T, ...], names: tuple[str, ...]) -> tuple[T, ...]:
    return given * len(names) if len(given) == 1 else given


def _free(names: list[str]) -> VectorSpec:
    """Dimensions of which only the names are known."""
    size = len(names)
    return VectorSpec(tuple(names), ("",) * size, (-math.inf,) * size, (math.inf,) * size)
