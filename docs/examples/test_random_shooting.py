"""The planner keeps the contract, and more candidates never make a worse plan."""

from __future__ import annotations

import torch

from docs.examples.random_shooting import RandomShooting
from wm_models.interface.planner import Planner
from wm_models.planners.costs import ReturnCost
from wm_models.testing.contracts import PlannerContract
from wm_models.testing.linear_model import LinearModel


class TestRandomShooting(PlannerContract):
    def make_planner(self) -> Planner:
        return RandomShooting(horizon=3, samples=16)


def test_a_plan_is_never_worse_than_its_warm_start() -> None:
    model = LinearModel(torch.eye(2), 0.3 * torch.eye(2), torch.tensor([2.0, -0.5])).eval()
    state, cost = model.initial(2), ReturnCost(use_value=model.spec.has_value)
    _, warm, first = RandomShooting(3, 64).plan(
        model, state, cost, generator=torch.Generator().manual_seed(0)
    )
    _, _, second = RandomShooting(3, 4).plan(
        model, state, cost, warm=warm, generator=torch.Generator().manual_seed(1)
    )
    assert bool((second["cost"] <= first["cost"] + 1e-6).all())
