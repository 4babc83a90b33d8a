"""The number of actions after which a new plan is searched, whole model steps or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.wm_nodes.agent.test_delay_compensation import Exact, Line, step, weights
from wm_nodes.agent.action_selection import SearchSettings
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.errors import UserError

SKIP, HORIZON = 3, 3  # of Line, and of Exact


def make_planner(execute: int) -> ActionPlanner:
    planner = ActionPlanner(0, torch.device("cpu"), Exact("cem", SearchSettings(execute=execute)))
    planner.goal = Goal(np.full((4, 4, 3), 50, np.uint8))
    return planner


@pytest.mark.parametrize("execute", [0, 1, 2, 3, 4, 7, 100])
def test_a_plan_is_executed_for_the_set_number_of_actions(execute):
    line, planner = weights(Line()), make_planner(execute)
    interval = min(execute or SKIP, SKIP * HORIZON)
    plan = np.zeros((0, 1), np.float32)
    for tick in range(20):
        actions = planner.act(line, {"x": torch.zeros(1, 1)}, step(tick))
        assert planner.planned_ns == tick // interval * interval * 100_000_000
        if tick % interval == 0:
            plan = actions
        assert (actions == plan[tick % interval :]).all()


def test_a_model_with_context_plans_at_its_frames_only():
    line = Line()
    line.spec = replace(line.spec, context=3)
    with pytest.raises(UserError, match=r"execute: got 2, expected 0 or a multiple of 3"):
        make_planner(2).act(weights(line), {"x": torch.zeros(1, 1)}, step(0))
