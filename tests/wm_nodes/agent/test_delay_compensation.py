"""Plans begin at the predicted state: pending actions, and the benefit of compensation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.preset import Planning
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_models.planners import CEM, GoalCost
from wm_nodes.agent.action_selection import SearchSelector, SearchSettings
from wm_nodes.agent.delay_compensation import DelayCompensator
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.in_process import DelayedPlans
from wm_nodes.agent.policy import ActionPlanner, advanced
from wm_nodes.agent.weights import Weights
from wm_nodes.records import Step

PERIOD_S = 0.1


def step(tick: int, action: float = 0.0) -> Step:
    executed = np.float32([action])
    return Step(tick * 100_000_000, ("x",), executed, executed, is_first=tick == 0, explore=False)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9), st.integers(0, 9))
def test_pending_actions_are_the_last_executed_and_the_next_planned_ones(
    before, after, received, planned
):
    delay = DelayCompensator(before * PERIOD_S)
    for tick in range(received + 1):
        delay.record(step(tick, tick))
        delay.record(step(tick, tick))  # a repeated step counts once
    delay.record_planning_time(after * PERIOD_S)
    rest = np.arange(100, 100 + planned, dtype=np.float32)[:, None]
    pending, commanded = delay.pending_actions(rest, PERIOD_S)
    assert commanded == before and pending.shape == (before + after, 1)
    past = [0.0] * before + [float(tick) for tick in range(1, received + 1)]
    upcoming = [*rest[:, 0].tolist(), *[0.0] * after][:after]
    assert pending[:, 0].tolist() == past[len(past) - before :] + upcoming


def test_without_delay_no_action_is_pending():
    assert len(DelayCompensator().pending_actions(np.ones((3, 2), np.float32), PERIOD_S)[0]) == 0


class Line(WorldModel):
    """A point on a line whose actions are velocities, three agent steps to a model step; exact."""

    def __init__(self) -> None:
        super().__init__()
        bounds = (-1.0,) * 3, (1.0,) * 3
        self.spec = ModelSpec(
            *bounds, {"image": (3, 4, 4)}, frameskip=3, model_dt=3 * PERIOD_S, has_goal=True
        )
        self.parameter = torch.nn.Parameter(torch.ones(()))

    def step(self, state, action, *, generator=None):
        return {"x": state["x"] + PERIOD_S * action.sum(-1, keepdim=True)}

    def readout(self, state, want, *, generator=None):
        return {"visual": state["x"]} if "visual" in want else {}

    def encode_goal(self, obs):
        return {"visual": obs["image"].float().mean((1, 2, 3))[:, None] / 100.0}


def weights(model: WorldModel) -> Weights:
    return Weights(1, "line", model, (1, 1), 1, ActionAdapter.of(model))


class Exact(SearchSelector):
    """A selector with its own search, as the model has no preset."""

    def _search(self, weights, explore):
        return CEM(horizon=3, samples=200, elites=20, iterations=6, sigma0=1.0)

    def planning(self, weights):
        return Planning()

    def _cost(self, weights, goal):
        return GoalCost(reduce="all")


@given(st.integers(0, 8))
def test_state_and_rest_together_predict_the_position(count):
    actions = np.linspace(-1, 1, count, dtype=np.float32)[:, None]
    line = Line()
    state, rest = advanced(weights(line), {"x": torch.zeros(1, 1)}, actions, torch.Generator())
    assert len(rest) == count % 3
    position = float(state["x"]) + PERIOD_S * float(rest.sum())
    assert position == pytest.approx(PERIOD_S * float(actions.sum()), abs=1e-6)


def run(delay_s: float, known_delay_s: float, steps: int = 60) -> list[float]:
    """Follow a goal that jumps regularly, with commands `delay_s` late; return the distances."""
    line = weights(Line())
    policy = ActionPlanner(
        0, torch.device("cpu"), Exact("cem", SearchSettings()), DelayCompensator(known_delay_s)
    )
    queue, position, distances = [0.0] * round(delay_s / PERIOD_S), 0.0, []
    action = 0.0
    for tick in range(steps):
        if tick % 15 == 0:
            target = (0.0, 0.6)[tick // 15 % 2]
            policy.goal = Goal(np.full((4, 4, 3), round(target * 100), np.uint8))
        state = {"x": torch.full((1, 1), position)}
        action = float(policy.act(line, state, step(tick, action))[0, 0])
        queue.append(action)
        position += PERIOD_S * queue.pop(0)
        distances.append(abs(position - target))
    return distances


def test_a_delay_that_is_known_costs_less():
    """With the true model and 300 ms, following a goal that jumps."""
    uncompensated, compensated, undelayed = run(0.3, 0.0), run(0.3, 0.3), run(0.0, 0.0)
    assert np.mean(compensated) < 0.8 * np.mean(uncompensated)
    assert np.mean(undelayed) < np.mean(compensated)


@given(st.integers(0, 5), st.integers(1, 12))
def test_a_late_plan_s_point_is_the_one_that_is_due(delay_steps, points):
    """The actions of plan t are t, t + 1 ...: each equals the time at which it is due."""
    delayed_plans = DelayedPlans(delay_steps * PERIOD_S, PERIOD_S, ("x",))
    for tick in range(15):
        plan = np.arange(tick, tick + points, dtype=np.float32)[:, None] + 1
        due = float(delayed_plans.due(tick * 100_000_000, plan, plan[0])[0])
        assert due == (tick + 1 if tick >= delay_steps and delay_steps < points else 0.0)
