"""Costs of imagined plans."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.interface.world_model import Rollout
from wm_models.planners import (
    ActionPenalty,
    BoxPenalty,
    DisagreementPenalty,
    GoalCost,
    ReturnCost,
)

ACTIONS = torch.zeros(2, 3, 4, 2)


def test_return_is_discounted_and_ends_with_the_value() -> None:
    reward = torch.ones(2, 3, 4)
    value = torch.full((2, 3), 10.0)
    rollout = Rollout(reward=reward, value=value)
    plain = ReturnCost(gamma=0.5)(rollout, None, ACTIONS)
    assert_close(plain, -torch.full((2, 3), 1 + 0.5 + 0.25 + 0.125 + 0.0625 * 10))
    assert_close(
        ReturnCost(gamma=0.5, use_value=False)(rollout, None, ACTIONS),
        -torch.full((2, 3), 1.875),
    )


def test_rewards_after_an_end_do_not_count() -> None:
    cont = torch.ones(1, 1, 4)
    cont[..., 1] = 0.0  # the second action ends the episode; its own reward still counts
    rollout = Rollout(reward=torch.ones(1, 1, 4), value=torch.full((1, 1), 50.0), cont=cont)
    assert_close(ReturnCost(gamma=1.0)(rollout, None, ACTIONS), torch.tensor([[-2.0]]))


def test_return_of_a_constant_reward_equals_its_value() -> None:
    value = torch.full((1, 1), 1 / (1 - 0.9))
    for horizon in (1, 5, 20):
        rollout = Rollout(reward=torch.ones(1, 1, horizon), value=value)
        assert_close(ReturnCost(gamma=0.9)(rollout, None, ACTIONS), -value)


@pytest.mark.parametrize(("metric", "expected"), [("mse", 4.0), ("l1", 2.0), ("cos", 2.0)])
def test_goal_metrics(metric: str, expected: float) -> None:
    feat = -torch.ones(2, 3, 4, 5, 6)
    goal = {"visual": torch.ones(2, 5, 6)}
    cost = GoalCost(metric=metric)
    assert_close(cost(Rollout(feat={"visual": feat}), goal, ACTIONS), torch.full((2, 3), expected))
    same = cost(Rollout(feat={"visual": -feat}), goal, ACTIONS)
    assert_close(same, torch.zeros(2, 3), atol=1e-6, rtol=0)


def test_goal_reduction_and_weights() -> None:
    steps = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    rollout = Rollout(feat={"visual": steps, "proprio": steps})
    goal = {"visual": torch.zeros(1, 1), "proprio": torch.zeros(1, 1)}
    last = GoalCost("l1")(rollout, goal, ACTIONS)
    assert_close(last, torch.tensor([[3.0]]))
    every = GoalCost("l1", reduce="all", base=2.0)(rollout, goal, ACTIONS)
    assert_close(every, torch.tensor([[(1 * 1 + 2 * 2 + 4 * 3) / 7]]))
    both = GoalCost("l1", keys={"visual": 1.0, "proprio": 0.5})
    assert_close(both(rollout, goal, ACTIONS), torch.tensor([[4.5]]))
    assert both.needs == {"visual", "proprio", "last"}


def test_goal_errors_name_the_missing_part() -> None:
    rollout = Rollout(feat={"feat": torch.zeros(1, 1, 1, 3)})
    with pytest.raises(ModelError, match="GoalCost: got no goal, expected goal="):
        GoalCost()(rollout, None, ACTIONS)
    with pytest.raises(ModelError, match=r"'visual' must be in.*rollout has \['feat'\]"):
        GoalCost()(rollout, {"visual": torch.zeros(1, 3)}, ACTIONS)
    with pytest.raises(ModelError, match=r"got shape \(1, 4\), expected \(1, 3\)"):
        GoalCost(keys={"feat": 1.0})(rollout, {"feat": torch.zeros(1, 4)}, ACTIONS)
    with pytest.raises(ModelError, match="got 'l2', expected one of mse, l1, cos"):
        GoalCost(metric="l2")


def test_penalties() -> None:
    actions = torch.tensor([[[[1.0], [-1.0]], [[2.0], [2.0]]]])  # (1, 2, 2, 1)
    assert_close(ActionPenalty()(Rollout(), None, actions), torch.tensor([[1.0, 4.0]]))
    assert_close(ActionPenalty(0.0, rate=1.0)(Rollout(), None, actions), torch.tensor([[4.0, 0.0]]))
    box = BoxPenalty((-1.0,), (1.0,), 3.0)
    assert_close(box(Rollout(), None, actions), torch.tensor([[0.0, 3.0]]))
    disagreement = Rollout(disagreement=torch.tensor([[[1.0, 3.0]]]))
    assert_close(DisagreementPenalty(0.5)(disagreement, None, actions), torch.tensor([[1.0]]))


def test_costs_add_and_scale() -> None:
    actions = torch.rand(1, 2, 3, 1)
    rollout = Rollout(reward=torch.rand(1, 2, 3))
    a, b = ReturnCost(use_value=False), ActionPenalty()
    total = 2.0 * (a + 0.5 * b)
    expected = 2 * a(rollout, None, actions) + b(rollout, None, actions)
    assert_close(total(rollout, None, actions), expected)
    assert total.needs == {"reward"} and total.optional == {"cont"} and not total.goal
    assert (a + GoalCost()).goal
    with pytest.raises(ModelError, match="holds no reward"):
        a(Rollout(), None, actions)


def test_only_costs_of_the_last_step_need_only_the_last_step() -> None:
    last, all_steps = GoalCost(), GoalCost(reduce="all")
    assert last.needs == {"visual", "last"} and all_steps.needs == {"visual"}
    assert (last + ReturnCost(use_value=False) + ActionPenalty()).needs == {
        "visual", "last", "reward",
    }  # fmt: skip
    assert (last + 2.0 * all_steps).needs == {"visual"}
    assert ReturnCost().needs == {"reward", "value"}


def test_settings_are_checked_at_their_limits() -> None:
    for gamma in (0.0, 1.0):
        ReturnCost(gamma=gamma)
    for gamma in (-0.01, 1.01, float("nan")):
        with pytest.raises(ModelError, match="gamma"):
            ReturnCost(gamma=gamma)
    GoalCost(base=1e-9)
    for base in (0.0, -1.0):
        with pytest.raises(ModelError, match="base"):
            GoalCost(base=base)
    with pytest.raises(ModelError, match="got none, expected at least one feature name"):
        GoalCost(keys={})
    for weight in (float("nan"), float("inf")):
        with pytest.raises(ModelError, match="finite weights"):
            GoalCost(keys={"feat": 1.0, "visual": weight})
    with pytest.raises(ModelError, match="'last' or 'all'"):
        GoalCost(reduce="first")


def test_a_goal_of_another_batch_is_refused() -> None:
    rollout = Rollout(feat={"visual": torch.zeros(2, 1, 1, 3)})
    with pytest.raises(ModelError, match=r"got shape \(3, 3\), expected \(2, 3\)"):
        GoalCost()(rollout, {"visual": torch.zeros(3, 3)}, ACTIONS)


def test_a_single_action_has_no_rate() -> None:
    single = torch.full((1, 1, 1, 2), 2.0)
    assert_close(ActionPenalty(0.5, rate=9.0)(Rollout(), None, single), torch.tensor([[2.0]]))
    double = torch.tensor([[[[1.0], [3.0]]]])
    assert_close(ActionPenalty(0.5, rate=2.0)(Rollout(), None, double), torch.tensor([[10.5]]))
