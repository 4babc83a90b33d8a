"""Strict YAML: plain values only, no duplicate keys, a line number for every value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wm_nodes.robots.robot import SpecError

Place = tuple[str | int, ...]  # keys and list indices from the top of the file to a value

INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"
)
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
LONGEST = 60  # characters of a value that an error shows


@dataclass(frozen=True)
class YamlFile:
    """A file's content (tables, lists, text, numbers, true, false, null) and where each value is.

    `lines` has the line of every value, by its place; of a table's entry, that of its key.
    """

    path: Path
    content: Any
    lines: Mapping[Place, int] = field(repr=False)

    def error(self, place: Place, got: str, expected: str, fix: str) -> SpecError:
        """Return the error of one value: one line with file, line number and remedy."""
        what = spelled(place) or "file"
        return _error(self.path, self.line(place), f"{what}: got {got}, expected {expected}. {fix}")

    def line(self, place: Place) -> int:
        """Return the line of a value, or of the nearest table around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_yaml(path: str | Path) -> YamlFile:
    """Return a robot's YAML file; SpecError if it cannot be read or is not strict YAML.

    Only `true` and `false` are bools, only plain decimal numbers are numbers; everything else that
    YAML 1.1 would convert (`on`, `no`, `1:30`, `010`, `1_000`, dates) stays text. Duplicate keys,
    anchors, aliases and tags are refused.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SpecError(
            f"robot {path}: got a file that cannot be read ({reason}), expected a YAML file."
        ) from None
    lines: dict[Place, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        content = None if node is None else _value(node, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _error(path, mark.line + 1 if mark else 1, _syntax(error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _error(
            path, line, f"syntax: got {error.reason}, expected UTF-8 text. Remove the character."
        ) from None
    except RecursionError:
        raise _error(
            path, 1, "syntax: got hundreds of nested lists, expected a few. Remove brackets."
        ) from None
    return YamlFile(path, content, lines)


def spelled(place: Place) -> str:
    """Return a place as text: joints.joint_1.low, home[2]."""
    out = ""
    for part in place:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += ("." if out else "") + (part if WORD.match(part) else shown(part))
    return out


def shown(value: Any) -> str:
    """Return a value as an error shows it: one line, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class _Loader(yaml.SafeLoader):
    """Composes nodes only: `_value` builds their values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # as in its stubs
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or event.anchor or tag:
            got = f"a tag ({tag})" if tag else f"an anchor or alias ({event.anchor})"
            raise _Refused(f"syntax: got {got}", "a plain value", "Write the value out.", event)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}


class _Refused(yaml.MarkedYAMLError):
    """YAML that this loader refuses."""

    def __init__(self, got: str, expected: str, fix: str, at: Any) -> None:
        super().__init__(problem=f"{got}, expected {expected}. {fix}", problem_mark=at.start_mark)


def _value(node: Any, place: Place, lines: dict[Place, int]) -> Any:
    """Return a node's value; note the lines of all that is in it."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(part, (*place, index), lines) for index, part in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Any] = {}
        for key, part in node.value:
            name = _key(key, table, place, lines)
            lines[(*place, name)] = key.start_mark.line + 1
            table[name] = _value(part, (*place, name), lines)
        return table
    return _scalar(node.value) if node.style is None else node.value


def _key(node: Any, table: Mapping[str, Any], place: Place, lines: Mapping[Place, int]) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Refused(
            "syntax: got a list or table as a key", "a name", "Write `name: value`.", node
        )
    name = str(node.value)
    if name in table:
        where = spelled((*place, name))
        raise _Refused(
            f"{where}: got the key twice (first in line {lines[(*place, name)]})",
            "it once", "Remove one of them.", node,
        )  # fmt: skip
    return name


def _scalar(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if text in ("", "~", "null"):
        return None
    if FLOAT.match(text):
        return float(text)
    try:
        return int(text) if INT.match(text) else text
    except ValueError:  # more digits than Python converts
        return text


def _syntax(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _Refused):
        return str(error.problem)
    problem = " ".join(str(error.problem or error.context).split())
    return (
        f"syntax: got {problem!r}, expected YAML. Check indentation, colons, quotes and brackets "
        "here and in the line above."
    )


def _error(path: Path, line: int, what: str) -> SpecError:
    return SpecError(f"robot {path}, line {line}: {what}".replace("\n", " ").replace("\r", " "))
