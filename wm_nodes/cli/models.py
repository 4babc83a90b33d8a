"""`wm models`: list the model presets; `wm models show NAME`: list every setting of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from wm_models.registry import ENTRIES, SUMMARIES
from wm_nodes.cli.arguments import parse, require_one_of
from wm_nodes.cli.helptext import table
from wm_nodes.errors import UserError, unknown

SUBCOMMANDS = {"show": "every setting of a preset: type, value and meaning"}


@dataclass(frozen=True)
class Models:
    """List the model presets with their parameters (for 4 actions), inputs, abilities and papers:
    for --model of wm train, and model:= of wm launch.

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
    print("\n\n".join(_family(paper) for paper in papers()))
    return 0


ACTIONS = 4  # of the robot that parameters are counted for


@dataclass(frozen=True)
class Facts:
    """What a preset is. parameters: of its model for `ACTIONS` actions, slow copies left out."""

    parameters: int
    inputs: tuple[str, ...]
    abilities: tuple[str, ...]
    discrete: bool

    def size(self) -> str:
        """Return the number of parameters, shortened."""
        if self.parameters < 10_000:
            return str(self.parameters)
        millions = self.parameters / 1e6
        return f"{millions:.0f}M" if millions >= 10 else f"{millions:.2g}M"

    def actions(self) -> str:
        """Return the kind of its actions."""
        return "discrete" if self.discrete else "continuous"


def facts(name: str) -> Facts:
    """Build a preset's model without memory for its weights, and return what it is."""
    import torch

    from wm_models.registry import preset

    with torch.device("meta"):
        model = preset(name).build(ACTIONS)
    spec = model.spec
    abilities = {
        "reward": spec.has_reward,
        "value": spec.has_value,
        "actor": spec.has_actor,
        "end of episode": spec.has_continue,
        "goal images": spec.has_goal,
        "decoder": spec.has_decoder,
    }
    return Facts(
        sum(parameter.numel() for parameter in model.parameters()),
        tuple(spec.obs_keys),
        tuple(name for name, able in abilities.items() if able),
        spec.discrete,
    )


def papers() -> tuple[str, ...]:
    """Return the source of each family, in the registry's order."""
    return tuple(dict.fromkeys(entry.paper for entry in ENTRIES.values()))


def _family(paper: str) -> str:
    """Return the presets of a family with what they are."""
    rows = []
    for name, entry in ENTRIES.items():
        if entry.paper == paper:
            own = facts(name)
            able = ", ".join(own.abilities)
            about = f"{own.size()}, {' and '.join(own.inputs)}, {own.actions()}: {able}."
            rows.append((name, f"{entry.summary} {about}"))
    return table(paper, rows, 27)


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
