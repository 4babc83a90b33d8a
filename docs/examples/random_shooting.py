"""A planner of your own: draw candidates, imagine each, return the cheapest.

    pytest docs/examples/test_random_shooting.py        # it fulfils the Planner contract

With an entry in wm_models/planners/registry.py it is available in `wm eval` and graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_models.interface.planner import Cost, PlanState
from wm_models.interface.state import State, leading
from wm_models.interface.world_model import WorldModel


@dataclass
class RandomShooting:
    """One round of candidates, uniform in the model's action box.

    horizon: H, model steps. samples: S, candidates. A plan needs one round at least, so `budget_s`
    has no effect. The warm start is candidate 0.
    """

    horizon: int = 6
    samples: int = 256

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
        batch = leading(state).shape[0]
        low, high = model.spec.bounds(leading(state))  # (A,), (A,)
        shape = (batch, self.samples, self.horizon, model.spec.action_dim)
        draws = torch.rand(shape, generator=generator, device=low.device)
        candidates = low + (high - low) * draws  # (B, S, H, A)
        if warm is not None:
            same_goal = warm.serves(goal)  # (B,)
            candidates[same_goal, 0] = warm.mean[same_goal].clamp(low, high)
        rollout = model.rollout(state, candidates, want=cost.needs, generator=generator)
        costs = cost(rollout, goal, candidates)  # (B, S)
        best_cost, best = costs.min(1)
        plan = candidates[torch.arange(batch), best]
        return plan, PlanState(plan, goal), {"cost": best_cost}
