"""Planners: from a model's state to actions, by the learned actor or by search in imagination."""

from wm_models.planners.actor import ActorPlanner
from wm_models.planners.begun import begun
from wm_models.planners.cem import CEM
from wm_models.planners.costs import (
    ActionPenalty,
    BoxPenalty,
    DisagreementPenalty,
    GoalCost,
    ReturnCost,
    Sum,
)
from wm_models.planners.factory import PLANNERS, planner
from wm_models.planners.gd import GD
from wm_models.planners.mppi import MPPI
from wm_models.planners.receding import Pending, Receding
from wm_models.planners.search import Search

__all__ = [
    "CEM",
    "GD",
    "MPPI",
    "PLANNERS",
    "ActionPenalty",
    "ActorPlanner",
    "BoxPenalty",
    "DisagreementPenalty",
    "GoalCost",
    "Pending",
    "Receding",
    "ReturnCost",
    "Search",
    "Sum",
    "begun",
    "planner",
]
