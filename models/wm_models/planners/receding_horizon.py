"""Execute the first actions of a plan, then search again from what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_models.interface.checked import Checked
from wm_models.interface.planner import Cost, Planner, PlanState
from wm_models.interface.state import State
from wm_models.interface.world_model import WorldModel


@dataclass(frozen=True)
class Pending(PlanState):
    """What :class:`Receding` hands from one decision to the next: ``mean`` for the inner planner's
    next start, ``plan`` [B, H', A] not yet executed, ``left`` actions of it before that start."""

    plan: Tensor | None = None
    left: int = 0


@dataclass(frozen=True)
class Receding:
    """Search once per ``execute_k`` decisions; in between hand out the rest of the plan.

    Call :meth:`plan` once per decision, with the warm start that the last call returned (None at an
    episode's start): it stays a function of its arguments. ``reuse`` "shift" starts each search at
    the last mean, moved forward by the executed actions; "none" starts anew.
    """

    planner: Planner
    execute_k: int = 1
    reuse: str = "shift"

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("execute_k")
        if self.execute_k > self.planner.horizon:
            check.refuse("execute_k", f"1 to {self.planner.horizon}, the planner's horizon")
        check.choice("reuse", ("shift", "none"))

    @property
    def horizon(self) -> int:
        """Actions in a fresh plan."""
        return self.planner.horizon

    @torch.inference_mode()
    def plan(
        self,
        model: WorldModel,
        state: State,
        cost: Cost,
        goal: Mapping[str, Tensor] | None = None,
        warm: PlanState | None = None,
        budget_s: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, PlanState, dict[str, Tensor]]:
        """Actions [B, H, A] of a fresh plan, or those that are left of the last one (fewer than H)
        where the goal is still the same.

        Info is the search's own and "searched" [], 1 or 0.
        """
        if (
            isinstance(warm, Pending)
            and warm.left > 0
            and warm.plan is not None
            and bool(warm.serves(goal).all())
        ):
            rest = Pending(warm.mean, warm.goal, warm.plan[:, 1:], warm.left - 1)
            return warm.plan, rest, {"searched": torch.tensor(0)}
        start = warm if self.reuse == "shift" else None
        actions, after, info = self.planner.plan(
            model, state, cost, goal, start, budget_s, generator
        )
        mean = after.shifted(self.execute_k).mean  # as it will be seen at the next search
        rest = Pending(mean, goal, actions[:, 1:], self.execute_k - 1)
        return actions, rest, {**info, "searched": torch.tensor(1)}
