"""`wm demo`: a shipped agent acts through the whole graph, then a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from wm_nodes.assets import pretrained
from wm_nodes.cli.arguments import parse, require
from wm_nodes.errors import UserError, unknown
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.launch.run_folder import RUNS

GRAPH = "sim_metaworld"
GOOD = 0.8  # a vision task counts as solved from this success rate on


@dataclass(frozen=True)
class Demo:
    """Watch a shipped agent act through the whole ROS graph; leaves a report folder."""

    weights: str = ""
    """Name of a shipped checkpoint; empty: the best vision task, else drawer-close."""
    episodes: int = 10
    """Episodes to show."""
    composition: Literal["split", "fused"] = "split"
    """split: four processes; fused: one."""
    seed: int = 0
    """Seed of the episodes."""


@dataclass(frozen=True)
class Card:
    """What models/pretrained/NAME/card.json says of a shipped checkpoint.

    baselines: success rates of the policies that do not look, measured on the same episodes. An
    arm's rates are of the end of an episode.
    """

    name: str
    folder: Path
    task: str
    model: str
    vision: bool
    success_rate: float
    baselines: dict[str, float]
    arguments: dict[str, Any]
    graph: str = "sim_metaworld"

    def told(self) -> str:
        """Return two sentences for people."""
        blind = ", ".join(f"{name} {rate:.2f}" for name, rate in self.baselines.items())
        says = f"{self.name}: {self.task}, success {self.success_rate:.2f} when it was trained"
        return f"{says}; without looking: {blind}." if blind else f"{says}."


def run(words: Sequence[str]) -> int:
    """Run `wm demo WORDS`."""
    wanted = parse(Demo, "demo", words)
    require("episodes", wanted.episodes, 1)
    require("seed", wanted.seed, 0, 2**31 - 1)
    given = {
        "train": "false",
        "report": "true",
        "episodes": str(wanted.episodes),
        "composition": wanted.composition,
        "seed": str(wanted.seed),
        "run": f"demo-{datetime.now():%Y%m%d-%H%M%S}",
    }
    cards = [card for card in read_cards() if card.graph == GRAPH]
    card = choose(cards, wanted.weights)
    if card is None:
        print("no checkpoint ships with this version: the robot acts at random", flush=True)
    else:
        print(card.told(), flush=True)
        given |= {"task": card.task, "model": card.model, "weights": card.name, **card.arguments}

    from wm_nodes.graphs.launch.supervisor import launch

    code = launch(find_graph(GRAPH), [f"{key}:={word}" for key, word in given.items()])
    return show_summary(Path(RUNS) / given["run"], card) if code == 0 else code


def show_summary(run: Path, card: Card | None) -> int:
    """Print the figures of a finished run; 1 where it did not come to its end (Ctrl-C)."""
    file = run / "metrics" / "summary.json"
    if not file.is_file():
        print("no summary: the run was ended before its last episode")
        return 1
    found = json.loads(file.read_text())
    low, high = found["success_interval_95"]
    print(
        f"success {found['success_rate']:.2f} [{low:.2f}, {high:.2f}] (95 %) over "
        f"{found['episodes_judged']} episodes, return {found['mean_return']:.0f}\n"
        f"control latency p50 {found['latency_p50_ms']:.1f} ms, "
        f"p99 {found['latency_p99_ms']:.1f} ms"
    )
    if card is not None and card.baselines:
        beaten = [name for name, rate in card.baselines.items() if rate < found["success_rate"]]
        print(f"better than these blind baselines: {', '.join(beaten) or 'none'}")
    print(f"report: {run / 'report'}")
    return 0


def read_cards() -> list[Card]:
    """Return the cards of all shipped checkpoints."""
    cards = []
    for name, folder in pretrained().items():
        file = folder / "card.json"
        if not file.is_file():
            continue
        content = json.loads(file.read_text())
        cards.append(
            Card(
                name=name,
                folder=folder,
                task=content["task"],
                model=content["model"],
                vision=bool(content["vision"]),
                success_rate=float(content["success_rate"]),
                baselines=dict(content.get("baselines", {})),
                arguments=dict(content.get("arguments", {})),
                graph=str(content.get("graph", Card.graph)),
            )
        )
    return cards


def choose(cards: Sequence[Card], name: str = "") -> Card | None:
    """Return the card asked for; else the best vision task that is solved, else the best other."""
    if name:
        found = {card.name: card for card in cards}
        if name not in found:
            raise UserError(f"--weights: {unknown('shipped checkpoint', name, found or ['none'])}")
        return found[name]
    solved = [card for card in cards if card.vision and card.success_rate >= GOOD]
    rest = solved or [card for card in cards if not card.vision] or list(cards)
    return max(rest, key=lambda card: card.success_rate, default=None)
