"""Receding horizon: a chunk of each plan is executed, the next search starts at the remainder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm_models.errors import ModelError
from wm_models.interface.planner import PlanState
from wm_models.planners import CEM, Receding, ReturnCost
from wm_models.planners.receding_horizon import search_due, shifted_start
from wm_models.testing.contracts import seeded
from wm_models.testing.linear_model import LinearModel

RETURN = ReturnCost(use_value=False)


@pytest.fixture
def point() -> LinearModel:
    return LinearModel(torch.eye(2), 0.3 * torch.eye(2), torch.tensor([2.0, -0.5]))


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_search_is_due_at_first_and_after_every_chunk(execute_k: int, planned: int) -> None:
    chunk = min(execute_k, planned)
    due = [search_due(executed, execute_k, planned) for executed in range(planned + 2)]
    assert due == [executed == 0 or executed >= chunk for executed in range(planned + 2)]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 25))
def test_the_next_search_starts_at_the_remaining_plan(
    horizon: int, skip: int, executed: int
) -> None:
    plan = torch.arange(1.0, 1.0 + horizon * skip * 2).reshape(1, horizon, skip * 2)
    start = shifted_start(PlanState(plan), executed, skip).mean
    assert start.shape == plan.shape
    actions, next_actions = (x.reshape(horizon * skip, 2) for x in (plan, start))
    skipped = min(executed, horizon * skip)
    assert torch.equal(next_actions[: horizon * skip - skipped], actions[skipped:])
    assert not next_actions[horizon * skip - skipped :].any()


def test_a_chunk_is_executed_before_the_next_search(point) -> None:
    receding = Receding(CEM(horizon=4, iterations=2), execute_k=3)
    warm, searched, plans = None, [], []
    for _ in range(7):
        actions, warm, info = receding.plan(
            point, point.initial(1), RETURN, warm=warm, generator=seeded()
        )
        searched.append(int(info["searched"]))
        plans.append(actions)
    assert searched == [1, 0, 0, 1, 0, 0, 1]
    assert [p.shape[1] for p in plans] == [4, 3, 2, 4, 3, 2, 4]
    assert plans[1].equal(plans[0][:, 1:]) and plans[2].equal(plans[0][:, 2:])


@dataclass(frozen=True)
class RecordingPlanner:
    """Returns a fixed plan and records its warm starts."""

    warm_starts: list
    horizon: int = 4

    def plan(self, model, state, cost, goal=None, warm=None, budget_s=None, generator=None):
        self.warm_starts.append(warm)
        mean = torch.arange(1.0, 5.0).reshape(1, 4, 1)
        return mean, PlanState(mean, goal), {}


@pytest.mark.parametrize(("reuse", "expected"), [("shift", [3.0, 4.0, 0.0, 0.0]), ("none", None)])
def test_the_warm_start_of_the_next_search_is_the_shifted_plan(reuse: str, expected) -> None:
    inner = RecordingPlanner([])
    receding, warm = Receding(inner, execute_k=2, reuse=reuse), None
    for _ in range(3):
        _, warm, _ = receding.plan(None, None, RETURN, warm=warm)
    assert inner.warm_starts[0] is None and len(inner.warm_starts) == 2
    assert (inner.warm_starts[1] and inner.warm_starts[1].mean[0, :, 0].tolist()) == expected


def test_receding_settings_are_checked() -> None:
    with pytest.raises(ModelError, match="got 7, expected 1 to 6, the planner's horizon"):
        Receding(CEM(), execute_k=7)
    with pytest.raises(ModelError, match="got 'roll', expected 'shift' or 'none'"):
        Receding(CEM(), reuse="roll")
