"""Command-line arguments as a dataclass: types and help by tyro, ranges here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tyro

from wm_nodes import namespaces
from wm_nodes.errors import UserError
from wm_nodes.graphs.declaration import closest

T = TypeVar("T")


def parse(kind: type[T], command: str, words: Sequence[str]) -> T:
    """Return the dataclass filled from the words; a wrong word ends the program with code 2."""
    return tyro.cli(kind, prog=f"wm {command}", args=list(words))


def require(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Refuse a number out of its range."""
    if not low <= value <= high:
        upper = f" to {high:g}" if high != float("inf") else ""
        raise UserError(f"--{name}: given {value}, right is from {low:g}{upper}.")


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
