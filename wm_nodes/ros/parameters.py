"""A frozen dataclass becomes declared ROS parameters: type, range and description in one place."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from wm_nodes.errors import UserError, did_you_mean

T = TypeVar("T")
_OWN = ("use_sim_time", "start_type_description_service")  # rclpy's
_MOST = 2**62  # stands for "no upper bound" where a range must have one
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class ParamError(UserError):
    """A parameter that is unknown, of the wrong type or out of its range."""


def param(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
    digits: bool = False,
) -> Any:
    """Declare one field: its type is that of the default (a tuple contains texts or numbers).

    digits: the text may also be a whole number. Other texts must not be numbers, since ROS reads
    0483 and 12E5 as 483.0 and 1200000.0, 0123 as 83.
    live: may be set while the node runs; the node adds a callback for that itself.
    """
    meta = {"description": description, "low": low, "high": high, "choices": choices}
    meta |= {"live": live, "digits": digits}
    return field(default=default, metadata=meta)


def declare(node: Node, kind: type[T]) -> T:
    """Declare every field of `kind` as a parameter of the node and return their values.

    Values come from `--ros-args -p name:=value` and `--params-file`. Parameters are
    read-only while the node runs, except `live` ones. ParamError names the closest parameter to an
    unknown one, and the values expected instead of a wrong one.
    """
    specs = {spec.name: spec for spec in fields(kind)}  # type: ignore[arg-type]
    overrides = {name: p.value for name, p in node._parameter_overrides.items()}
    refuse_unknown(list(overrides), list(specs), node.get_name())
    values = {}
    for name, spec in specs.items():
        value = checked(spec, overrides.get(name, _default(spec)), node.get_name())
        shown = list(value) if isinstance(value, tuple) else value
        node.declare_parameter(name, shown, _descriptor(spec), ignore_override=True)
        values[name] = value
    return kind(**values)


def has_value(node: Node, parameter: Parameter[Any]) -> bool:
    """Does the node have this parameter with this value?"""
    if not node.has_parameter(parameter.name):
        return False
    now, value = node.get_parameter(parameter.name).value, parameter.value
    if isinstance(value, (list, tuple, array)) and isinstance(now, (list, tuple, array)):
        return list(now) == list(value)  # the type of an empty array is lost in YAML
    return type(now) is type(value) and bool(now == value)


def refuse_unknown(names: Sequence[str], known: Sequence[str], node: str) -> None:
    """Raise ParamError for the first name that is not known."""
    for name in names:
        if name in known or name in _OWN or name.startswith("qos_overrides."):
            continue
        hint = did_you_mean(name, known)
        raise ParamError(
            f"{node}: got unknown parameter {name!r}. {hint}Expected: {', '.join(known)}."
        )


def checked(spec: Field[Any], value: Any, node: str) -> Any:
    """Return the value with the field's type, or raise ParamError."""
    default = _default(spec)
    if isinstance(default, tuple):
        items = value.split(",") if isinstance(value, str) else list(value)
        kind = type(default[0]) if default else str
        return tuple(_scalar(spec, kind, item, node) for item in items if item != "")
    return _scalar(spec, type(default), value, node)


def _scalar(spec: Field[Any], kind: type, raw: Any, node: str) -> Any:
    value = _converted(kind, raw, spec.metadata["digits"])
    low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
    fits = value is not None and (not choices or value in choices)
    if fits and kind in (int, float):
        fits = (low is None or value >= low) and (high is None or value <= high)
    if not fits:
        right = _right(spec, kind)
        if kind is str and isinstance(raw, (int, float)):
            right += f""" (in quotes if it looks like a number or true: -p "{spec.name}:='0483'")"""
        raise ParamError(f"{node}: {spec.name}: got {raw!r}, expected {right}.")
    return value


def _converted(kind: type, value: Any, digits: bool) -> Any:
    """Return the value as `kind`, None where that cannot be."""
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str:
        return str(value) if isinstance(value, (str, int) if digits else str) else None
    if isinstance(value, str):
        return None
    if kind is int:
        return int(value) if float(value).is_integer() else None
    return float(value) if math.isfinite(value) else None


def _right(spec: Field[Any], kind: type) -> str:
    low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
    if choices:
        return f"one of {', '.join(choices)}"
    bounds = f" from {low}" * (low is not None) + f" to {high}" * (high is not None)
    return _WORDS[kind] + bounds


def _default(spec: Field[Any]) -> Any:
    assert spec.default is not MISSING, f"{spec.name}: every parameter has a default"
    return spec.default


def _descriptor(spec: Field[Any]) -> ParameterDescriptor:
    low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
    default = _default(spec)
    fixed = not spec.metadata["live"]
    out = ParameterDescriptor(description=spec.metadata["description"], read_only=fixed)
    if choices:
        out.additional_constraints = f"one of {', '.join(choices)}"
    if isinstance(default, int) and not isinstance(default, bool) and low is not None:
        top = _MOST if high is None else int(high)
        out.integer_range = [IntegerRange(from_value=int(low), to_value=top, step=0)]
    elif isinstance(default, float) and low is not None:
        most = float(_MOST) if high is None else float(high)
        out.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=most)]
    return out
