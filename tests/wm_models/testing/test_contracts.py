"""Every model and every planner keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.wm_models.posed import Posed
from wm_models.interface.planner import Planner
from wm_models.interface.state import index
from wm_models.interface.world_model import WorldModel
from wm_models.planners import CEM, GD, MPPI, ActorPlanner, Receding
from wm_models.testing.contracts import PlannerContract, WorldModelContract, seeded
from wm_models.testing.linear_model import LinearModel


class TestLinear(WorldModelContract):
    def make_model(self) -> WorldModel:
        return LinearModel(torch.eye(3), torch.rand(3, 2), torch.zeros(3))


class TestNoisyLinear(WorldModelContract):
    def make_model(self) -> WorldModel:
        return LinearModel(torch.eye(3), torch.rand(3, 2), torch.zeros(3), noise=0.1)


class TestPosed(WorldModelContract):
    """A dict as state, no image, a raw pose through encode and filter, a value that is drawn."""

    def make_model(self) -> WorldModel:
        torch.manual_seed(0)
        return Posed()

    def test_the_value_is_drawn_from_the_generator(self, model: WorldModel) -> None:
        state, want = self.lived(model, 40), frozenset({"value"})
        one, same, other = (
            model.readout(state, want, generator=seeded(seed))["value"] for seed in (1, 1, 2)
        )
        assert torch.equal(one, same) and not torch.equal(one, other)
        actions = self.actions(model, 1, 40, 2)
        torch.manual_seed(0)
        first = model.rollout(index(state, [0]), actions, want=want, generator=seeded(1)).value
        torch.manual_seed(1)  # nothing is drawn from elsewhere
        second = model.rollout(index(state, [0]), actions, want=want, generator=seeded(1)).value
        assert torch.equal(first, second)


class TestCEMOnPosed(PlannerContract):
    def make_planner(self) -> Planner:
        return CEM(horizon=3, samples=16, elites=4, iterations=2, n_policy=3)

    def make_model(self) -> WorldModel:
        return Posed()


class TestGDOnPosed(TestCEMOnPosed):
    def make_planner(self) -> Planner:
        return GD(horizon=3, steps=3)


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
