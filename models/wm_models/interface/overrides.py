"""Settings of a preset by dotted names, such as ``learner.agent_batch.batch``: listed and changed.

A preset holds a tree of frozen dataclasses. Its leaves are the settings; their meaning is the
comment beside or above the field.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from wm_models.errors import ModelError, unknown_name

LIKE = "like"  # metadata of a part that may be None: the field whose settings it then begins with
ROOTS = ("model", "learner")  # fields of a preset that hold settings
PART = re.compile(r",(?=\s*[a-z_0-9.]+\s*=)")
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Setting:
    """One setting. kind: its type in words. value: what it is in the preset."""

    name: str
    kind: str
    value: Any
    meaning: str


def settings_of(preset: Any) -> dict[str, Setting]:
    """Every setting of a preset, by name, in the order of the code."""
    settings: dict[str, Setting] = {}
    for root in ROOTS:
        if is_dataclass(part := getattr(preset, root, None)):
            settings |= {each.name: each for each in _walk(part, root)}
    return settings


def read_changes(text: str) -> dict[str, str]:
    """``a.b=1, c.d=2`` as {"a.b": "1", "c.d": "2"}. ModelError for anything else."""
    changes: dict[str, str] = {}
    for part in PART.split(text) if text.strip() else ():
        name, mark, value = part.partition("=")
        if not (mark and name.strip()):
            raise ModelError(
                f"set: got {part.strip()!r}, expected NAME=VALUE, as in learner.train_every=4."
            )
        changes[name.strip()] = value.strip()
    return changes


def overridden(preset: Any, changes: Mapping[str, Any]) -> Any:
    """The preset with settings changed; values are of the setting's type, or text.

    Settings of one part are checked together, after all of them have changed. ModelError: there is
    no such setting, or the value is of another type or out of range.
    """
    tree: dict[str, Any] = {}
    for name, value in changes.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise _leaf(name, path)
        branch[last] = value
    roots = [root for root in ROOTS if is_dataclass(getattr(preset, root, None))]
    return _changed(preset, "", roots, tree)


def written(changes: Mapping[str, Any]) -> str:
    """Changes as :func:`read_changes` reads them, in the order of their names."""
    each = {k: f"[{','.join(map(str, v))}]" if isinstance(v, (list, tuple)) else v
            for k, v in changes.items()}  # fmt: skip
    return ",".join(f"{name}={each[name]}" for name in sorted(each))


def resolved(preset: Any) -> dict[str, Any]:
    """Every setting of a preset by name, as JSON keeps it."""
    return {name: _json(each.value) for name, each in settings_of(preset).items()}


def plain(preset: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of these names as JSON keeps them."""
    known = settings_of(preset)
    return {name: _json(known[name].value) for name in names}


def _changed(owner: Any, prefix: str, known: Sequence[str], tree: Mapping[str, Any]) -> Any:
    """``owner``, whose settings begin with ``prefix``, with a tree of changes applied."""
    new: dict[str, Any] = {}
    absent = {head for head in tree if head in known and getattr(owner, head) is None}
    for head, change in sorted(tree.items(), key=lambda item: item[0] in absent):
        name = f"{prefix}{head}"
        if head not in known:
            raise unknown_name("set", name, [f"{prefix}{each}" for each in known])
        now = getattr(owner, head)
        if now is None and isinstance(change, dict):
            now = _absent(owner, new, head, f"{name}.{next(iter(change))}")
        if is_dataclass(now):
            parts = [f.name for f in fields(now)]
            if not isinstance(change, dict):
                right = ", ".join(f"{name}.{part}" for part in parts)
                raise ModelError(f"set: got {name!r}, expected one of {right}.")
            new[head] = _changed(now, f"{name}.", parts, change)
        elif isinstance(change, dict):
            raise _leaf(f"{name}.{next(iter(change))}", name.split("."))
        else:
            new[head] = _read(_hints(type(owner))[head], name, change)
    try:
        return replace(owner, **new)
    except (ValueError, TypeError) as error:
        names = ", ".join(f"{prefix}{head}" for head in new)
        raise ModelError(f"set: {names}: {error}") from None


