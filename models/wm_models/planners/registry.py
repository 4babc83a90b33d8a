"""Planners by name: class, source in the replay log, summary. The only such list.

Standard library only: graphs, commands and the robot node read it without importing torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class PlannerEntry:
    """One planner.

    path: its class, as module:Class. source: what a replay log calls its actions; `policy` where a
    network gives the action, `planner` where a search in imagination does. fields: of its class
    that the common settings horizon, samples and iterations set, where they have other names.
    """

    path: str
    source: Literal["policy", "planner"]
    summary: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> type[Any]:
        """Return the class. This imports torch."""
        module, _, name = self.path.partition(":")
        found: type[Any] = getattr(import_module(module), name)
        return found


PLANNERS: Mapping[str, PlannerEntry] = {
    "actor": PlannerEntry(
        "wm_models.planners.actor:ActorPlanner", "policy", "The learned actor, rolled out."
    ),
    "cem": PlannerEntry("wm_models.planners.cem:CEM", "planner", "Cross-entropy method."),
    "mppi": PlannerEntry(
        "wm_models.planners.mppi:MPPI", "planner", "Model predictive path integral control."
    ),
    "gd": PlannerEntry(
        "wm_models.planners.gradient:GD",
        "planner",
        "Gradient descent through the model.",
        fields={"samples": "restarts", "iterations": "steps"},
    ),
}
SEARCHES = tuple(name for name, entry in PLANNERS.items() if entry.source == "planner")
