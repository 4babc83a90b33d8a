"""Types of the values in a robot's YAML: plausible ranges, names and topics, with remedies."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Strict, ValidationInfo
from pydantic_core import PydanticCustomError

from wm_nodes import namespaces
from wm_nodes.errors import did_you_mean
from wm_nodes.robots.arm.safety.limits import MAX_HAND_SPEED_M_S

MAX_POSITION = 4 * math.pi
MAX_VELOCITY, MAX_ACCELERATION, MAX_JERK = 30.0, 200.0, 50e3  # [rad/s, rad/s², rad/s³]
MAX_PLACE_M = 5.0
MAX_SECONDS = 60.0
MAX_RATE_HZ = 200.0
MAX_FORCE = 10e3  # [N, Nm]
TOPIC = re.compile(r"(?:~/|/)?[A-Za-z_][A-Za-z0-9_]*(?:/[A-Za-z_][A-Za-z0-9_]*)*\Z")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


def wrong(expected: str, fix: str, *, got: str = "", key: str = "") -> PydanticCustomError:
    """Return the error of a value that has the right type.

    `got` replaces the value itself in the message; `key`: which entry of a table is meant.
    """
    context: dict[str, Any] = {"expected": expected, "fix": fix, "got": got, "key": key}
    return PydanticCustomError("wrong", "{expected}", context)


def degrees(value: float) -> str:
    """Return the remedy for an angle that is too large."""
    return f"It looks like degrees: write radians ({math.radians(value):.4g})."


def millimetres(value: float) -> str:
    """Return the remedy for a length that is too large."""
    return f"It looks like millimetres: write metres ({value / 1000:.4g})."


def _degrees_or_millimetres(value: float) -> str:
    return f"{degrees(value)[:-1]}, or metres ({value / 1000:.4g}) if it slides."


def _milliseconds(value: float) -> str:
    return f"It looks like milliseconds: write seconds ({value / 1000:.4g})."


@dataclass(frozen=True)
class Between:
    """Checks one number: from `low` (or `above` it) to `high`. `far` explains what is beyond."""

    low: float
    high: float
    unit: str
    above: bool = False
    far: Callable[[float], str] | None = None

    def __call__(self, value: float) -> float:
        if (value > self.low if self.above else value >= self.low) and value <= self.high:
            return value
        beyond = self.far is not None and abs(value) > self.high
        raise wrong(
            f"{'above ' if self.above else ''}{self.low:.4g} to {self.high:.4g} {self.unit}",
            self.far(value) if self.far is not None and beyond else "Write a value of that range.",
        )


@dataclass(frozen=True)
class OneOf:
    """Checks one word of a few."""

    words: tuple[str, ...]

    def __call__(self, value: str) -> str:
        if value not in self.words:
            raise wrong(
                f"one of {', '.join(self.words)}",
                f"{did_you_mean(value, self.words)}Write one of them.",
            )
        return value


@dataclass(frozen=True)
class Matches:
    """Checks text by a pattern."""

    pattern: re.Pattern[str]
    expected: str
    empty: bool = False

    def __call__(self, value: str) -> str:
        if not (self.pattern.match(value) or (self.empty and not value)):
            raise wrong(self.expected, "Use letters, digits and _ only.")
        return value


def below_driver(name: str, info: ValidationInfo) -> str:
    """Return a ROS name as an absolute one: a relative one is below the driver's namespace.

    That is `driver_ns` of the validation context; the root without a context.
    """
    return namespaces.absolute(name, (info.context or {}).get("driver_ns", namespaces.ROOT))


def _namespace(value: str) -> str:
    if value and not namespaces.legal(value):
        raise wrong("a ROS namespace such as /left", "Use letters, digits and _ between slashes.")
    return value


def _filled(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise wrong("text on one line", "Fill it in.")
    return value


def _three(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) != 3:
        raise wrong("3 numbers (x, y, z in metres)", "Write [x, y, z].")
    return value


def _crop(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) != 4 or min(value) < 0 or value[0] + value[2] >= 1 or value[1] + value[3] >= 1:
        raise wrong(
            "4 shares (left, top, right, bottom) of 0 or more, each pair of sides below 1 together",
            "Write for example [0.125, 0.0, 0.125, 0.0].",
        )
    return value


def _device(value: Any) -> Any:
    return str(value) if type(value) is int and value >= 0 else value


# A bool is no number, a number is no text. Lists become tuples.
Flag = Annotated[bool, Strict()]
Word = Annotated[str, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]

Text = Annotated[Word, AfterValidator(_filled)]
Name = Annotated[Word, AfterValidator(Matches(NAME, "a name such as front or joint_1"))]
Topic = Annotated[
    Word,
    AfterValidator(Matches(TOPIC, "a ROS name such as /joint_states")),
    AfterValidator(below_driver),
]
MaybeTopic = Annotated[
    Word,
    AfterValidator(Matches(TOPIC, "a ROS name such as /arm/score, or nothing", empty=True)),
    AfterValidator(below_driver),
]
MaybeNamespace = Annotated[Word, AfterValidator(_namespace)]
Device = Annotated[Word, BeforeValidator(_device)]  # a path, or a number such as 0

Pixels = Annotated[Whole, AfterValidator(Between(1, 8192, "pixels"))]
Rate = Annotated[Number, AfterValidator(Between(1, MAX_RATE_HZ, "Hz"))]
Seconds = Annotated[Number, AfterValidator(Between(0, MAX_SECONDS, "s", far=_milliseconds))]
Lag = Annotated[Number, AfterValidator(Between(0, math.pi, "rad", far=degrees))]
Speed = Annotated[Number, AfterValidator(Between(0, 1, "(m/s, or a share)", above=True))]
Position = Annotated[
    Number,
    AfterValidator(
        Between(-MAX_POSITION, MAX_POSITION, "rad (m if it slides)", far=_degrees_or_millimetres)
    ),
]
Velocity = Annotated[
    Number, AfterValidator(Between(0, MAX_VELOCITY, "rad/s", above=True, far=degrees))
]
Acceleration = Annotated[
    Number, AfterValidator(Between(0, MAX_ACCELERATION, "rad/s²", above=True, far=degrees))
]
Jerk = Annotated[Number, AfterValidator(Between(0, MAX_JERK, "rad/s³", above=True, far=degrees))]
Share = Annotated[Number, AfterValidator(Between(0, 1, "(a share)"))]
Effort = Annotated[Number, AfterValidator(Between(0, MAX_FORCE, "N (Nm if it turns)"))]
Force = Annotated[Number, AfterValidator(Between(0, MAX_FORCE, "N"))]
Torque = Annotated[Number, AfterValidator(Between(0, MAX_FORCE, "Nm"))]
HandSpeed = Annotated[
    Number, AfterValidator(Between(0, MAX_HAND_SPEED_M_S, "m/s", above=True, far=millimetres))
]
Metres = Annotated[Number, AfterValidator(Between(-MAX_PLACE_M, MAX_PLACE_M, "m", far=millimetres))]
Corner = Annotated[tuple[Metres, ...], AfterValidator(_three)]
Crop = Annotated[tuple[Number, ...], AfterValidator(_crop)]
Home = tuple[Position, ...]
