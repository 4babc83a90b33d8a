"""Every model and every planner keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from wm_models.contract import PlannerContract, WorldModelContract
from wm_models.interface import Planner, WorldModel
from wm_models.planners import CEM, MPPI, ActorPlanner, Receding
from wm_models.toy import LinearModel


class TestLinear(WorldModelContract):
    def make_model(self) -> WorldModel:
        return LinearModel(torch.eye(3), torch.rand(3, 2), torch.zeros(3))


class TestNoisyLinear(WorldModelContract):
    def make_model(self) -> WorldModel:
        return LinearModel(torch.eye(3), torch.rand(3, 2), torch.zeros(3), noise=0.1)


class TestMaskedWorldModel(WorldModelContract):
    @pytest.fixture(autouse=True)
    def _use(self, tiny, rows) -> None:
        self.preset, self.rows = tiny, rows

    def make_model(self) -> WorldModel:
        return self.preset.build(3, seed=2)

    def training(self, model: WorldModel) -> Callable[[], float] | None:
        learner = self.preset.build_learner(model)
        batch = self.rows(2, 5)

        def update() -> float:
            metrics = learner.update({"autoencoder": batch, "agent": batch})
            return metrics["ae/pixel_loss"] + metrics["wm/reward_loss"]

        return update


class TestMaskedWorldModelWithDiscount(TestMaskedWorldModel):
    def make_model(self) -> WorldModel:
        config = replace(self.preset.model, discount=True)
        return replace(self.preset, model=config).build(3, seed=2)


class TestCEM(PlannerContract):
    def make_planner(self) -> Planner:
        return CEM(horizon=3, samples=16, elites=4, iterations=2)


class TestMPPI(PlannerContract):
    def make_planner(self) -> Planner:
        return MPPI(horizon=3, samples=16, elites=4, iterations=2)


class TestReceding(PlannerContract):
    def make_planner(self) -> Planner:
        return Receding(CEM(horizon=3, samples=16, elites=4, iterations=2))


class OnMWM(PlannerContract):
    @pytest.fixture(autouse=True)
    def _use(self, tiny) -> None:
        self.preset = tiny

    def make_model(self) -> WorldModel:
        return self.preset.build(3, seed=2)


class TestActorPlannerOnMWM(OnMWM):
    def make_planner(self) -> Planner:
        return ActorPlanner(explore=True)


class TestCEMOnMWM(OnMWM):
    def make_planner(self) -> Planner:
        return CEM(horizon=3, samples=8, elites=2, iterations=2, n_policy=2, explore=True)


class TestMPPIOnMWM(OnMWM):
    def make_planner(self) -> Planner:
        return MPPI(horizon=3, samples=8, elites=2, iterations=2, n_policy=2, repeats=2)
