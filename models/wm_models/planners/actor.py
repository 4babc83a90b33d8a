"""The learned actor behind the planner's contract: no search at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wm_models.errors import ModelError, PlanRefused
from wm_models.interface.checked import Checked, checked_budget
from wm_models.interface.planner import Cost, PlanState
from wm_models.interface.state import State
from wm_models.interface.world_model import WorldModel


@dataclass(frozen=True)
class ActorPlanner:
    """One action of ``model.act``: the mode, or a sample (``explore``). The cost is not used."""

    explore: bool = False

    horizon: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Checked(self).flag("explore")

    @torch.inference_mode()
    def plan(
        self,
        model: WorldModel,
        state: State,
        cost: Cost | None = None,
        goal: Mapping[str, Tensor] | None = None,
        warm: PlanState | None = None,
        budget_s: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, PlanState, dict[str, Tensor]]:
        """Actions [B, 1, A]; ``warm`` and ``budget_s`` change nothing. PlanRefused where the actor
        gives numbers that are not finite."""
        checked_budget(budget_s)
        if not model.spec.has_actor:
            raise ModelError("ActorPlanner: this model has no actor; plan with cem or mppi.")
        action = model.act(state, mode=not self.explore, generator=generator)
        plan = finite_action(action).clamp(*model.spec.bounds(action))[:, None]
        return plan, PlanState(plan), {}


def finite_action(action: Tensor) -> Tensor:
    """The actor's action [B, A], passed through; PlanRefused where it is not finite."""
    if not bool(action.isfinite().all()):
        raise PlanRefused(
            "actor: no plan: got an action that is not finite, expected finite numbers. Give other "
            "weights, or restart the episode."
        )
    return action
