"""Receding horizon: execute the first actions of a plan, then search from its shifted rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wm_models.interface.checked import Checked
from wm_models.interface.planner import Cost, Planner, PlanState
from wm_models.interface.state import State
from wm_models.interface.world_model import WorldModel


def search_due(executed: int, execute_k: int, planned: int) -> bool:
    """Whether a new search is due after ``executed`` of the ``planned`` actions of a plan, where
    ``execute_k`` are executed per search."""
    return not 0 < executed < min(execute_k, planned)


def shifted_start(plan: PlanState, executed: int, frameskip: int = 1) -> PlanState:
    """The warm start [B, H, f A] of the next search: the plan shifted by ``executed`` robot actions
    of A numbers, of which a model action holds ``frameskip`` side by side. Zeros fill the end."""
    robot = PlanState(plan.mean.reshape(len(plan.mean), -1, plan.mean.shape[-1] // frameskip))
    return replace(plan, mean=robot.shifted(executed).mean.reshape(plan.mean.shape))


@dataclass(frozen=True)
class CurrentPlan(PlanState):
    """The warm start of :class:`Receding`: ``mean`` of the next search, and the current ``plan``
    [B, H, A], of which ``executed`` actions are executed before the next call."""

    plan: Tensor | None = None
    executed: int = 0


@dataclass(frozen=True)
class Receding:
    """Search once per ``execute_k`` steps; in between return the rest of the current plan.

    Call :meth:`plan` once per step, with the warm start of the last call (None at the start of an
    episode): it is a function of its arguments. ``reuse`` "shift" starts each search at the last
    mean, shifted by the executed actions; "none" searches without a warm start.
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
        """Actions [B, H, A] of a fresh plan, or the rest of the current one (fewer than H) for the
        same goal.

        Info is the search's own and "searched" [], 1 or 0.
        """
        if isinstance(warm, CurrentPlan) and warm.plan is not None:
            due = search_due(warm.executed, self.execute_k, warm.plan.shape[1])
            if not due and bool(warm.serves(goal).all()):
                rest = warm.plan[:, warm.executed :]
                return (
                    rest,
                    replace(warm, executed=warm.executed + 1),
                    {"searched": torch.tensor(0)},
                )
        start = warm if self.reuse == "shift" else None
        actions, after, info = self.planner.plan(
            model, state, cost, goal, start, budget_s, generator
        )
        mean = shifted_start(after, self.execute_k).mean
        return actions, CurrentPlan(mean, goal, actions, 1), {**info, "searched": torch.tensor(1)}
