"""Write the tables of docs/configuration.md from the code: `python scripts/document.py`.

Each table is between `<!-- name -->` and `<!-- end -->`; the text around them is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from wm_models.registry import PRESETS
from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.graph import Argument
from wm_nodes.ros.node import ManagedNode, NodeParams

FILE = Path(__file__).parent.parent / "docs" / "configuration.md"
NODES = "camera encoder world_model policy agent robot recorder replay trainer demonstrator monitor"
SHORT = 8  # longer lists of choices are counted only


def tables() -> dict[str, str]:
    """Return name -> table in Markdown."""
    head = ("argument", "default", "what it does")
    by_name = {name: _table(head, _graph(name)) for name in NAMES}
    by_name["nodes"] = "\n\n".join(_node(name) for name in NODES.split())
    presets = ((f"`{name}`", preset.summary) for name, preset in PRESETS.items())
    by_name["presets"] = _table(("preset", "what it is"), presets)
    return by_name


def fill(text: str, by_name: dict[str, str]) -> str:
    """Return the text with every table replaced; a missing mark is an error."""
    for name, table in by_name.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = marks.subn(_between(table), text)
        if count != 1:
            raise SystemExit(f"{FILE}: expected one <!-- {name} --> ... <!-- end -->, got {count}")
    return text


def _between(table: str) -> Callable[[re.Match[str]], str]:
    """Return a replacement that keeps the two marks around a table."""
    return lambda marks: f"{marks[1]}\n{table}\n\n{marks[2]}"


def _graph(name: str) -> Iterator[tuple[str, ...]]:
    for argument in find_graph(name).arguments:
        yield f"`{argument.name}`", _code(argument.shown()), _described(argument)


def _described(argument: Argument) -> str:
    text = argument.right()
    if len(argument.choices) > SHORT:
        text = f"one of {len(argument.choices)}: `--show-args`"
    plain = isinstance(argument.default, str) and not argument.choices
    right = "" if plain else f" {text[0].upper()}{text[1:]}."
    return f"{argument.description}{right}{' *fixed*' if argument.fixed else ''}"


def _node(name: str) -> str:
    module = import_module(f"wm_nodes.nodes.{name}")
    kind = next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
        if issubclass(value, ManagedNode)
    )
    common = {spec.name for spec in fields(NodeParams)}
    rows = []
    for spec in fields(kind.PARAMS):
        if spec.name not in common:
            rows.append((f"`{spec.name}`", _code(_shown(spec.default)), _range(spec.metadata)))
    return f"**{name}**\n\n" + _table(("parameter", "default", "what it does"), rows)


def _range(meta: Mapping[str, Any]) -> str:
    description: str = meta["description"]
    low, high, choices = (meta[k] for k in ("low", "high", "choices"))
    right = f" One of {', '.join(choices)}." if choices else ""
    if low is not None or high is not None:
        ends = ["" if low is None else f"from {low}", "" if high is None else f"to {high}"]
        bounds = " ".join(filter(None, ends))
        right = f" {bounds[0].upper()}{bounds[1:]}."
    return description + right


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    FILE.write_text(fill(FILE.read_text(), tables()))
