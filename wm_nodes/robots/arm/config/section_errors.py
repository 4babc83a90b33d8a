"""One-line errors about the sections of a robot's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wm_nodes.errors import did_you_mean
from wm_nodes.namespaces import ROOT
from wm_nodes.robots.arm.config.sections import ArmSections, keys_at
from wm_nodes.robots.arm.config.yaml_file import Place, YamlFile, shown
from wm_nodes.robots.robot import SpecError

NO_LIMITS = "A robot without limits does not start."
LIMITS = ("joints", "workspace")
UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
REPLACED: dict[tuple[str, ...], str] = {  # keys of earlier versions: how to write it now
    ("action", "gripper_tasks"): "A commanded gripper acts in every task: write `gripper_rests` "
    "with the tasks in which it rests.",
}
A_NUMBER = "Write a plain decimal number (0.5, 1e-3), without quotes or units."
A_TABLE = "Write entries `key: value` below it, or remove the key if it is optional."
TYPES = {  # pydantic's kind of error: what is expected, how to fix it
    "float_type": ("a number", A_NUMBER),
    "int_type": ("a whole number", "Write a plain whole number (64), without quotes or units."),
    "finite_number": ("a finite number", A_NUMBER),
    "string_type": ("text", "Write a name; put it in quotes if it looks like a number."),
    "bool_type": ("true or false", "Write true or false, without quotes."),
    "tuple_type": ("a list", "Write [a, b, c]."),
    "dict_type": ("a table", A_TABLE),
    "dataclass_type": ("a table", A_TABLE),
}


def parse(file: YamlFile, driver_ns: str = ROOT) -> ArmSections:
    """Return the sections of a robot's YAML; SpecError (one line) about the first error in it.

    Every relative topic or service name becomes one below `driver_ns`, an absolute namespace.
    """
    try:
        return TypeAdapter(ArmSections).validate_python(
            file.content, context={"driver_ns": driver_ns}
        )
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # Unknown keys first: a misspelt key is the cause of a missing one.
    errors.sort(key=lambda each: each["type"] not in UNKNOWN)
    raise _explained(file, errors[0])


def _explained(file: YamlFile, error: Mapping[str, Any]) -> SpecError:
    kind = error["type"]
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    if kind in UNKNOWN:
        return _unknown(file, place)
    if kind == "missing":
        return _missing(file, place[:-1])
    value = error["input"]
    if kind == "wrong":
        about = error["ctx"]
        at = (*place, about["key"]) if about["key"] else place
        return file.error(at, about["got"] or shown(value), about["expected"], about["fix"])
    expected, fix = TYPES.get(kind, (f"another value ({error['msg']})", "Correct it."))
    if place and place[0] in LIMITS and expected == "a table":
        fix = f"{fix} {NO_LIMITS}"
    return file.error(place, shown(value), expected, fix)


def _unknown(file: YamlFile, place: Place) -> SpecError:
    known = keys_at(place[:-1])
    name = str(place[-1])
    fix = REPLACED.get(tuple(map(str, place)), f"{did_you_mean(name, known)}Rename or remove it.")
    return file.error(place, f"the unknown key {shown(name)}", f"one of {', '.join(known)}", fix)


def _missing(file: YamlFile, place: Place) -> SpecError:
    table: Any = file.content
    for part in place:
        table = table[part]
    needed = [name for name, required in keys_at(place).items() if required]
    absent = [name for name in needed if name not in table]
    about_limits = (place and place[0] in LIMITS) or set(absent) & set(LIMITS)
    return file.error(
        place, f"no {', '.join(absent)}", f"{', '.join(needed)} there",
        "Add what is missing." + (f" {NO_LIMITS}" if about_limits else ""),
    )  # fmt: skip
