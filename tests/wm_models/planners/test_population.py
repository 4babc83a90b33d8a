"""Planners find known optima, keep bounds and time budgets, and refuse invalid settings."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest
import torch
from torch.testing import assert_close

from tests.wm_models.planners.slow_model import slowed
from wm_models.errors import ModelError
from wm_models.interface.planner import PlanState
from wm_models.planners import (
    CEM,
    GD,
    MPPI,
    ActionPenalty,
    ActorPlanner,
    DisagreementPenalty,
    GoalCost,
    ReturnCost,
    planner,
)
from wm_models.planners.population import Best, Deadline
from wm_models.planners.receding_horizon import Receding
from wm_models.testing.contracts import seeded
from wm_models.testing.linear_model import LinearModel

RETURN = ReturnCost(gamma=0.99, use_value=False)


@pytest.fixture
def point() -> LinearModel:
    """Two dimensions, the first action determines the cost: a quadratic with its minimum inside."""
    return LinearModel(torch.eye(2), torch.eye(2), torch.tensor([0.3, -0.6]))


@pytest.fixture
def pendulum() -> LinearModel:
    """Position and velocity, one force; the aim is within reach of small forces."""
    f, g = torch.tensor([[1.0, 0.2], [-0.1, 0.9]]), torch.tensor([[0.1], [0.5]])
    return LinearModel(f, g, torch.tensor([0.2, 0.0]))


def test_cem_on_a_quadratic(point) -> None:
    cem = CEM(horizon=1, samples=300, elites=30, iterations=30, sigma0=1.0, sigma_min=0.0)
    actions, _, info = cem.plan(point, point.initial(2), RETURN, generator=seeded())
    assert_close(actions[:, 0], torch.tensor([[0.3, -0.6]]).expand(2, 2), atol=1e-2, rtol=0)
    assert bool((info["best_cost"].diff(dim=0) <= 0).all())
    assert bool((info["cost"] <= info["start_cost"]).all())


@pytest.mark.parametrize("search", [CEM, MPPI])
def test_the_best_plan_of_a_linear_model_is_found(pendulum, search) -> None:
    x = torch.tensor([[0.0, 0.0], [0.3, -0.1]])
    expected = pendulum.best_plan(x, horizon=4, gamma=0.99)
    assert expected.abs().max() < 1.0
    options = {"temperature": 2.0, "output": "mean"} if search is MPPI else {}
    wide = search(
        horizon=4, samples=400, elites=20, iterations=40, sigma0=0.5, sigma_min=0.0, **options
    )
    actions, _, _ = wide.plan(pendulum, {"x": x}, RETURN, generator=seeded())
    assert_close(actions, expected, atol=1e-2, rtol=0)


def test_bounds_hold_when_the_optimum_lies_outside(point) -> None:
    distant = LinearModel(torch.eye(2), 0.1 * torch.eye(2), torch.tensor([5.0, -5.0]))
    cem = CEM(horizon=3, samples=100, elites=10, iterations=15, sigma_min=0.0)
    actions, _, _ = cem.plan(distant, distant.initial(1), RETURN, generator=seeded())
    assert_close(actions, torch.tensor([1.0, -1.0]).expand(1, 3, 2), atol=1e-2, rtol=0)


def test_goals_are_reached_too(point) -> None:
    cem = CEM(horizon=2, samples=200, elites=20, iterations=20, sigma_min=0.0)
    goal = point.encode_goal({"x": torch.tensor([[0.5, 0.5], [-0.5, 0.2]])})
    cost = GoalCost(keys={"x": 1.0}) + 1e-6 * ActionPenalty()
    actions, _, _ = cem.plan(point, point.initial(2), cost, goal, generator=seeded())
    assert_close(actions.sum(1), goal["x"], atol=2e-2, rtol=0)


@pytest.mark.parametrize("search", [CEM, MPPI])
@pytest.mark.parametrize("output", ["mean", "best"])
def test_nothing_worse_than_the_start_is_returned(pendulum, search, output: str) -> None:
    """Even from the optimum, with far too few candidates of far too large width."""
    x = torch.zeros(3, 2)
    optimum = PlanState(pendulum.best_plan(x, 4, 0.99))
    wide = search(
        horizon=4, samples=4, elites=2, iterations=2, sigma0=2.0, output=output, sigma_max=3.0
    )
    _, _, info = wide.plan(pendulum, {"x": x}, RETURN, warm=optimum, generator=seeded())
    assert bool((info["cost"] <= info["start_cost"]).all())
    if output == "mean":
        assert_close(info["cost"], info["start_cost"])


def test_batch_rows_are_planned_independently(pendulum) -> None:
    cem = CEM(horizon=3, samples=200, elites=20, iterations=20, sigma_min=0.0)
    x = torch.tensor([[0.0, 0.0], [0.4, 0.1]])
    both, _, _ = cem.plan(pendulum, {"x": x}, RETURN, generator=seeded())
    for row in range(2):
        alone, _, _ = cem.plan(pendulum, {"x": x[row : row + 1]}, RETURN, generator=seeded(9))
        assert_close(both[row], alone[0], atol=1e-2, rtol=0)


def test_momentum_keeps_part_of_the_old_normal() -> None:
    elites = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    old = torch.zeros(1, 1, 2)
    cem = CEM(momentum_mean=(0.0, 0.5), momentum_std=0.25, elites=2)
    mean, std = cem._refit(elites, torch.zeros(1, 2), old, old + 1.0)
    assert_close(mean, torch.tensor([[[2.0, 1.0]]]))
    assert_close(std, torch.full((1, 1, 2), 0.25 + 0.75 * 2**0.5))  # unbiased


def test_dimensions_that_are_not_free_stay(point) -> None:
    cem = CEM(horizon=2, free_dims=(True, False), samples=50, iterations=5, explore=True)
    warm = PlanState(torch.full((1, 2, 2), 0.1))
    actions, after, _ = cem.plan(point, point.initial(1), RETURN, warm=warm, generator=seeded())
    assert_close(actions[..., 1], torch.full((1, 2), 0.1))
    assert not torch.allclose(actions[..., 0], torch.tensor(0.1))
    assert_close(after.mean[..., 1], torch.full((1, 2), 0.1))


def test_the_width_is_the_unbiased_deviation_of_the_elites() -> None:
    elites = torch.randn(2, 7, 3, 2, generator=seeded())
    old = torch.zeros(2, 3, 2)
    mean, std = CEM(samples=20, elites=7)._refit(elites, torch.zeros(2, 7), old, old)
    assert_close(mean, elites.mean(1))
    assert_close(std, elites.std(1, unbiased=True))


def test_width_per_dimension_has_a_floor_and_a_ceiling(point) -> None:
    cem = CEM(horizon=1, sigma0=(0.01, 9.0), sigma_min=0.2, sigma_max=0.7, iterations=1)
    _, std = cem._start(point, point.initial(1), None)
    assert_close(std, torch.tensor([[[0.2, 0.7]]]))
    with pytest.raises(ModelError, match=r"sigma0: got 3 numbers, expected one, or 2 "):
        CEM(sigma0=(1.0, 1.0, 1.0)).plan(point, point.initial(1), RETURN)


def test_mppi_weights() -> None:
    cost = torch.tensor([[3.0, 1.0, 2.0, 1.5]])
    for temperature in (0.1, 0.5, 50.0):
        weights = MPPI(temperature=temperature).weights(cost)
        assert_close(weights.sum(1), torch.ones(1))
        assert weights.argmax() == 1
        assert_close(weights, MPPI(temperature=temperature).weights(cost + 100.0))
    assert_close(MPPI(temperature=0.0).weights(cost), torch.full((1, 4), 0.25))
    assert_close(MPPI(temperature=1e6).weights(cost), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    ratio = MPPI(temperature=0.5, scale="cost").weights(cost)
    assert_close(ratio[0, 1] / ratio[0, 2], torch.tensor(0.5).exp())


def test_mppi_weighs_large_and_small_returns_alike() -> None:
    cost = torch.tensor([[3.0, 1.0, 2.0, 1.5]])
    for scale in (1e-3, 1.0, 1e4):
        assert_close(MPPI().weights(scale * cost), MPPI().weights(cost))
    large = MPPI(scale="cost").weights(1e4 * cost)
    assert_close(large, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))  # the best alone, as TD-MPC2 has it
    assert_close(MPPI().weights(torch.full((1, 4), 7.0)), torch.full((1, 4), 0.25))
    with pytest.raises(ModelError, match="scale: got 'returns', expected 'elites' or 'cost'"):
        MPPI(scale="returns")


def test_mppi_samples_one_of_its_elites(point) -> None:
    mppi = MPPI(horizon=2, samples=30, elites=5, iterations=3, temperature=1e6, include_mean=False)
    actions, _, info = mppi.plan(point, point.initial(1), RETURN, generator=seeded())
    x = actions[0].cumsum(0)
    cost = ((x - point.aim).square().sum(-1) * torch.tensor([1.0, 0.99])).sum()
    assert_close(cost, info["cost"][0])  # a cold sample is the cheapest of the last round


def test_exploration_changes_the_first_action_only(point) -> None:
    plain = CEM(horizon=3, sigma_min=0.1)
    a, _, _ = plain.plan(point, point.initial(1), RETURN, generator=seeded())
    b, _, _ = replace(plain, explore=True).plan(point, point.initial(1), RETURN, generator=seeded())
    assert not a[:, 0].equal(b[:, 0])
    assert a[:, 1:].equal(b[:, 1:])


def test_the_actors_sequences_are_candidates(model) -> None:
    """With one iteration and only the actor's sequences, the plan is one of them: each action is
    chosen in the state that the model predicts for the actions before it."""
    state = model.initial(1)
    cem = CEM(horizon=3, samples=4, n_policy=4, elites=1, iterations=1, include_mean=False)
    plan, _, _ = replace(cem, output="best").plan(model, state, ReturnCost(), generator=seeded())
    generator, states, actions = seeded(), model.initial(4), []
    with torch.no_grad():
        for _ in range(3):
            actions.append(model.act(states, mode=False, generator=generator))
            states = model.step(states, actions[-1], generator=generator)
    assert any(torch.allclose(plan[0], sequence) for sequence in torch.stack(actions, 1))


def test_repeats_average_noise_away() -> None:
    noisy = LinearModel(torch.eye(1), torch.eye(1), torch.zeros(1), noise=1.0)

    def spread(repeats: int) -> torch.Tensor:
        cem = CEM(horizon=1, samples=400, elites=1, iterations=1, sigma0=0.0, sigma_min=0.0)
        cem = replace(cem, repeats=repeats, output="best")
        return cem.plan(noisy, noisy.initial(1), RETURN, generator=seeded())[2]["best_cost"]

    assert spread(1) < 0.01  # the lowest of 400
    assert spread(50) > 0.4  # E x^2 = 1


def test_candidates_whose_costs_are_not_finite_are_not_chosen(point) -> None:
    @dataclass
    class PartlyFinite:
        needs = frozenset({"reward"})

        def __call__(self, rollout, goal, actions):
            cost = -rollout.reward.sum(-1)
            return torch.where(actions[..., 0, 0] < 0.2, torch.nan, cost)

    cem = CEM(horizon=1, samples=100, elites=5, iterations=10, output="best")
    actions, _, info = cem.plan(point, point.initial(1), PartlyFinite(), generator=seeded())
    assert actions[0, 0, 0] >= 0.2
    assert bool(torch.isfinite(info["cost"]).all())


@pytest.mark.parametrize("output", ["mean", "last", "best"])
def test_plans_end_within_the_budget(point, monkeypatch, output: str) -> None:
    """With a clock that advances by 20 ms at every rollout: the minimum is one rollout."""
    slow = slowed(point, monkeypatch)
    cem = CEM(horizon=1, samples=20, elites=4, iterations=100, output=output)
    for budget_s, iterations in ((0.0, 1), (0.001, 1), (0.05, 1), (0.065, 2), (0.205, 9), (9, 100)):
        began = slow.now_s
        _, _, info = cem.plan(slow, slow.initial(1), RETURN, budget_s=budget_s, generator=seeded())
        assert info["iterations"] == iterations
        assert slow.now_s - began <= max(budget_s, 0.02) + 1e-9
        assert_close(float(info["floor_s"]), 0.02)
        if output != "last":
            assert bool((info["cost"] <= info["start_cost"]).all())


def test_the_budget_of_mppi_has_no_last_scoring(point, monkeypatch) -> None:
    slow = slowed(point, monkeypatch)
    mppi = MPPI(horizon=1, samples=20, elites=4, iterations=100)
    _, _, info = mppi.plan(slow, slow.initial(1), RETURN, budget_s=0.105, generator=seeded())
    assert info["iterations"] == 5 and slow.now_s <= 0.105


def test_a_warm_start_of_another_length_is_fitted(point) -> None:
    cem = CEM(horizon=3, iterations=1)
    for length in (1, 3, 5):
        warm = PlanState(torch.full((1, length, 2), 0.2))
        mean, _ = cem._start(point, point.initial(1), warm)
        assert mean.shape == (1, 3, 2)
        assert_close(mean[:, : min(length, 3)], torch.full((1, min(length, 3), 2), 0.2))
        assert not mean[:, length:].any()
    with pytest.raises(ModelError, match=r"warm: got \(2, 3, 2\), expected .* = \(1, any, 2\)"):
        cem.plan(point, point.initial(1), RETURN, warm=PlanState(torch.zeros(2, 3, 2)))


# new goals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True], ids=["search", "receding"])
@pytest.mark.parametrize(
    "search",
    [
        CEM(horizon=2, samples=64, elites=8, iterations=8, sigma_min=0.0),
        CEM(horizon=2, samples=64, elites=8, iterations=8, sigma_min=0.0, output="last"),
        MPPI(horizon=2, samples=64, elites=8, iterations=8, sigma_min=0.0, output="mean"),
        GD(horizon=2, steps=60),
    ],
    ids=["cem", "cem-last", "mppi", "gd"],
)
def test_a_new_goal_is_reached(point, search, wrapped: bool) -> None:
    """From the plan for the old goal, where the search had narrowed to a point."""
    planner = Receding(search, execute_k=2) if wrapped else search
    cost = GoalCost(keys={"x": 1.0})
    old = {"x": torch.tensor([[1.2, 1.2], [0.3, 0.3]])}
    new = {"x": torch.tensor([[-1.2, 0.2], [0.3, 0.3]])}  # one row's goal is another, one is not
    warm = None
    for _ in range(3):
        _, warm, info = search.plan(
            point, point.initial(2), cost, old, warm=warm, generator=seeded()
        )
    if wrapped:
        _, warm, info = planner.plan(point, point.initial(2), cost, old, generator=seeded())
        assert warm.executed == 1  # the plan for the old goal is not over
    _, after, new_info = planner.plan(
        point, point.initial(2), cost, new, warm=warm, generator=seeded()
    )
    _, _, without_warm = search.plan(point, point.initial(2), cost, new, generator=seeded())
    assert float(info["cost"].max()) < 5e-3 and float(new_info["cost"].max()) < 5e-3
    assert_close(new_info["start_cost"][0], without_warm["start_cost"][0])  # started from zero
    if not wrapped:  # the other row continues its plan
        assert float(new_info["start_cost"][1]) < 0.05 * float(without_warm["start_cost"][1])
    assert bool(after.serves(new).all())


def test_the_width_is_the_same_at_every_plan(point) -> None:
    cem = CEM(horizon=2, samples=200, elites=20, iterations=1, sigma0=0.7, sigma_min=0.0)
    warm, widths = None, []
    for _ in range(3):
        _, warm, info = cem.plan(point, point.initial(1), RETURN, warm=warm, generator=seeded())
        widths.append(float(info["std"]))
    assert min(widths) > 0.5 * max(widths)
    assert not hasattr(warm, "std")


# actor and errors ------------------------------------------------------------------------------


def test_the_actor_plans_its_mode(model) -> None:
    state = model.initial(2)
    actions, _, _ = ActorPlanner().plan(model, state, ReturnCost())
    assert_close(actions[:, 0], model.act(state, mode=True).detach())
    sampled, _, _ = ActorPlanner(explore=True).plan(model, state, generator=seeded())
    assert not sampled.equal(actions)


def test_models_without_a_required_output_are_refused(point, model) -> None:
    state = point.initial(1)
    with pytest.raises(ModelError, match=r"ReturnCost: needs value.*use_value=False"):
        CEM().plan(point, state, ReturnCost())
    with pytest.raises(ModelError, match="DisagreementPenalty: needs disagreement"):
        CEM().plan(point, state, DisagreementPenalty())
    with pytest.raises(ModelError, match=r"pass goal=model.encode_goal"):
        CEM().plan(point, state, GoalCost(keys={"x": 1.0}))
    with pytest.raises(ModelError, match="this model takes no goals"):
        CEM().plan(model, model.initial(1), GoalCost())
    with pytest.raises(ModelError, match="no readout named visual"):
        CEM().plan(point, state, GoalCost(), goal={"visual": torch.zeros(1, 2)})
    with pytest.raises(ModelError, match="has no actor; plan with cem or mppi"):
        ActorPlanner().plan(point, state, RETURN)
    with pytest.raises(
        ModelError, match="n_policy: got 3, expected 0 for a model without an actor"
    ):
        CEM(n_policy=3).plan(point, state, RETURN)
    point.spec = replace(point.spec, max_horizon=2)
    with pytest.raises(ModelError, match="horizon: got 6, expected at most 2"):
        CEM().plan(point, state, RETURN)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"elites": 70}, r"CEM.elites: got 70, expected at most samples \(64\)"),
        ({"iterations": 0}, "CEM.iterations: got 0, expected at least 1"),
        ({"n_policy": 64}, "n_policy: got 64, expected between 0 and 63"),
        ({"output": "sample"}, "output: got 'sample', expected 'mean' or 'last' or 'best'"),
        (
            {"sigma": 1.0},
            r"option: got 'sigma', expected one of .*Did you mean 'sigma0'\?",
        ),
    ],
)
def test_settings_are_checked(options: dict[str, object], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        planner("cem", **options)


def test_planners_by_name() -> None:
    assert planner("actor") == ActorPlanner()
    assert planner("cem", horizon=3) == CEM(horizon=3)
    assert planner("mppi", temperature=2.0) == MPPI(temperature=2.0)
    with pytest.raises(ModelError, match=r"one of actor, cem, mppi, gd.*'cem'\?"):
        planner("cen")


def test_the_first_of_equal_plans_is_returned_in_each_row() -> None:
    best = Best()
    one, other = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    best.update(one, torch.tensor([1.0, 2.0, torch.inf]))
    best.update(other, torch.tensor([1.0, 1.5, 5.0]))
    assert best.plan.flatten().tolist() == [0.0, 1.0, 1.0]
    assert best.cost.tolist() == [1.0, 1.5, 5.0]
    plan, cost = best.unless_finite(other * 7, torch.tensor([9.0, torch.nan, -torch.inf]))
    assert plan.flatten().tolist() == [7.0, 1.0, 1.0] and cost.tolist() == [9.0, 1.5, 5.0]


def test_the_longest_scoring_so_far_decides_what_fits_in_the_budget(monkeypatch) -> None:
    now = [8.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    deadline = Deadline(4.0, torch.device("cpu"))
    for time_s in (8.5, 9.5, 9.75):
        now[0] = time_s
        deadline.lap()
    assert deadline.first == 0.5
    now[0] = 10.0  # 2 s of 4 are spent, and the longest scoring took 1 s
    assert deadline.room_for(2) and not deadline.room_for(2.01)
    assert Deadline(None, torch.device("cpu")).room_for(1e9)


def test_costs_of_another_shape_are_refused(point) -> None:
    @dataclass
    class OneCost:
        needs = frozenset[str]()

        def __call__(self, rollout, goal, actions):
            return actions.sum((-1, -2, -3))

    with pytest.raises(ModelError, match=r"OneCost: got costs of shape \(2,\), expected \(2, 64\)"):
        CEM().plan(point, point.initial(2), OneCost())


def test_a_horizon_beyond_the_models_is_refused(point) -> None:
    point.spec = replace(point.spec, max_horizon=3)
    CEM(horizon=3, iterations=1).plan(point, point.initial(1), RETURN)
    with pytest.raises(ModelError, match="horizon: got 4, expected at most 3"):
        CEM(horizon=4).plan(point, point.initial(1), RETURN)


@pytest.mark.parametrize("search", [CEM(horizon=2), MPPI(horizon=2), GD(horizon=2)])
def test_a_search_refuses_a_model_with_discrete_actions(point, search) -> None:
    point.spec = replace(point.spec, discrete=True)
    with pytest.raises(ModelError, match="model with discrete actions, expected continuous"):
        search.plan(point, point.initial(1), RETURN, generator=seeded())
