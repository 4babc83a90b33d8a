"""ROS service types by name, and requests with fields by name, checked when the program starts."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from typing import Any

from wm_nodes.errors import UserError

ANSWERS = ("success", "ok")  # fields of a response: whether the call succeeded
SEQUENCE = re.compile(r"sequence<(.+?)(?:, *(\d+))?>\Z")
ARRAY = re.compile(r"(.+)\[(\d+)\]\Z")
INTEGER = re.compile(r"(u?)int(8|16|32|64)\Z")
LARGEST = {"float": 3.402823466e38, "double": sys.float_info.max}


def load_service(name: str) -> Any:
    """Return the service type of a name such as std_srvs/srv/Trigger.

    UserError if its package is not installed, if it has no such service, or if its response has
    neither a field `success` nor `ok`.
    """
    package, _, kind = name.split("/")
    try:
        service = getattr(importlib.import_module(f"{package}.srv"), kind, None)
    except ImportError as error:
        raise UserError(
            f"service type {name}: package {package} cannot be imported ({error}). Install it "
            f"(ros-$ROS_DISTRO-{package.replace('_', '-')}) and source its workspace."
        ) from None
    if service is None:
        raise UserError(
            f"service type {name}: got {kind}, expected a service of {package}. Correct the name."
        )
    if not set(ANSWERS) & set(service.Response.get_fields_and_field_types()):
        raise UserError(
            f"service type {name}: got a response without a field {' or '.join(ANSWERS)}, expected "
            "one, which tells whether the call succeeded. Use another service."
        )
    return service


def filled(message: Any, fields: Mapping[str, Any], what: str) -> Any:
    """Set fields of a message by name and return it; UserError if one does not fit its type."""
    kinds = message.get_fields_and_field_types()
    for name, value in fields.items():
        if name not in kinds:
            known = ", ".join(kinds) or "none: remove it"
            raise UserError(f"{what}: got the field {name!r}, expected one of: {known}.")
        setattr(message, name, _converted(kinds[name], value, f"{what}.{name}"))
    return message


def answered(response: Any) -> tuple[bool, str]:
    """Return whether the call succeeded by its response, and the response's message if any."""
    done = next(bool(getattr(response, name)) for name in ANSWERS if hasattr(response, name))
    return done, " ".join(str(getattr(response, "message", "")).split())


def _converted(kind: str, value: Any, what: str) -> Any:
    """Return a value of the YAML as a field of this ROS type."""
    if listed := SEQUENCE.match(kind) or ARRAY.match(kind):
        return _list(kind, listed[1], listed[2], value, what)
    expected = f"a value of the ROS type {kind}"
    if kind == "boolean":
        fits = isinstance(value, bool)
    elif whole := INTEGER.match(kind):
        bits = int(whole[2])
        low, high = (0, 2**bits) if whole[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        fits = type(value) is int and low <= value < high
        expected = f"a whole number from {low} to {high - 1} (ROS type {kind})"
    elif kind == "octet":
        fits = type(value) is int and 0 <= value <= 255
        value = bytes([value]) if fits else value
        expected = "a whole number from 0 to 255 (ROS type octet)"
    elif kind in LARGEST:
        most = LARGEST[kind]
        fits = type(value) in (int, float) and abs(value) <= most
        value = float(value) if fits else value
        expected = f"a finite number from {-most:.6g} to {most:.6g} (ROS type {kind})"
    elif kind.startswith("string"):
        fits = isinstance(value, str) and _encodable(value)
        expected = f"text that UTF-8 can encode (ROS type {kind})"
    elif "/" in kind:
        if isinstance(value, Mapping):
            package, name = kind.split("/")[0], kind.split("/")[-1]
            message = getattr(importlib.import_module(f"{package}.msg"), name)()
            return filled(message, value, what)
        fits = False
    else:
        fits = False
    if not fits:
        raise UserError(f"{what}: got {value!r}, expected {expected}.")
    return value


def _encodable(text: str) -> bool:
    """Is it free of halves of surrogate pairs, such as "\\ud800" in a YAML file?"""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list(kind: str, item: str, size: str | None, value: Any, what: str) -> list[Any]:
    exact = ARRAY.match(kind) is not None
    fits = isinstance(value, (list, tuple))
    if fits and size is not None:
        fits = len(value) == int(size) if exact else len(value) <= int(size)
    if not fits:
        raise UserError(f"{what}: got {value!r}, expected a list of the ROS type {kind}.")
    return [_converted(item, part, f"{what}[{index}]") for index, part in enumerate(value)]
