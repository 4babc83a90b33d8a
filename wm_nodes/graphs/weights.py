"""Facts about weights on disk, read without torch.

Task and model of a launch are those of its weights; a launch that contradicts them is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_models.registry import is_action_free
from wm_nodes.assets import pretrained
from wm_nodes.errors import closest
from wm_nodes.graphs.graph import Graph, GraphError, Value, show
from wm_nodes.robots.cameras.names import camera_names

TAKEN = (
    "camera",
    "action_repeat",
    "background",
)  # besides task and model; another value is no contradiction


@dataclass(frozen=True)
class WeightFacts:
    """One version: its folder, model preset, and what it was trained with (robot, task, ...)."""

    folder: Path
    version: int
    preset: str
    trained_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Name of the task, "" where the manifest has none."""
        return str(self.trained_with.get("task", ""))

    @property
    def robot(self) -> str:
        """Name of the robot, "" where the manifest has none."""
        return str(self.trained_with.get("robot", ""))

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that the model sees; empty where the manifest has none."""
        with suppress(ValueError):
            return camera_names(str(self.trained_with.get("camera", "")))
        return ()


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
    raise GraphError(f"weights: got {text!r}, expected a folder or a shipped name. {names}")


def read_facts(folder: Path) -> WeightFacts:
    """Return the facts of a version's folder, or of a store's newest version. GraphError."""
    try:
        latest = folder / "latest"
        place = folder / f"{int(latest.read_text()):010d}" if latest.exists() else folder
        manifest = json.loads((place / "manifest.json").read_text())
        trained_with = manifest.get("extra") or {}
        if not isinstance(trained_with, dict):
            raise TypeError
        return WeightFacts(place, int(manifest["version"]), str(manifest["preset"]), trained_with)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise GraphError(
            f"weights: got {folder} without a readable manifest.json, expected a version's "
            "folder, or a run's weights folder."
        ) from None


def versions(folder: Path) -> list[int]:
    """Return the versions in a run's weights folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def arguments_of(graph: Graph, arguments: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments that `arguments` leaves to its weights: task and model, the robot of a
    graph that has a choice, and for a graph with a task its camera and action repeat.

    GraphError: `arguments` contradicts the weights.
    """
    if not arguments.get("weights"):
        return {}
    facts = read_facts(find_weights(str(arguments["weights"])))
    known = {argument.name: argument for argument in graph.arguments}
    if "task" in known and is_action_free(facts.preset):
        raise GraphError(
            f"weights: got {facts.folder} of model {facts.preset!r}, which learns from videos and "
            "does not act, expected weights of a model that acts. Begin with these as "
            "pretrained:=FOLDER."
        )
    decided: dict[str, Any] = {"model": facts.preset}
    if "robot" in known and known["robot"].choices and facts.robot:
        decided["robot"] = facts.robot
    if "task" in known and facts.task:
        decided["task"] = facts.task
    for name, value in decided.items():
        if arguments.get(name, value) != value:
            raise GraphError(
                f"{name}: got {show(arguments[name])!r}, expected {value!r}, the {name} of the "
                f"weights in {facts.folder}. Leave {name} out, or take other weights."
            )
    if "task" in decided:
        if known["task"].choices and facts.task not in known["task"].choices:
            raise GraphError(
                f"weights: got {facts.folder} of task {facts.task!r} of robot {facts.robot!r}, "
                f"expected a task of graph {graph.name!r}. Take other weights, or the graph of "
                "that robot."
            )
        decided |= {name: facts.trained_with[name] for name in TAKEN if name in facts.trained_with}
    return {
        name: known[name].parse(value)
        for name, value in decided.items()
        if name in known and name not in arguments
    }