def _absent(owner: Any, new: Mapping[str, Any], head: str, name: str) -> Any:
    """The settings that a part begins with where the preset has none of its own: those of the field
    that it is like, with the changes ``new``; None for a field that is no part. ModelError: the
    preset does without the part that ``name`` is of."""
    field = next(field for field in fields(owner) if field.name == head)
    if LIKE in field.metadata:
        like = field.metadata[LIKE]
        return new[like] if like in new else getattr(owner, like)
    if any(is_dataclass(kind) for kind in _alternatives(_hints(type(owner))[head])):
        raise ModelError(
            f"set: got {name!r}, but this preset has no {name.rpartition('.')[0]}, expected one of "
            "its own settings (wm models show NAME). Choose a preset that has it."
        )
    return None


def _leaf(name: str, path: Sequence[str]) -> ModelError:
    return ModelError(
        f"set: got {name!r}, but {'.'.join(path)} has no settings of its own. Name it alone."
    )


def _walk(owner: Any, prefix: str) -> Iterator[Setting]:
    owner_type: type = type(owner)
    hints, meanings = _hints(owner_type), _meanings(owner_type)
    for field in fields(owner):
        name, value = f"{prefix}.{field.name}", getattr(owner, field.name)
        if is_dataclass(value):
            yield from _walk(value, name)
        elif not any(is_dataclass(kind) for kind in _alternatives(hints[field.name])):
            yield Setting(name, _kind(hints[field.name]), value, meanings.get(field.name, ""))


def _read(hint: Any, name: str, value: Any) -> Any:
    """``value``, or the value in a text, as the type of a setting."""
    kinds = _alternatives(hint)
    if types.NoneType in kinds and value in (None, "none", "None"):
        return None
    for kind in kinds:
        try:
            return _as(kind, value)
        except (ValueError, TypeError, OverflowError):
            continue
    raise ModelError(f"set: {name}: got {value!r}, expected {_kind(hint)}.")


def _as(kind: Any, value: Any) -> Any:
    if kind is bool:
        flag = WORDS.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(flag, bool):
            raise ValueError
        return flag
    if kind in (int, float):
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    if kind is str:
        if not isinstance(value, str):
            raise ValueError
        return value.strip()
    if get_origin(kind) is tuple:
        words = value.strip("[]() ").split(",") if isinstance(value, str) else value
        each = [part for part in get_args(kind) if part is not Ellipsis]
        items = tuple(_as(each[min(i, len(each) - 1)], w) for i, w in enumerate(words))
        if Ellipsis not in get_args(kind) and len(items) != len(each):
            raise ValueError
        return items
    raise ValueError


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _kind(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text",
             types.NoneType: "none"}  # fmt: skip
    each = []
    for kind in _alternatives(hint):
        if get_origin(kind) is tuple:
            inner = [part for part in get_args(kind) if part is not Ellipsis]
            count = "" if Ellipsis in get_args(kind) else f"{len(inner)} "
            items = {int: "whole numbers", str: "words"}.get(inner[0], "numbers")
            each.append(f"[{count}{items}]")
        else:
            each.append(words.get(kind, str(kind)))
    return " or ".join(each)


def _json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return list(value) if isinstance(value, tuple) else value


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _meanings(kind: Any) -> Mapping[str, str]:
    """The comment beside each field of a dataclass, or the lines above it."""
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        lines = textwrap.dedent(inspect.getsource(base)).splitlines()  # type: ignore[arg-type]
        tree = ast.parse("\n".join(lines)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                meanings[node.target.id] = _comment(lines, node)
    return meanings


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    begin, end = node.lineno - 1, node.end_lineno or node.lineno
    beside = [m[1] for line in lines[begin:end] if (m := re.search(r"\s#\s(.*)$", line))]
    if beside:
        return " ".join(beside)
    above: list[str] = []
    while begin and (line := lines[begin - 1].strip()).startswith("# "):
        above.insert(0, line[2:])
        begin -= 1
    return " ".join(above)
