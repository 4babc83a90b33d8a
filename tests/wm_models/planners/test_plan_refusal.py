"""A candidate without a finite cost is never chosen; without any finite cost there is no plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from wm_models.errors import ModelError, PlanRefused
from wm_models.planners import CEM, GD, MPPI, ActorPlanner, Receding, ReturnCost
from wm_models.testing.contracts import seeded
from wm_models.testing.linear_model import LinearModel

SEEDS = range(40)
NOT_FINITE = (math.nan, math.inf, -math.inf)
SEARCHES = {
    "cem": CEM(horizon=2, samples=48, elites=8, iterations=3),
    "cem-last": CEM(horizon=2, samples=48, elites=8, iterations=3, output="last"),
    "cem-best": CEM(horizon=2, samples=48, elites=8, iterations=3, output="best"),
    "cem-momentum": CEM(horizon=2, samples=48, elites=8, iterations=3, momentum_mean=0.3),
    "mppi": MPPI(horizon=2, samples=48, elites=8, iterations=3),
    "mppi-even": MPPI(horizon=2, samples=48, elites=8, iterations=3, temperature=0.0),
    "mppi-mean": MPPI(horizon=2, samples=48, elites=8, iterations=3, output="mean"),
    "mppi-cost": MPPI(horizon=2, samples=48, elites=8, iterations=3, scale="cost"),
}
DESCENTS = {
    "gd": GD(horizon=2, steps=8, restarts=16),
    "gd-last": GD(horizon=2, steps=8, restarts=16, output="last", noise=0.01),
}


@dataclass(frozen=True)
class FewFinite:
    """The first action's squared distance to .4, finite on an interval only: for about one in
    fifteen candidates drawn around 0 with width .5."""

    cost_value: float = math.nan
    needs = frozenset[str]()

    def finite(self, actions: Tensor) -> Tensor:
        first = actions[..., 0, 0]
        return (first > 0.35) & (first < 0.47)

    def __call__(self, rollout: object, goal: object, actions: Tensor) -> Tensor:
        cost = (actions[..., 0, 0] - 0.4).square()
        return torch.where(self.finite(actions), cost, self.cost_value)


@dataclass(frozen=True)
class NoFiniteCost:
    """No candidate has a cost."""

    cost_value: float = math.nan
    needs = frozenset[str]()

    def __call__(self, rollout: object, goal: object, actions: Tensor) -> Tensor:
        return actions.sum((-2, -1)) * 0.0 + self.cost_value


@pytest.fixture
def point() -> LinearModel:
    return LinearModel(torch.eye(2), torch.eye(2), torch.tensor([0.3, -0.6]))


@pytest.mark.parametrize("cost_value", NOT_FINITE)
@pytest.mark.parametrize("name", [*SEARCHES, *DESCENTS])
def test_few_finite_candidates_are_enough(point, name: str, cost_value: float) -> None:
    """With 6.7 % of candidates finite: the plan is one of them, whatever the seed; it is refused
    only where not one was drawn."""
    planner, cost = (SEARCHES | DESCENTS)[name], FewFinite(cost_value)
    plan_count = 0
    seeds = SEEDS if math.isnan(cost_value) else SEEDS[:5]
    for seed in seeds:
        try:
            plan, warm, info = planner.plan(point, point.initial(1), cost, generator=seeded(seed))
        except PlanRefused:
            continue
        plan_count += 1
        assert bool(cost.finite(plan[:, None]).all())
        assert bool(info["cost"].isfinite().all()) and bool(warm.mean.isfinite().all())
        assert_close(info["cost"], cost(None, None, plan[:, None])[:, 0])
    assert plan_count >= len(seeds) - 1


@pytest.mark.parametrize("name", SEARCHES)
def test_the_normal_is_refitted_to_finite_elites(point, name: str) -> None:
    """One finite elite of three: it is the mean; the width, undetermined by one elite, stays."""
    search = replace(SEARCHES[name], elites=3)
    if isinstance(search, CEM):
        search = replace(search, momentum_mean=0.0)
    elites = torch.tensor([0.5, 0.1, 0.9]).reshape(1, 3, 1, 1).expand(2, 3, 2, 2)
    cost = torch.tensor([[1.0, math.inf, math.inf], [math.inf] * 3])
    old = torch.full((2, 2, 2), 0.1), torch.full((2, 2, 2), 0.7)
    mean, std = search._refitted(elites, cost, *old)
    assert_close(mean[0], torch.full((2, 2), 0.5))
    assert_close(mean[1], old[0][1])  # without any, the mean stays
    assert_close(std, old[1])


def test_weights_of_costs_that_are_not_finite_are_zero() -> None:
    cost = torch.tensor([[3.0, math.inf, 1.0, math.nan], [math.inf] * 4])
    for mppi in (MPPI(), MPPI(temperature=0.0), MPPI(scale="cost"), MPPI(temperature=1e6)):
        weights = mppi.weights(cost)
        assert weights[0, [1, 3]].tolist() == [0.0, 0.0] and not weights[1].any()
        assert_close(weights[0, [0, 2]], mppi.weights(cost[:1, [0, 2]])[0])


@pytest.mark.parametrize("cost_value", NOT_FINITE)
@pytest.mark.parametrize("name", [*SEARCHES, *DESCENTS])
def test_without_a_finite_cost_there_is_no_plan(point, name: str, cost_value: float) -> None:
    planner = (SEARCHES | DESCENTS)[name]
    for tested in (planner, Receding(planner)):
        with pytest.raises(PlanRefused, match=r"no plan: got no finite cost among .* candidates"):
            tested.plan(point, point.initial(1), NoFiniteCost(cost_value), generator=seeded())
    assert issubclass(PlanRefused, ModelError)


def test_a_refusal_counts_the_candidates_of_all_iterations_and_restarts(point) -> None:
    for search, candidates in (
        (GD(horizon=2, steps=4, restarts=3), 15),
        (CEM(samples=20, elites=4, horizon=2, iterations=3), 60),
    ):
        with pytest.raises(PlanRefused, match=f"among {candidates} candidates"):
            search.plan(point, point.initial(1), NoFiniteCost(math.nan), generator=seeded())


@pytest.mark.parametrize("name", [*SEARCHES, *DESCENTS])
def test_one_row_without_a_plan_is_named(point, name: str) -> None:
    class Second:
        needs = frozenset[str]()

        def __call__(self, rollout, goal, actions):
            cost = actions.square().sum((-2, -1))
            return torch.cat([cost[:1], cost[1:] * math.nan])

    with pytest.raises(PlanRefused, match=r"in batch rows \[1\]"):
        (SEARCHES | DESCENTS)[name].plan(point, point.initial(2), Second(), generator=seeded())


def test_a_model_that_diverges_is_refused(point) -> None:
    state = {"x": torch.full((1, 2), math.nan)}
    for planner in (*SEARCHES.values(), *DESCENTS.values()):
        with pytest.raises(PlanRefused):
            planner.plan(point, state, ReturnCost(use_value=False), generator=seeded())


def test_an_actor_that_diverged_is_refused(model) -> None:
    state = model.initial(1)
    with torch.no_grad():
        for weight in model.actor.parameters():
            weight.fill_(math.nan)
    with pytest.raises(PlanRefused, match="an action that is not finite"):
        ActorPlanner().plan(model, state)
    search = CEM(horizon=2, samples=8, elites=4, n_policy=4)  # the actor only proposes
    plan, _, _ = search.plan(model, state, ReturnCost(use_value=False), generator=seeded())
    assert bool(plan.isfinite().all())


@pytest.mark.parametrize("name", [*SEARCHES, *DESCENTS])
def test_a_refusal_counts_the_candidates_and_names_the_rows(point, name: str) -> None:
    """48 in each of 3 iterations; 16 restarts at the start and after each of 8 steps."""

    @dataclass(frozen=True)
    class SecondRow:
        needs = frozenset[str]()

        def __call__(self, rollout: object, goal: object, actions: Tensor) -> Tensor:
            cost = actions.square().sum((-2, -1))
            return cost + torch.tensor([[0.0], [math.inf], [0.0]])

    planner = (SEARCHES | DESCENTS)[name]
    with pytest.raises(PlanRefused, match=r"among 144 candidates in batch rows \[1\], expected"):
        planner.plan(point, point.initial(3), SecondRow(), generator=seeded())
    with pytest.raises(PlanRefused, match=r"among 144 candidates, expected"):
        planner.plan(point, point.initial(1), NoFiniteCost(), generator=seeded())
