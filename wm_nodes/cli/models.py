"""`wm models`: list the model presets; `wm models show NAME`: list every setting of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from wm_models.registry import SUMMARIES
from wm_nodes.cli.arguments import parse, require_one_of
from wm_nodes.cli.helptext import table
from wm_nodes.errors import UserError, unknown

SUBCOMMANDS = {"show": "every setting of a preset: type, value and meaning"}


@dataclass(frozen=True)
class Models:
    """List the model presets: for --model of wm train, and model:= of wm launch.

    `wm models show NAME` lists the settings of one, for --set of wm train and set:= of wm launch.
    """


@dataclass(frozen=True)
class Show:
    """List every setting of a model preset, with its type, value and meaning."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The preset."""


def run(words: Sequence[str]) -> int:
    """Run `wm models WORDS`."""
    if words and words[0] == "show":
        return _show(parse(Show, "models show", words[1:]))
    if words and not words[0].startswith("-"):
        raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
    parse(Models, "models", words)
    print(table("models", SUMMARIES.items(), 18))
    return 0


def _show(options: Show) -> int:
    require_one_of("name", options.name, list(SUMMARIES))
    from wm_models.interface.overrides import settings_of, written
    from wm_models.registry import preset

    settings = list(settings_of(preset(options.name)).values())
    rows = [(written({each.name: each.value}), each.kind, each.meaning) for each in settings]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, kind, meaning in rows:
        print(f"{name:{widths[0]}}  {kind:{widths[1]}}  {meaning}".rstrip())
    return 0
