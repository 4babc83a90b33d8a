"""Planners by name: class, source in the replay log, summary. The only such list.

Standard library only: graphs, commands and the robot node read it without importing torch, which
:func:`planner` imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from wm_models.errors import unknown_name

if TYPE_CHECKING:
    from wm_models.interface.planner import Planner


@dataclass(frozen=True)
class PlannerEntry:
    """One planner.

    path: its class, as module:Class. source: of its actions in a replay log; `policy` for a
    network, `planner` for a search in imagination. fields: the class's own names of the common
    settings horizon, samples and iterations, where they differ. discrete: it can choose from a set
    of discrete actions.
    """

    path: str
    source: Literal["policy", "planner"]
    summary: str
    fields: Mapping[str, str] = field(default_factory=dict)
    discrete: bool = False

    def load(self) -> type[Any]:
        """Return the class. This imports torch."""
        module, _, name = self.path.partition(":")
        kind: type[Any] = getattr(import_module(module), name)
        return kind


PLANNERS: Mapping[str, PlannerEntry] = {
    "actor": PlannerEntry(
        "wm_models.planners.actor:ActorPlanner",
        "policy",
        "The learned actor, rolled out.",
        discrete=True,
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


def continuous_search(name: str) -> str:
    """The refusal of a planner that searches continuous actions, for a set of discrete ones."""
    able = ", ".join(each for each, entry in PLANNERS.items() if entry.discrete)
    return (
        f"planner: got {name!r}, which searches continuous actions only, expected {able} for "
        "discrete actions. Choose it, or a task with continuous actions."
    )


def planner(name: str, **options: Any) -> Planner:
    """The planner of a name in ``PLANNERS``; ``options`` are fields of its class.

    ModelError: an unknown name or option, with the nearest one, or a value out of range.
    """
    if name not in PLANNERS:
        raise unknown_name("planner", name, PLANNERS)
    kind = PLANNERS[name].load()
    names = [f.name for f in fields(kind)]
    for option in options:
        if option not in names:
            raise unknown_name(f"planner {name}: option", option, names)
    instance: Planner = kind(**options)
    return instance
