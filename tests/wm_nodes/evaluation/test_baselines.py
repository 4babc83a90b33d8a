"""Baselines: bounded, seeded, without images; the search finds the best constant."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("metaworld") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)
from wm_nodes.evaluation.baselines import BASELINES, Random, baseline, best_constant, best_open_loop
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.robot import RobotError
from wm_nodes.robots.sims.metaworld import MetaWorld

SETTINGS = {"task": "drawer-close-v3", "seed": 0, "time_limit": 60, "render": "none"}


@pytest.fixture
def robot():
    with MetaWorld(**SETTINGS) as robot:
        yield robot


def test_random_covers_the_bounds_and_repeats_with_its_seed(robot):
    policy, repeated = Random(robot, 1), Random(robot, 1)
    actions = np.array([policy.act(None) for _ in range(500)])
    np.testing.assert_array_equal(actions, [repeated.act(None) for _ in range(500)])
    assert actions.min() < -0.95
    assert actions.max() > 0.95
    assert np.abs(actions).max() <= 1


def test_the_expert_closes_the_drawer(robot):
    assert evaluate(robot, baseline("expert", robot, 0, SETTINGS), 3, seed=0).success_rate == 1


def test_a_constant_closes_the_drawer_too(robot):
    policy = best_constant(robot, seed=0, trials=1, finals=2)
    assert set(np.abs(policy.action[:3])) <= {0.0, 1.0}
    assert evaluate(robot, policy, 3, seed=0).success_rate == 1


def test_open_loop_plays_an_expert_s_episode_of_another_goal(robot):
    policy = baseline("open_loop", robot, 0, SETTINGS)
    first = robot.reset()
    episodes = []
    for _ in range(2):
        policy.begin()
        episodes.append(np.array([policy.act(first) for _ in range(SETTINGS["time_limit"])]))
    assert np.abs(episodes[0] - episodes[1]).max() > 0.01
    assert np.abs(episodes[0]).max() <= 1


def test_an_unknown_baseline_names_the_choices(robot):
    with pytest.raises(RobotError, match=f"got 'greedy', expected one of {', '.join(BASELINES)}"):
        baseline("greedy", robot, 0, SETTINGS)


def test_the_best_open_loop_is_one_fixed_sequence(robot):
    with MetaWorld(**SETTINGS) as twin:
        policy = best_open_loop(robot, twin, 0, recordings=3, trials=1, finals=1)
    first = robot.reset()
    sequences = []
    for _ in range(2):
        policy.begin()
        sequences.append([policy.act(first) for _ in range(SETTINGS["time_limit"] + 2)])
    np.testing.assert_array_equal(*sequences)
    np.testing.assert_array_equal(sequences[0][-1], policy.actions[-1])
