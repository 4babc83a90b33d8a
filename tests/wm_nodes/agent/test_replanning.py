"""How often plans are made anew: after so many actions, whole model steps or not."""

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


def policy(execute: int) -> ActionPlanner:
    made = ActionPlanner(0, torch.device("cpu"), Exact("cem", SearchSettings(execute=execute)))
    made.goal = Goal(np.full((4, 4, 3), 50, np.uint8))
    return made


@pytest.mark.parametrize("execute", [0, 1, 2, 3, 4, 7, 100])
def test_a_plan_is_made_every_so_many_actions_and_carried_out_until_then(execute):
    line, made = weights(Line()), policy(execute)
    every = min(execute or SKIP, SKIP * HORIZON)
    plan = np.zeros((0, 1), np.float32)
    for tick in range(20):
        actions = made.act(line, {"x": torch.zeros(1, 1)}, step(tick))
        assert made.planned_ns == tick // every * every * 100_000_000
        if tick % every == 0:
            plan = actions
        assert (actions == plan[tick % every :]).all()


def test_a_model_that_looks_back_is_not_asked_between_its_frames():
    line = Line()
    line.spec = replace(line.spec, context=3)
    with pytest.raises(UserError, match=r"execute: got 2, expected 0 or a multiple of 3"):
        policy(2).act(weights(line), {"x": torch.zeros(1, 1)}, step(0))
