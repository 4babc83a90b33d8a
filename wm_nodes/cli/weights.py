"""`wm weights`: list shipped weights and those of the runs here, or import checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_nodes.cli.arguments import parse
from wm_nodes.cli.demo import read_cards
from wm_nodes.cli.helptext import table
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import RUNS
from wm_nodes.graphs.weights import read_facts


@dataclass(frozen=True)
class Listing:
    """List weights: the shipped ones, and the newest of every run in runs/.

    `wm weights import` converts checkpoints of other code.

    --weights of wm eval and weights:= of wm launch take the name of shipped weights, or a folder.
    """

    json: bool = False
    """Print JSON instead of text."""


def run(words: Sequence[str]) -> int:
    """Run `wm weights WORDS`."""
    if words and words[0] == "import":
        from wm_nodes.cli.weights_import import run_import

        return run_import(words[1:])
    options = parse(Listing, "weights", words)
    shipped, own = list(_shipped()), list(_of_runs())
    if options.json:
        print(json.dumps({"shipped": shipped, "runs": own}, indent=2))
        return 0
    print(table("shipped", ((row["name"], _summary(row)) for row in shipped), 18))
    if own:
        print("\n" + table("runs", ((row["weights"], _summary(row)) for row in own)))
    return 0


def _shipped() -> Iterator[dict[str, Any]]:
    for card in read_cards():
        facts = read_facts(card.folder)
        yield {
            "name": card.name,
            "task": card.task,
            "robot": facts.robot,
            "model": card.model,
            "version": facts.version,
            "success_rate": card.success_rate,
        }


def _of_runs() -> Iterator[dict[str, Any]]:
    for folder in sorted(Path(RUNS).glob("*/weights")):
        try:
            facts = read_facts(folder)
        except GraphError:
            continue  # a run that has published none yet
        yield {
            "weights": str(folder),
            "task": facts.task,
            "robot": facts.robot,
            "model": facts.preset,
            "version": facts.version,
        }


def _summary(row: dict[str, Any]) -> str:
    text = f"{row['task'] or 'no task'} of {row['robot'] or 'no robot'}, {row['model']}"
    if "success_rate" in row:
        return f"{text}, success {row['success_rate']:.2f}"
    return f"{text}, version {row['version']}"
