"""`wm demo`: run a shipped agent through the whole graph, then write a report."""

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
    """Description of a shipped checkpoint, as models/pretrained/NAME/card.json.

    baselines: success rates of policies that ignore images, measured on the same episodes. For an
    arm, success is that at the end of an episode.
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

    def summary(self) -> str:
        """Return task and success rates in one line."""
        blind = ", ".join(f"{name} {rate:.2f}" for name, rate in self.baselines.items())
        text = f"{self.name}: {self.task}, success {self.success_rate:.2f} after training"
        return f"{text}; blind baselines: {blind}." if blind else f"{text}."


def run(words: Sequence[str]) -> int:
    """Run `wm demo WORDS`."""
    options = parse(Demo, "demo", words)
    require("episodes", options.episodes, 1)
    require("seed", options.seed, 0, 2**31 - 1)
    arguments = {
        "train": "false",
        "report": "true",
        "episodes": str(options.episodes),
        "composition": options.composition,
        "seed": str(options.seed),
        "run": f"demo-{datetime.now():%Y%m%d-%H%M%S}",
    }
    cards = [card for card in read_cards() if card.graph == GRAPH]
    card = choose(cards, options.weights)
    if card is None:
        print("no checkpoint ships with this version: the actions are random", flush=True)
    else:
        print(card.summary(), flush=True)
        arguments |= {"task": card.task, "model": card.model, "weights": card.name}
        arguments |= card.arguments

    from wm_nodes.graphs.launch.supervisor import launch

    code = launch(find_graph(GRAPH), [f"{name}:={value}" for name, value in arguments.items()])
    return show_summary(Path(RUNS) / arguments["run"], card) if code == 0 else code


def show_summary(run: Path, card: Card | None) -> int:
    """Print the figures of a finished run; return 1 where it was interrupted (Ctrl-C)."""
    file = run / "metrics" / "summary.json"
    if not file.is_file():
        print("no summary: the run ended before its last episode")
        return 1
    summary = json.loads(file.read_text())
    low, high = summary["success_interval_95"]
    print(
        f"success {summary['success_rate']:.2f} [{low:.2f}, {high:.2f}] (95 %) over "
        f"{summary['episodes_judged']} episodes, return {summary['mean_return']:.0f}\n"
        f"control latency p50 {summary['latency_p50_ms']:.1f} ms, "
        f"p99 {summary['latency_p99_ms']:.1f} ms"
    )
    if card is not None and card.baselines:
        beaten = [name for name, rate in card.baselines.items() if rate < summary["success_rate"]]
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
    """Return the named card; without a name that of the best solved vision task, else the best."""
    if name:
        by_name = {card.name: card for card in cards}
        if name not in by_name:
            known = by_name or ["none"]
            raise UserError(f"--weights: {unknown('shipped checkpoint', name, known)}")
        return by_name[name]
    solved = [card for card in cards if card.vision and card.success_rate >= GOOD]
    candidates = solved or [card for card in cards if not card.vision] or list(cards)
    return max(candidates, key=lambda card: card.success_rate, default=None)
