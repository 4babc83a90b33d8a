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
from wm_nodes.cli.options import choices_of, options
from wm_nodes.errors import UserError, closest

T = TypeVar("T")
CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.*)'. Expected one of \((.*)\)")
NUMBERS = {  # of Python -> of ours
    "invalid literal for int() with base 10:": "a whole number",
    "could not convert string to float:": "a number",
}
HELP = ("-h", "--help")
FRAME = set(" +-|\u2500\u2502\u256d\u256e\u256f\u2570")  # what tyro draws around a mistake


def parse(kind: type[T], command: str, words: Sequence[str], default: T | None = None) -> T:
    """Return the dataclass filled from the words, or end the program with its help (code 0).

    default: what the words do not give is as in there. UserError: a wrong word, in one line.
    """
    if set(HELP) & set(words):
        print(command_help(kind, command))
        raise SystemExit(0)
    said = io.StringIO()
    more: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with redirect_stderr(said):
            given: T = tyro.cli(kind, prog=f"wm {command}", args=list(words), **more)
    except SystemExit:
        raise UserError(_mistake(kind, command, said.getvalue())) from None
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if right := choices_of(getattr(hint, "__metadata__", ())):
            value = getattr(given, name)
            if value not in right:
                require_one_of(name.replace("_", "-"), value, [word for word in right if word])
    return given


def as_begun(
    kind: type[T], command: str, words: Sequence[str], began: T, fixed: Collection[str], run: str
) -> T:
    """Return the words' dataclass; what the words do not give is as in `began`, of a run.

    UserError: the words give a field of `fixed` another value than it began with.
    """
    wanted = parse(kind, command, words, began)
    for name in fixed:
        old, new = getattr(began, name), getattr(wanted, name)
        if new != old:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option}: got {new}, but run {run!r} began with {old}, expected the same. Leave "
                f"{option} out, or start another run."
            )
    return wanted


def _mistake(kind: type, command: str, said: str) -> str:
    """Return tyro's account of a wrong word as one line."""
    known = [word for option in options(kind) for word in option.words]
    lines: list[str] = []
    for line in said.splitlines()[1:]:
        text = line.strip("\u2502|")
        if not set(text) - FRAME:
            break
        lines.append(text)
    if lines and lines[0].strip().startswith("Missing from"):
        names = [line.strip() for line in lines[1:] if len(line) - len(line.lstrip()) == 5]
        return f"missing: {', '.join(names)}. See wm {command} --help."
    text = " ".join(" ".join(lines).split()) or " ".join(said.split()) or "wrong arguments"
    text = text.removeprefix("Error parsing ").rstrip(".")
    if text.startswith("Unrecognized options: "):
        given = text.removeprefix("Unrecognized options: ")
        near = closest(given.split(",")[0].split("=")[0], known, 0.6)
        hint = f" Closest: {', '.join(near)}." if near else ""
        return f"there is no option or argument {given}.{hint} See wm {command} --help."
    if found := CHOICE.match(text):
        given, name, choices = found[1], found[2], re.findall(r"'([^']+)'", found[3])
        return f"{name}: given {given!r}, right is one of {', '.join(choices)}."
    for said_of, right in NUMBERS.items():
        text = text.replace(said_of, f"right is {right}, given")
    return f"{text}. See wm {command} --help."


def require(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Refuse a number out of its range."""
    if not low <= value <= high:
        upper = f" to {high:g}" if high != float("inf") else ""
        raise UserError(f"--{name}: given {value}, right is from {low:g}{upper}.")


def require_device(name: str) -> None:
    """Refuse what is no device's name; whether this machine has it, torch says later."""
    if wrong := device_error(name):
        raise UserError(f"--{wrong}")


def require_namespace(name: str, text: str) -> str:
    """Return a namespace as an absolute one; refuse an illegal one."""
    if not namespaces.legal(text):
        raise UserError(namespaces.refusal(f"--{name}", text))
    return namespaces.absolute(text)


def require_one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of the choices, naming the closest."""
    if value not in choices:
        near = ", ".join(closest(value, choices) or choices[:3])
        raise UserError(
            f"--{name}: there is no {value!r}. Closest: {near} ({len(choices)} in all)."
        )
