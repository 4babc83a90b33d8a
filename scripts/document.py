"""Write tables of README.md, docs/configuration.md and docs/models.md from the code.

`python scripts/document.py`
Each table is between `<!-- name -->` and `<!-- end -->`; the text around them is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from wm_models.registry import ENTRIES
from wm_nodes.cli.models import facts, papers
from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.graph import Argument
from wm_nodes.ros.node import ManagedNode, NodeParams

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "configuration.md"
README = ROOT / "README.md"
MODELS = ROOT / "docs" / "models.md"
NODES = (
    "camera encoder world_model policy agent batched_agent robot recorder replay trainer "
    "demonstrator monitor"
)
SHORT = 8  # longer lists of choices are counted only


def tables() -> dict[str, str]:
    """Return name -> table in Markdown."""
    head = ("argument", "default", "what it does")
    by_name = {name: _table(head, _graph(name)) for name in NAMES}
    by_name["nodes"] = "\n\n".join(_node(name) for name in NODES.split())
    by_name["presets"] = _table(PRESET_HEAD, map(_preset, ENTRIES))
    return by_name


PRESET_HEAD = ("preset", "parameters", "actions", "abilities", "what it is")
FAMILY_HEAD = ("model", "presets, parameters for 4 actions", "actions", "abilities")


def _preset(name: str) -> tuple[str, ...]:
    own = facts(name)
    abilities = ", ".join(own.abilities)
    return f"`{name}`", own.size(), own.actions(), abilities, ENTRIES[name].summary


def families() -> str:
    """Return the table of model families: paper, presets and abilities."""
    rows = []
    for paper in papers():
        own = {name: facts(name) for name, entry in ENTRIES.items() if entry.paper == paper}
        presets = ", ".join(f"`{name}` {each.size()}" for name, each in own.items())
        kinds = " or ".join(dict.fromkeys(each.actions() for each in own.values()))
        abilities = dict.fromkeys(ability for each in own.values() for ability in each.abilities)
        rows.append((paper, presets, kinds, ", ".join(abilities)))
    return _table(FAMILY_HEAD, rows)


def fill(text: str, by_name: dict[str, str], file: Path = FILE) -> str:
    """Return the text with every table replaced; a missing mark is an error."""
    for name, table in by_name.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = marks.subn(_between(table), text)
        if count != 1:
            raise SystemExit(f"{file}: expected one <!-- {name} --> ... <!-- end -->, got {count}")
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


def pages() -> dict[Path, str]:
    """Return every page with generated tables, as it should be."""
    models = {"models": families()}
    return {
        FILE: fill(FILE.read_text(), tables()),
        **{file: fill(file.read_text(), models, file) for file in (README, MODELS)},
    }


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
