"""Planners: from a model's state to actions, by the learned actor or by search in imagination.

The names below are loaded when they are first used, so that `registry` is read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wm_models.planners.registry import PLANNERS, planner

if TYPE_CHECKING:
    from wm_models.planners.actor import ActorPlanner, finite_action
    from wm_models.planners.cem import CEM
    from wm_models.planners.costs import (
        ActionPenalty,
        BoxPenalty,
        DisagreementPenalty,
        GoalCost,
        ReturnCost,
        Sum,
    )
    from wm_models.planners.gradient import GD
    from wm_models.planners.mppi import MPPI
    from wm_models.planners.population import Search
    from wm_models.planners.receding_horizon import CurrentPlan, Receding

__all__ = [
    "CEM",
    "GD",
    "MPPI",
    "PLANNERS",
    "ActionPenalty",
    "ActorPlanner",
    "BoxPenalty",
    "CurrentPlan",
    "DisagreementPenalty",
    "GoalCost",
    "Receding",
    "ReturnCost",
    "Search",
    "Sum",
    "finite_action",
    "planner",
]
_MODULES = {
    "actor": ("ActorPlanner", "finite_action"),
    "cem": ("CEM",),
    "costs": (
        "ActionPenalty",
        "BoxPenalty",
        "DisagreementPenalty",
        "GoalCost",
        "ReturnCost",
        "Sum",
    ),
    "gradient": ("GD",),
    "mppi": ("MPPI",),
    "receding_horizon": ("CurrentPlan", "Receding"),
    "population": ("Search",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
