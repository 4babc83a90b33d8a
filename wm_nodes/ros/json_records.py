"""JSON of latched topics -> records, every part of which has its type and its bounds."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from wm_nodes.records import Announcement

MOST_SPEC, MOST_NEWS = 1 << 20, 64 << 10  # bytes
MOST_VERSION = 2**31 - 1  # the log keeps versions as int32
MOST_NAMES, MOST_CAMERAS, MOST_TEXT, MOST_PATH = 1024, 64, 256, 4096
MOST_SIDE = 16384  # of an image or sensor array
MOST_PERIOD_S = 3600.0
VECTORS = ("proprio", "action", "signals")
NEWS = ("version", "path", "sha256", "preset", "step", "metrics")
HUGE = 2**1000  # whole numbers from here on are neither converted nor shown
HEX = frozenset("0123456789abcdef")


def checked_announcement(fields: Mapping[str, Any]) -> Announcement:
    """Return the record; ValueError names the first part that is wrong."""
    _only("announcement", fields, NEWS, NEWS[:4])
    _whole("version", fields["version"], 0, MOST_VERSION)
    _whole("step", fields.get("step", 0), 0, 2**63 - 1)
    _text("path", fields["path"], MOST_PATH)
    _text("preset", fields["preset"])
    _text("sha256", fields["sha256"], 64)
    if not set(fields["sha256"]) <= HEX:
        raise _wrong("sha256", fields["sha256"], "hexadecimal digits")
    metrics = fields.get("metrics", {})
    _object("metrics", metrics, MOST_NAMES)
    for name, value in metrics.items():
        _number(f"metrics {name[:MOST_TEXT]}", value)
    return Announcement(**fields)


def check_spec(spec: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError for the first part of a robot's spec of a wrong type or size."""
    for name in ("robot", "task"):
        _text(name, spec[name])
    _number("control_period_s", spec["control_period_s"])
    if not 0 < spec["control_period_s"] <= MOST_PERIOD_S:
        period = spec["control_period_s"]
        raise _wrong("control_period_s", period, f"more than 0, up to {MOST_PERIOD_S:g}")
    if type(spec.get("reward", True)) is not bool:
        raise _wrong("reward", spec["reward"], "true or false")
    _object("extra", spec["extra"], MOST_NAMES)
    _object("cameras", spec["cameras"], MOST_CAMERAS)
    for name, shape in spec["cameras"].items():
        _shape(f"camera {name[:MOST_TEXT]}", shape, 3)
    for name in VECTORS:
        if spec.get(name) is not None:
            _vector(name, spec[name])
    sensors = spec.get("sensors", {})
    _object("sensors", sensors, MOST_CAMERAS)
    for name, sensor in sensors.items():
        what = f"sensor {name[:MOST_TEXT]}"
        _object(what, sensor, MOST_NAMES)
        _text(f"{what} dtype", sensor["dtype"])
        _shape(what, sensor["shape"])
        _texts(f"{what} names", sensor["names"])
        if type(sensor["units"]) is not str:
            _texts(f"{what} units", sensor["units"])


def _vector(what: str, vector: Any) -> None:
    _object(what, vector, MOST_NAMES)
    for part in ("names", "units"):
        _texts(f"{what} {part}", vector[part])
    for part in ("low", "high"):
        if type(vector[part]) is not list or len(vector[part]) > MOST_NAMES:
            raise _wrong(f"{what} {part}", vector[part], f"a list of at most {MOST_NAMES} numbers")
        for value in vector[part]:
            if value not in ("inf", "-inf"):
                _number(f"{what} {part}", value)


def _only(
    what: str, fields: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]
) -> None:
    if odd := sorted((fields.keys() - set(known)) | (set(needed) - fields.keys())):
        got = "unknown" if odd[0] in fields else "no"
        expected = f"{', '.join(needed)}, and at most {', '.join(known)}"
        raise ValueError(f"{what}: got {got} {odd[0][:MOST_TEXT]!r}, expected {expected}")


def _wrong(what: str, value: object, expected: str) -> ValueError:
    """Return the error of a part that is wrong; long values are abbreviated."""
    huge = isinstance(value, int) and abs(value) >= HUGE
    got = "a huge number" if huge else reprlib.repr(value)
    return ValueError(f"{what}: got {got}, expected {expected}")


def _whole(what: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise _wrong(what, value, f"a whole number from {low} to {high}")


def _number(what: str, value: object) -> None:
    if type(value) is int:
        value = float(value) if abs(value) < HUGE else math.inf
    if type(value) is not float or not math.isfinite(value):
        raise _wrong(what, value, "a finite number")


def _text(what: str, value: object, most: int = MOST_TEXT) -> None:
    if type(value) is not str or len(value) > most or not value.isprintable():
        raise _wrong(what, value, f"printable text of at most {most} characters")


def _texts(what: str, value: object) -> None:
    if type(value) is not list or len(value) > MOST_NAMES:
        raise _wrong(what, value, f"a list of at most {MOST_NAMES} texts")
    for text in value:
        _text(what, text)


def _object(what: str, value: object, most: int) -> None:
    if type(value) is not dict or len(value) > most:
        raise _wrong(what, value, f"an object of at most {most} entries")


def _shape(what: str, value: object, axes: int = 0) -> None:
    if type(value) is not list or len(value) > 4 or (axes and len(value) != axes):
        raise _wrong(what, value, f"a shape: a list of {axes or 'up to 4'} numbers")
    for side in value:
        _whole(f"{what}: side", side, 1, MOST_SIDE)
