"""Command-line arguments as a dataclass: types by tyro, help and ranges here."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar, get_type_hints

import tyro

from wm_nodes import namespaces
from wm_nodes.agent.device import device_error
from wm_nodes.cli.helptext import command_help
from wm_nodes.cli.options import choices_of, dataclass_options
from wm_nodes.errors import UserError, closest

T = TypeVar("T")
CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.*)'. Expected one of \((.*)\)")
NUMBER = re.compile(
    r"(?:invalid literal for (?P<int>int)\(\) with base 10|could not convert string to float): "
    r"(?P<text>'.*')"
)
HELP = ("-h", "--help")
FRAME = set(" +-|\u2500\u2502\u256d\u256e\u256f\u2570")  # the box that tyro draws around an error


def parse(kind: type[T], command: str, words: Sequence[str], default: T | None = None) -> T:
    """Return the dataclass filled from the words, or end the program with its help (code 0).

    default: the values of options that the words do not set. UserError: a wrong word, in one line.
    """
    if set(HELP) & set(words):
        print(command_help(kind, command))
        raise SystemExit(0)
    stderr = io.StringIO()
    more: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with redirect_stderr(stderr):
            options: T = tyro.cli(kind, prog=f"wm {command}", args=list(words), **more)
    except SystemExit:
        raise UserError(_mistake(kind, command, stderr.getvalue())) from None
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if choices := choices_of(getattr(hint, "__metadata__", ())):
            value = getattr(options, name)
            if value not in choices:
                require_one_of(name.replace("_", "-"), value, [word for word in choices if word])
    return options


def parse_resumed(
    kind: type[T], command: str, words: Sequence[str], recorded: T, fixed: Collection[str], run: str
) -> T:
    """Return the dataclass of a run that is resumed; `recorded` has the options that it began with.

    Options that the words do not set are as in `recorded`. UserError: the words set a field of
    `fixed` to another value.
    """
    options = parse(kind, command, words, recorded)
    refuse_changes(options, recorded, fixed, run)
    return options


def refuse_changes(options: object, recorded: object, fixed: Collection[str], run: str) -> None:
    """Refuse options of a resumed run that differ from the recorded ones in a field of `fixed`."""
    for name in fixed:
        old, new = getattr(recorded, name), getattr(options, name)
        if new != old:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option}: got {new}, but run {run!r} began with {old}, expected the same. Leave "
                f"{option} out, or start another run."
            )


def _mistake(kind: type, command: str, stderr: str) -> str:
    """Return tyro's error message as one line."""
    lines = _inside_frame(stderr)
    if lines and lines[0].strip().startswith("Missing from"):
        names = [line.strip() for line in lines[1:] if len(line) - len(line.lstrip()) == 5]
        return f"missing: {', '.join(names)}. See wm {command} --help."
    text = " ".join(" ".join(lines).split()) or " ".join(stderr.split()) or "wrong arguments"
    text = text.removeprefix("Error parsing ").rstrip(".")
    if text.startswith("Unrecognized options: "):
        unrecognized = text.removeprefix("Unrecognized options: ")
        known = [word for option in dataclass_options(kind) for word in option.words]
        near = closest(unrecognized.split(",")[0].split("=")[0], known, 0.6)
        hint = f" Closest: {', '.join(near)}." if near else ""
        return f"there is no option or argument {unrecognized}.{hint} See wm {command} --help."
    if match := CHOICE.match(text):
        value, name, choices = match[1], match[2], re.findall(r"'([^']+)'", match[3])
        return f"{name}: got {value!r}, expected one of {', '.join(choices)}."
    return f"{NUMBER.sub(_number, text)}. See wm {command} --help."


def _inside_frame(stderr: str) -> list[str]:
    """Return the first lines in the box that tyro draws, up to an empty one."""
    lines: list[str] = []
    for line in stderr.splitlines()[1:]:
        text = line.strip("\u2502|")
        if not set(text) - FRAME:
            break
        lines.append(text)
    return lines


def _number(match: re.Match[str]) -> str:
    return f"got {match['text']}, expected a {'whole ' if match['int'] else ''}number"


def require(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Refuse a number out of its range."""
    if not low <= value <= high:
        right = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise UserError(f"--{name}: got {value}, expected {right}.")


def require_device(name: str) -> None:
    """Refuse a word that names no device; whether this machine has the device is checked later."""
    if wrong := device_error(name):
        raise UserError(f"--{wrong}")


def require_namespace(name: str, text: str) -> str:
    """Return a namespace in absolute form; refuse an illegal one."""
    if not namespaces.legal(text):
        raise UserError(namespaces.refusal(f"--{name}", text))
    return namespaces.absolute(text)


def require_one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of the choices, and list the closest."""
    if value not in choices:
        near = ", ".join(closest(value, choices) or choices[:3])
        raise UserError(
            f"--{name}: got {value!r}, expected one of {len(choices)} choices. Closest: {near}."
        )
