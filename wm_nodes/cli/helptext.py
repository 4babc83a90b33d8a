"""The help text of every command: usage, description, a table of options, examples."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from wm_nodes.cli.examples import EXAMPLES
from wm_nodes.cli.options import Option, dataclass_options

NARROW, WIDE = 60, 100  # columns
LEFT = 26  # columns of the names


def command_help(kind: type, command: str) -> str:
    """Return the help of a command whose arguments are a dataclass."""
    options = dataclass_options(kind)
    positional = [option for option in options if option.positional]
    named = [option for option in options if not option.positional]
    required = [option for option in named if option.default is None]
    words = [_word(option) for option in (*positional, *required)]
    description = inspect.cleandoc(kind.__doc__ or "")
    parts = [" ".join(["usage: wm", command, *words, "[options]"]), _paragraphs(description)]
    if positional:
        parts.append(table("arguments", ((option.name, _text(option)) for option in positional)))
    rows = [("--help", "show this text"), *((_left(option), _text(option)) for option in named)]
    parts.append(table("options", rows))
    if lines := EXAMPLES.get(command):
        parts.append(examples(lines))
    return "\n\n".join(parts)


def group_help(command: str, commands: Mapping[str, str]) -> str:
    """Return the help of a command that only groups subcommands."""
    parts = [f"usage: wm {command} COMMAND ...", table("commands", commands.items(), 14)]
    return "\n\n".join([*parts, examples(EXAMPLES[command]), see(f"{command} COMMAND")])


def see(command: str) -> str:
    """Return a reference to the help of a command."""
    return f"See `wm {command} --help` for details."


def table(title: str, rows: Iterable[tuple[str, str]], left: int = LEFT) -> str:
    """Return names and their texts below a title; a long name gets its own line."""
    lines = [f"{title}:"]
    for name, text in rows:
        body = textwrap.wrap(text, width() - left, break_on_hyphens=False) or [""]
        if len(name) > left - 4:
            lines.append(f"  {name}")
        else:
            lines.append(f"  {name:{left - 2}s}{body.pop(0)}".rstrip())
        lines += [" " * left + line for line in body]
    return "\n".join(lines)


def width() -> int:
    """Return the width of help texts in columns."""
    return min(WIDE, max(NARROW, shutil.get_terminal_size().columns - 1))


def _paragraphs(text: str) -> str:
    return "\n\n".join(
        textwrap.fill(" ".join(part.split()), width(), break_on_hyphens=False)
        for part in text.split("\n\n")
    )


def _left(option: Option) -> str:
    if option.switch:
        return "--no-" + option.name[2:] if option.default == "true" else option.name
    return f"{option.name} {option.metavar}"


def _word(option: Option) -> str:
    if option.positional:
        return option.name if option.default is None else f"[{option.name}]"
    return f"{option.name} {option.metavar}"


def _text(option: Option) -> str:
    if option.default is None:
        return f"{option.text} (required)"
    if option.switch:
        return f"{option.text} (default: on)" if option.default == "true" else option.text
    return f"{option.text} (default: {option.default})" if option.default else option.text


def examples(lines: Sequence[str]) -> str:
    """Return the last part of a help text."""
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])
