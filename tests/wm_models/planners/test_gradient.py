"""Planning by gradient: the optimum of a search, within the action box and the time budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.wm_models.families.dino_wm.dino_tiny import EMBODIMENT, TINY
from tests.wm_models.planners.slow_model import slowed
from wm_models.errors import ModelError
from wm_models.interface.planner import Planner, PlanState
from wm_models.interface.state import State
from wm_models.interface.world_model import WorldModel
from wm_models.planners import CEM, GD, GoalCost, Receding, ReturnCost, planner
from wm_models.planners.gradient import _gradient
from wm_models.testing.contracts import PlannerContract, WorldModelContract, seeded
from wm_models.testing.linear_model import LinearModel

RETURN = ReturnCost(gamma=0.99, use_value=False)


@pytest.fixture
def pendulum() -> LinearModel:
    """Position and velocity, one force; the aim is within reach of small forces."""
    f, g = torch.tensor([[1.0, 0.2], [-0.1, 0.9]]), torch.tensor([[0.1], [0.5]])
    return LinearModel(f, g, torch.tensor([0.2, 0.0]))


class TestGD(PlannerContract):
    def make_planner(self) -> Planner:
        return GD(horizon=3, steps=5, noise=0.01)


class TestRecedingGD(PlannerContract):
    def make_planner(self) -> Planner:
        return Receding(GD(horizon=3, steps=3), 2)


class TestGDOnDinoWM(PlannerContract):
    def make_planner(self) -> Planner:
        return GD(horizon=2, steps=3)

    def make_model(self) -> WorldModel:
        return TINY.build(EMBODIMENT, 1)

    def states(self, model: WorldModel, batch: int) -> State:
        return WorldModelContract().lived(model, batch)

    def cost(self, model: WorldModel) -> GoalCost:  # type: ignore[override]
        return GoalCost()

    @pytest.fixture
    def planner(self) -> Planner:
        """The planner with a goal, which the suite does not give."""
        return _ToOneGoal(self.make_planner())


class _ToOneGoal:
    def __init__(self, inner: Planner) -> None:
        self.inner, self.horizon = inner, inner.horizon

    def plan(self, model, state, cost, goal=None, **options):  # type: ignore[no-untyped-def]
        batch = len(state.length)
        goal = model.encode_goal(WorldModelContract().make_obs(model, batch))
        return self.inner.plan(model, state, cost, goal, **options)


@pytest.mark.parametrize(("optimiser", "lr"), [("adam", 0.02), ("sgd", 0.5)])
def test_gradient_and_search_agree_on_a_linear_model(pendulum, optimiser: str, lr: float) -> None:
    """With noise in the model too: its expected cost has the same minimum."""
    x = torch.tensor([[0.0, 0.0], [0.3, -0.1]])
    expected = pendulum.best_plan(x, horizon=4, gamma=0.99)
    gd = GD(horizon=4, steps=3000, lr=lr, optimiser=optimiser)
    cem = CEM(horizon=4, samples=400, elites=20, iterations=40, sigma0=0.5, sigma_min=0.0)
    descent_plan, _, info = gd.plan(pendulum, {"x": x}, RETURN, generator=seeded())
    cem_plan, _, _ = cem.plan(pendulum, {"x": x}, RETURN, generator=seeded())
    assert_close(descent_plan, expected, atol=1e-2, rtol=0)
    assert_close(descent_plan, cem_plan, atol=1e-2, rtol=0)
    assert bool((info["best_cost"].diff(dim=0) <= 0).all())
    noisy = LinearModel(pendulum.f, pendulum.g, pendulum.aim, noise=0.02)
    averaged = CEM(
        horizon=4, samples=200, elites=20, iterations=40, sigma0=0.5, sigma_min=0.0, repeats=30
    )
    cem_plan, _, _ = averaged.plan(noisy, {"x": x[:1]}, RETURN, generator=seeded())
    cost = {}
    for name, plan in {"best": expected[:1], "searched": cem_plan}.items():
        rolled = pendulum.rollout({"x": x[:1]}, plan[:, None], want=frozenset({"reward"}))
        cost[name] = float(RETURN(rolled, None, plan[:, None]))
    assert cost["searched"] - cost["best"] < 1e-2


def test_plans_stay_in_the_box_where_the_optimum_lies_outside() -> None:
    distant = LinearModel(torch.eye(2), 0.1 * torch.eye(2), torch.tensor([5.0, -5.0]))
    actions, _, _ = GD(horizon=3, steps=60).plan(
        distant, distant.initial(1), RETURN, generator=seeded()
    )
    assert_close(actions, torch.tensor([1.0, -1.0]).expand(1, 3, 2), atol=1e-3, rtol=0)


def test_restarts_escape_a_local_minimum() -> None:
    class TwoMinima(LinearModel):
        """Two minima; the one at the start is the higher."""

        def readout(self, state, want, *, generator=None):
            x = state["x"][:, 0]
            height = 0.2 * x**2 - torch.exp(-40 * (x - 0.7) ** 2)
            return {"reward": -height} if "reward" in want else {}

    two_minima = TwoMinima(torch.zeros(1, 1), torch.eye(1), torch.zeros(1))
    start = PlanState(torch.zeros(1, 1, 1))
    few, many = (
        GD(horizon=1, restarts=n).plan(
            two_minima, two_minima.initial(1), RETURN, warm=start, generator=seeded()
        )[0]
        for n in (1, 16)
    )
    assert abs(float(few)) < 0.1 and abs(float(many) - 0.7) < 0.1


def test_a_warm_start_is_the_first_candidate(pendulum) -> None:
    x = torch.tensor([[0.0, 0.0]])
    warm = PlanState(pendulum.best_plan(x, horizon=4, gamma=0.99))
    rolled = pendulum.rollout({"x": x}, warm.mean[:, None], want=frozenset({"reward"}))
    _, _, info = GD(horizon=4, steps=1).plan(pendulum, {"x": x}, RETURN, warm=warm)
    assert_close(info["start_cost"], RETURN(rolled, None, warm.mean[:, None])[:, 0])


def test_it_works_within_inference_mode(pendulum) -> None:
    x = torch.tensor([[0.0, 0.0]])
    expected, _, _ = GD(horizon=3).plan(pendulum, {"x": x}, RETURN, generator=seeded())
    with torch.inference_mode():
        state = {"x": torch.zeros(1, 2)}  # a tensor that autograd refuses as it is
        in_inference_mode, _, _ = GD(horizon=3).plan(pendulum, state, RETURN, generator=seeded())
    assert_close(expected, in_inference_mode)


def test_the_best_plan_so_far_is_returned_when_the_budget_is_spent(pendulum, monkeypatch) -> None:
    slow = slowed(pendulum, monkeypatch)
    _, _, info = GD(horizon=3, steps=500).plan(
        slow, slow.initial(1), RETURN, budget_s=0.11, generator=seeded()
    )
    assert 2 <= int(info["iterations"]) <= 5
    assert float(info["cost"]) < float(info["start_cost"])


def test_invalid_settings_are_refused(pendulum) -> None:
    assert planner("gd", lr=0.5) == GD(lr=0.5)
    with pytest.raises(ModelError, match=r"GD\.optimiser: got 'lbfgs', expected sgd or adam"):
        GD(optimiser="lbfgs")
    with pytest.raises(ModelError, match=r"GD\.restarts: got 0, expected at least 1"):
        GD(restarts=0)
    pendulum.spec = replace(pendulum.spec, differentiable=False)
    with pytest.raises(ModelError, match="no gradient passes"):
        GD().plan(pendulum, pendulum.initial(1), RETURN)


def test_a_first_step_counts_as_three_scorings_and_each_later_one_as_one(
    pendulum, monkeypatch
) -> None:
    slow, gd = slowed(pendulum, monkeypatch), GD(horizon=3, steps=5)
    for budget_s, steps in ((0.0, 0), (0.0799, 0), (0.0801, 3), (0.0999, 3), (0.1001, 4), (9, 5)):
        _, _, info = gd.plan(slow, slow.initial(2), RETURN, budget_s=budget_s, generator=seeded())
        assert int(info["iterations"]) == steps, budget_s
        assert info["best_cost"].shape == (steps + 1, 2)
        assert_close(float(info["floor_s"]), 0.02)


def test_starts_lie_around_the_warm_start() -> None:
    middle, box = torch.full((2, 3, 2), 0.5), (torch.tensor(-0.6), torch.tensor(0.6))
    gd = GD(horizon=3, restarts=400, init=(0.0, 0.25))
    starts = gd._start(middle, None, seeded())
    assert starts.shape == (2, 400, 3, 2) and starts[:, 0].equal(middle)
    assert starts[..., 0].equal(torch.full((2, 400, 3), 0.5))
    assert_close(starts[..., 1].mean(), torch.tensor(0.5), atol=0.03, rtol=0)
    assert_close(starts[..., 1].std(), torch.tensor(0.25), atol=0.02, rtol=0)
    assert_close(gd._start(middle, box, seeded()), starts.clamp(-0.6, 0.6))
    drawn = replace(gd, from_warm=False)._start(middle, None, seeded())
    assert not drawn[:, 0].equal(middle) and drawn[:, 1:].equal(starts[:, 1:])


def test_after_a_step_restarts_without_finite_cost_are_drawn_again() -> None:
    middle, box = torch.full((1, 2, 1), 0.5), (torch.tensor(-0.6), torch.tensor(0.6))
    costs = torch.tensor([[1.0, torch.inf, torch.nan]])
    gd = GD(horizon=2, restarts=3, init=0.01)
    actions = torch.full((1, 3, 2, 1), 5.0)
    gd._after_step(actions, costs, middle, None, seeded())
    assert actions[0, 0].eq(5.0).all()
    assert (actions[0, 1:] - 0.5).abs().max() < 0.1 and not actions[0, 1].equal(actions[0, 2])
    gd._after_step(actions, torch.zeros(1, 3), middle, box, seeded())
    assert_close(actions[0, 0], torch.full((2, 1), 0.6))


def test_noise_after_a_step_has_the_configured_width() -> None:
    middle, actions = torch.zeros(1, 5, 2), torch.full((1, 400, 5, 2), 3.0)
    gd = GD(horizon=5, restarts=400, noise=0.2)
    gd._after_step(actions, torch.zeros(1, 400), middle, None, seeded())
    assert_close(actions.mean(), torch.tensor(3.0), atol=0.02, rtol=0)
    assert_close(actions.std(), torch.tensor(0.2), atol=0.01, rtol=0)


def test_the_last_restart_is_returned_with_output_last(pendulum) -> None:
    """With steps that are far too long the start is the best candidate, and the last is not."""
    warm = PlanState(pendulum.best_plan(torch.zeros(1, 2), horizon=4, gamma=0.99))
    long_steps = GD(horizon=4, steps=3, lr=50.0, optimiser="sgd", restarts=1, noise=0.3)
    x = {"x": torch.zeros(1, 2)}
    best, _, info = long_steps.plan(pendulum, x, RETURN, warm=warm, generator=seeded())
    assert_close(best, warm.mean)
    assert_close(info["cost"], info["start_cost"])
    last, after, info = replace(long_steps, output="last").plan(
        pendulum, x, RETURN, warm=warm, generator=seeded()
    )
    assert float(info["cost"]) > float(info["start_cost"]) and after.mean.equal(last)


def test_candidates_that_are_not_finite_have_no_gradient() -> None:
    actions = torch.tensor([[[[2.0]], [[3.0]]]], requires_grad=True)
    costs = actions.flatten(2).square().sum(-1) * torch.tensor([1.0, torch.nan])
    gradient = _gradient(costs, actions, RETURN)
    assert gradient.flatten().tolist() == [4.0, 0.0]
    for without_gradient in (costs.detach(), torch.ones(1, 2, requires_grad=True) * 2.0):
        with pytest.raises(ModelError, match="got no gradient of ReturnCost"):
            _gradient(without_gradient, actions, RETURN)
