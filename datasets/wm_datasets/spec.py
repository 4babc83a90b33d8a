"""What a log holds: the spec a user writes, and the fields that follow from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.sensors import SensorSpec

EVALUATION = "evaluation"  # field of a log
_CAMERA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Source(IntEnum):
    """Who chose an action."""

    POLICY = 0
    PLANNER = 1
    RANDOM = 2
    PERSON = 3
    SCRIPT = 4


@dataclass(frozen=True)
class Field:
    """One array of the log; `shape` is that of one row."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize * math.prod(self.shape))


@dataclass(frozen=True)
class VectorSpec:
    """Names, units and bounds of a vector's dimensions; bounds may be infinite.

    discrete: the vectors are one-hot, one dimension for each of a set of discrete actions.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    discrete: bool = False

    def __post_init__(self) -> None:
        for part in ("names", "units"):
            object.__setattr__(self, part, tuple(str(x) for x in getattr(self, part)))
        for part in ("low", "high"):
            object.__setattr__(self, part, tuple(float(x) for x in getattr(self, part)))
        sizes = {part: len(getattr(self, part)) for part in ("names", "units", "low", "high")}
        if not self.names or len(set(sizes.values())) != 1:
            raise LogSpecError(
                f"vector: got {sizes} entries, expected as many names, units, low and high, 1 or "
                "more."
            )
        if len(set(self.names)) != len(self.names):
            raise LogSpecError(f"vector: names: got {list(self.names)}, expected different names.")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not low <= high:
                raise LogSpecError(
                    f"vector: '{name}': got low {low}, high {high}, expected low <= high."
                )
        if self.discrete and (set(self.low), set(self.high)) != ({0.0}, {1.0}):
            raise LogSpecError(
                f"vector: got discrete with low {list(self.low)}, high {list(self.high)}, expected "
                "0 and 1 in every dimension."
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def one_hot(cls, names: Sequence[str]) -> VectorSpec:
        """The set of discrete actions of these names."""
        size = len(names)
        return cls(tuple(names), ("1",) * size, (0.0,) * size, (1.0,) * size, discrete=True)

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """Return the valid vectors (..., n) nearest to these, in float32: clipped to the bounds; of
        a discrete set the one-hot vector of the largest number, the first of equal ones."""
        if self.discrete:
            chosen: np.ndarray = np.eye(len(self), dtype=np.float32)[np.argmax(vectors, axis=-1)]
            return chosen
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        clipped: np.ndarray = np.clip(np.asarray(vectors, np.float32), low, high)
        return clipped

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Return a valid vector (n,) float32, drawn uniformly; the bounds must be finite."""
        if self.discrete:
            return self.nearest(np.arange(len(self)) == random.integers(len(self)))
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return random.uniform(low, high).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; infinite bounds become the strings 'inf' and '-inf'."""
        return {
            "names": list(self.names),
            "units": list(self.units),
            "low": [x if math.isfinite(x) else str(x) for x in self.low],
            "high": [x if math.isfinite(x) else str(x) for x in self.high],
            # absent in continuous vectors, as in logs of older versions
            **({"discrete": True} if self.discrete else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VectorSpec:
        low, high = (tuple(float(x) for x in data[part]) for part in ("low", "high"))
        discrete = bool(data.get("discrete", False))
        return cls(tuple(data["names"]), tuple(data["units"]), low, high, discrete)


@dataclass(frozen=True)
class LogSpec:
    """One robot, one task, one set of sensors: what every row of a log looks like.

    cameras maps a name to (height, width, 3); `action=None` declares a log without actions
    (plain video): it has no action, commanded and reward; `reward=False` one whose actions gave
    rewards that are unknown. `signals` names numbers about an action that are no observation
    (latency, interventions). `sensors` maps a name to what else is observed: depth images,
    float images, force, touch. `evaluation` declares the field of that name, which is true in
    every row of an episode that was recorded to evaluate a policy: such episodes are never learned
    from. `success=False`: the task does not report success; the field of that name is false in
    every row and means nothing. `extra` holds what else the run must remember, as JSON.
    """

    robot: str
    task: str
    control_period_s: float
    cameras: dict[str, tuple[int, int, int]]
    proprio: VectorSpec | None
    action: VectorSpec | None
    extra: dict[str, Any] = field(default_factory=dict)
    reward: bool = True
    signals: VectorSpec | None = None
    sensors: dict[str, SensorSpec] = field(default_factory=dict)
    evaluation: bool = False
    success: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "reward", bool(self.reward) and self.action is not None)
        if not (math.isfinite(self.control_period_s) and self.control_period_s > 0):
            raise LogSpecError(
                f"control_period_s: got {self.control_period_s}, expected a finite number > 0 [s]."
            )
        if not self.cameras and self.proprio is None and not self.sensors:
            raise LogSpecError(
                "spec: got no camera, no proprio and no sensor, expected at least one of them."
            )
        for name in self.sensors:
            if not _CAMERA_NAME.fullmatch(name):
                raise LogSpecError(
                    f"sensor name: got {name!r}, expected a match of {_CAMERA_NAME.pattern}."
                )
        for name, shape in self.cameras.items():
            if not _CAMERA_NAME.fullmatch(name):
                raise LogSpecError(
                    f"camera name: got {name!r}, expected a match of {_CAMERA_NAME.pattern}."
                )
            if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
                raise LogSpecError(
                    f"camera '{name}': got {tuple(shape)}, expected (height, width, 3). Declare "
                    "depth and float images as sensors."
                )
        cameras = {k: (int(s[0]), int(s[1]), int(s[2])) for k, s in self.cameras.items()}
        object.__setattr__(self, "cameras", cameras)
        try:
            extra = json.loads(json.dumps(self.extra, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise LogSpecError(
                f"extra: got a value that is not JSON ({error}), expected JSON."
            ) from error
        object.__setattr__(self, "extra", extra)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """The log's arrays by name, in the order in which a record stores them."""
        fields = [Field(f"image/{k}", np.dtype("u1"), s) for k, s in self.cameras.items()]
        fields += [
            Field(f"sensor/{k}", np.dtype(s.stored), s.shape) for k, s in self.sensors.items()
        ]
        if self.proprio is not None:
            fields.append(Field("proprio", np.dtype("<f4"), (len(self.proprio),)))
        if self.action is not None:
            fields.append(Field("action", np.dtype("<f4"), (len(self.action),)))
            fields.append(Field("commanded", np.dtype("<f4"), (len(self.action),)))
        if self.signals is not None:
            fields.append(Field("signals", np.dtype("<f4"), (len(self.signals),)))
        if self.reward:
            fields.append(Field("reward", np.dtype("<f4")))
        flags = ("is_first", "is_last", "is_terminal", "success")
        fields += [Field(name, np.dtype("?")) for name in flags]
        fields.append(Field("stamp", np.dtype("<i8")))
        fields.append(Field("source", np.dtype("u1")))
        fields.append(Field("weights", np.dtype("<i4")))
        if self.evaluation:
            fields.append(Field(EVALUATION, np.dtype("?")))
        return {f.name: f for f in fields}

    def to_json(self) -> dict[str, Any]:
        return {
            "robot": self.robot,
            "task": self.task,
            "control_period_s": self.control_period_s,
            "cameras": {k: list(s) for k, s in self.cameras.items()},
            "proprio": self.proprio.to_json() if self.proprio else None,
            "action": self.action.to_json() if self.action else None,
            "extra": self.extra,
            "reward": self.reward,
            "signals": self.signals.to_json() if self.signals else None,
            # absent in logs without any, which older versions read
            **(
                {"sensors": {k: s.to_json() for k, s in self.sensors.items()}}
                if self.sensors
                else {}
            ),
            **({EVALUATION: True} if self.evaluation else {}),
            **({} if self.success else {"success": False}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LogSpec:
        parts = (data["proprio"], data["action"], data.get("signals"))
        proprio, action, signals = (VectorSpec.from_json(v) if v else None for v in parts)
        cameras = {k: (s[0], s[1], s[2]) for k, s in data["cameras"].items()}
        sensors = {k: SensorSpec.from_json(s) for k, s in data.get("sensors", {}).items()}
        return cls(data["robot"], data["task"], float(data["control_period_s"]),
                   cameras, proprio, action, dict(data["extra"]),
                   bool(data.get("reward", True)), signals, sensors,
                   bool(data.get(EVALUATION, False)), bool(data.get("success", True)))  # fmt: skip

    def with_fields_of(self, other: LogSpec) -> LogSpec | None:
        """This spec with the cameras, sensors, signals and evaluation mark that `other` adds.

        None where `other` lacks something or has it otherwise. What there was keeps its place.
        """
        whole = replace(
            self,
            cameras=self.cameras | other.cameras | self.cameras,
            sensors=self.sensors | other.sensors | self.sensors,
            signals=self.signals or other.signals,
            evaluation=self.evaluation or other.evaluation,
        )
        return whole if whole == other else None

    def differences(self, other: LogSpec) -> list[str]:
        """One line 'part: mine, other's' for every part in which two specs differ."""
        mine, theirs = self.to_json(), other.to_json()
        return [
            f"{k}: {_short(_differing(mine.get(k), theirs.get(k)))}, not "
            f"{_short(_differing(theirs.get(k), mine.get(k)))}"
            for k in mine | theirs
            if mine.get(k) != theirs.get(k)
        ]


def _differing(value: Any, other: Any) -> Any:
    """Of an object, what the other has not or has otherwise; anything else whole."""
    if not (isinstance(value, dict) and isinstance(other, dict)):
        return value
    return {k: v for k, v in value.items() if k not in other or other[k] != v}


def _short(value: Any, limit: int = 120) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
