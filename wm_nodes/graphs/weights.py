"""What weights on disk say of themselves, read without torch; and the rule for task and model:

they come from the weights unless given, and a launch that contradicts the weights is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_nodes.assets import pretrained
from wm_nodes.errors import closest
from wm_nodes.graphs.graph import Graph, GraphError, Value, show

TAKEN = ("camera", "action_repeat")  # besides task and model; another value is no contradiction


@dataclass(frozen=True)
class WeightFacts:
    """One version: its folder, model preset, and what it was trained with (robot, task, ...)."""

    folder: Path
    version: int
    preset: str
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Name of the task, "" where the manifest says none."""
        return str(self.made_with.get("task", ""))

    @property
    def robot(self) -> str:
        """Name of the robot, "" where the manifest says none."""
        return str(self.made_with.get("robot", ""))


def find_weights(text: str) -> Path:
    """Return the folder of a checkpoint given by path or by the name of a shipped one."""
    shipped = pretrained()
    if text in shipped:
        return shipped[text]
    path = Path(text).expanduser().resolve()
    if path.is_dir():
        return path
    near = closest(text, shipped) or list(shipped)
    names = f"Shipped: {', '.join(near)}." if near else "None ship with this version."
    raise GraphError(f"weights: there is no folder {text!r}. {names}")


def read_facts(folder: Path) -> WeightFacts:
    """Return what a version's folder, or the newest version of a store, says. GraphError."""
    try:
        latest = folder / "latest"
        place = folder / f"{int(latest.read_text()):010d}" if latest.exists() else folder
        manifest = json.loads((place / "manifest.json").read_text())
        made_with = manifest.get("extra") or {}
        if not isinstance(made_with, dict):
            raise TypeError
        return WeightFacts(place, int(manifest["version"]), str(manifest["preset"]), made_with)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise GraphError(
            f"weights: {folder} holds none of ours (no manifest.json that can be read). "
            "Right: a version's folder, or a run's weights folder."
        ) from None


def versions(folder: Path) -> list[int]:
    """Return the versions in a run's weights folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def arguments_of(graph: Graph, given: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments that `weights` in `given` decide and `given` does not: the task and the
    model, the robot of a graph that has a choice, and for a graph with a task its camera and action
    repeat. GraphError: `given` contradicts them."""
    if not given.get("weights"):
        return {}
    facts = read_facts(find_weights(str(given["weights"])))
    known = {argument.name: argument for argument in graph.arguments}
    if "model" in given and given["model"] != facts.preset:
        raise GraphError(
            f"model: given {given['model']!r}, but the weights in {facts.folder} are of model "
            f"{facts.preset!r}. Right: leave model out, or other weights."
        )
    found: dict[str, Any] = {"model": facts.preset}
    if "robot" in known and known["robot"].choices and facts.robot:
        if given.get("robot", facts.robot) != facts.robot:
            raise GraphError(
                f"robot: got {given['robot']!r}, but the weights in {facts.folder} were made for "
                f"{facts.robot!r}, expected the same. Leave robot out, or take other weights."
            )
        found["robot"] = facts.robot
    if "task" in known and facts.task:
        if given.get("task", facts.task) != facts.task:
            raise GraphError(
                f"task: given {show(given['task'])!r}, but the weights in {facts.folder} were made "
                f"for task {facts.task!r}. Right: leave task out, or other weights."
            )
        if known["task"].choices and facts.task not in known["task"].choices:
            raise GraphError(
                f"weights: those in {facts.folder} are for task {facts.task!r} of robot "
                f"{facts.robot!r}, which graph {graph.name!r} does not have. Right: other weights, "
                "or the graph of that robot."
            )
        made = {name: facts.made_with[name] for name in TAKEN if name in facts.made_with}
        found |= {"task": facts.task, **made}
    return {
        name: known[name].parse(value)
        for name, value in found.items()
        if name in known and name not in given
    }
