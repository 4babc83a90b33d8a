"""`wm models`: the model presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wm_models.registry import SUMMARIES
from wm_nodes.cli.arguments import parse
from wm_nodes.cli.helptext import table


@dataclass(frozen=True)
class Models:
    """List the model presets: for --model of wm train, and model:= of wm launch."""


def run(words: Sequence[str]) -> int:
    """Run `wm models WORDS`."""
    parse(Models, "models", words)
    print(table("models", SUMMARIES.items(), 18))
    return 0
