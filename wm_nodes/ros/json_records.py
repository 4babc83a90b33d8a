"""JSON of latched topics -> records, every part of which has its type and its bounds."""

from __future__ import annotations

import math
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
HEX = frozenset("0123456789abcdef")


def checked_announcement(given: Mapping[str, Any]) -> Announcement:
    """Return the record; ValueError names the first part that is wrong."""
    _only("announcement", given, NEWS, NEWS[:4])
    _whole("version", given["version"], 0, MOST_VERSION)
    _whole("step", given.get("step", 0), 0, 2**63 - 1)
    _text("path", given["path"], MOST_PATH)
    _text("preset", given["preset"])
    _text("sha256", given["sha256"], 64)
    if not set(given["sha256"]) <= HEX:
        raise ValueError("sha256 must be hexadecimal")
    metrics = given.get("metrics", {})
    _object("metrics", metrics, MOST_NAMES)
    for name, value in metrics.items():
        _number(f"metrics {name[:MOST_TEXT]}", value)
    return Announcement(**given)


def check_spec(given: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError for the first part of a robot's spec of a wrong type or size."""
    for name in ("robot", "task"):
        _text(name, given[name])
    _number("control_period_s", given["control_period_s"])
    if not 0 < given["control_period_s"] <= MOST_PERIOD_S:
        raise ValueError(f"control_period_s must be from 0 to {MOST_PERIOD_S:g}")
    if type(given.get("reward", True)) is not bool:
        raise ValueError("reward must be true or false")
    _object("extra", given["extra"], MOST_NAMES)
    _object("cameras", given["cameras"], MOST_CAMERAS)
    for name, shape in given["cameras"].items():
        _shape(f"camera {name[:MOST_TEXT]}", shape, 3)
    for name in VECTORS:
        if given.get(name) is not None:
            _vector(name, given[name])
    sensors = given.get("sensors", {})
    _object("sensors", sensors, MOST_CAMERAS)
    for name, sensor in sensors.items():
        what = f"sensor {name[:MOST_TEXT]}"
        _object(what, sensor, MOST_NAMES)
        _text(f"{what} dtype", sensor["dtype"])
        _shape(what, sensor["shape"])
        _texts(f"{what} names", sensor["names"])
        if type(sensor["units"]) is not str:
            _texts(f"{what} units", sensor["units"])


def _vector(what: str, given: Any) -> None:
    _object(what, given, MOST_NAMES)
    for part in ("names", "units"):
        _texts(f"{what} {part}", given[part])
    for part in ("low", "high"):
        if type(given[part]) is not list or len(given[part]) > MOST_NAMES:
            raise ValueError(f"{what} {part} must be a list of at most {MOST_NAMES} numbers")
        for value in given[part]:
            if value not in ("inf", "-inf"):
                _number(f"{what} {part}", value)


def _only(
    what: str, given: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]
) -> None:
    if odd := sorted((given.keys() - set(known)) | (set(needed) - given.keys())):
        raise ValueError(f"{what}: unknown or missing {odd[0][:MOST_TEXT]!r}")


def _whole(what: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} must be a whole number from {low} to {high}")


def _number(what: str, value: object) -> None:
    if type(value) is int:
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number")


def _text(what: str, value: object, most: int = MOST_TEXT) -> None:
    if type(value) is not str or len(value) > most or not value.isprintable():
        raise ValueError(f"{what} must be printable text of at most {most} characters")


def _texts(what: str, value: object) -> None:
    if type(value) is not list or len(value) > MOST_NAMES:
        raise ValueError(f"{what} must be a list of at most {MOST_NAMES} texts")
    for text in value:
        _text(what, text)


def _object(what: str, value: object, most: int) -> None:
    if type(value) is not dict or len(value) > most:
        raise ValueError(f"{what} must be an object of at most {most} entries")


def _shape(what: str, value: object, axes: int = 0) -> None:
    if type(value) is not list or len(value) > 4 or (axes and len(value) != axes):
        raise ValueError(f"{what}: the shape must be a list of {axes or 'up to 4'} numbers")
    for side in value:
        _whole(f"{what}: each side", side, 1, MOST_SIDE)
