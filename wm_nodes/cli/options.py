"""The options of a command, read from its dataclass: for help, completion and "did you mean".

Each field is an option; its help is the string below it, as tyro reads it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from wm_nodes.robots.registry import SIMULATED

KINDS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Choices:
    """Annotation of an option, as Annotated[str, Choices(names)]: the values that it accepts."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """One option (`--seed`) or positional argument (`RUN`); default: None where it is required."""

    name: str
    metavar: str  # "" of a switch
    text: str
    default: str | None
    choices: tuple[str, ...] = ()
    positional: bool = False
    path: bool = False  # a file or folder

    @property
    def switch(self) -> bool:
        """Whether it takes no value: --name, or --no-name."""
        return not self.metavar

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words that set it on the command line; none for a positional argument."""
        if self.positional:
            return ()
        return (self.name, f"--no-{self.name[2:]}") if self.default == "true" else (self.name,)


def dataclass_options(kind: type) -> tuple[Option, ...]:
    """Return the options that a command's dataclass declares, in order."""
    hints, texts = get_type_hints(kind, include_extras=True), _texts(kind)
    return tuple(_option(each, hints[each.name], texts.get(each.name, "")) for each in fields(kind))


def _option(spec: Field[Any], hint: Any, text: str) -> Option:
    marks: tuple[Any, ...] = ()
    while get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        marks += tuple(more)
    positional = tyro.conf.Positional in marks
    named = {key: value for m in marks for key in ("name", "metavar") if (value := _set(m, key))}
    base, several = _base(hint)
    words = get_args(base) if get_origin(base) is Literal else choices_of(marks)
    choices = tuple(str(word) for word in words if word != "")
    name = str(named.get("name", spec.name)).replace("_", "-")
    metavar = named.get("metavar") or "|".join(choices) or KINDS.get(base, "")
    if several and "metavar" not in named:
        metavar = " ".join([metavar] * several) if several > 1 else f"{metavar} ..."
    repeated = tyro.conf.UseAppendAction in marks
    return Option(
        name=metavar if positional else f"--{name}",
        metavar=metavar,
        text=text,
        default=None if repeated else _default(spec),
        choices=choices,
        positional=positional,
        path=base is Path or metavar in ("LOG", "RUN", "FILE"),
    )


def choices_of(marks: Sequence[object]) -> tuple[str, ...]:
    """Return the values of the annotation Choices; () where there is none."""
    return next((mark.words for mark in marks if isinstance(mark, Choices)), ())


def _set(mark: object, key: str) -> Any:
    return getattr(mark, key, None) if not isinstance(mark, type) else None


def _base(hint: Any) -> tuple[Any, int]:
    """Return the type of one value, and their count: 0 for one, 1 for any number, else exact."""
    parts = [part for part in get_args(hint) if part is not types.NoneType]
    if get_origin(hint) in (Union, types.UnionType):
        return _base(parts[0])
    if get_origin(hint) is tuple:
        return parts[0], 1 if Ellipsis in parts else len(parts)
    return hint, 0


def _default(spec: Field[Any]) -> str | None:
    if spec.default is MISSING:
        return None
    value = spec.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def robots() -> str:
    """Return the robots that commands open by name, as a help text lists them."""
    return ", ".join(f"{name} ({entry.summary})" for name, entry in SIMULATED.items())


def _texts(kind: type) -> dict[str, str]:
    """Return the string below each field of a dataclass and its bases, on one line."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            texts |= _own_texts(base)
    return texts


def _own_texts(kind: type) -> dict[str, str]:
    texts: dict[str, str] = {}
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for line, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            value = below.value if isinstance(below, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                text = " ".join(value.value.split())
                texts[line.target.id] = text.replace("{robots}", robots())
    return texts
