"""An agent without ROS acts as the nodes of the graph do; differences are reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.wm_nodes.tiny import TINY, LargeImagePoint
from wm_datasets.spec import VectorSpec
from wm_models.registry import PRESETS
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.agent.action_selection import action_selector
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.in_process import NEEDS, LearnedPolicy, differences
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import load_weights
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.errors import UserError
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.robot import RobotError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A store with one version of the tiny model."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    extra = {"task": "elsewhere", "robot": "point", "camera": "top"}
    manifest = Manifest(1, "tiny", action_dim=1, extra=extra)
    WeightStore(tmp_path).save(TINY.build(1, seed=4).modules_by_name(), manifest)
    return tmp_path


@pytest.mark.parametrize("planner", ["actor", "cem"])
def test_it_acts_as_the_nodes_of_a_graph_in_evaluation_episodes(folder, planner):
    """The robot node's runner, the split nodes' packed states, and this loop: the same actions."""
    weights = load_weights(folder, NEEDS, CPU)
    encoder, state_filter = Encoder(), StateFilter(3, CPU)
    policy = ActionPlanner(3, CPU, action_selector(planner))
    graph_actions = []
    with LargeImagePoint(time_limit=4) as robot:
        runner = EpisodeRunner(robot, Schedule(StopCriteria(episodes=2, evaluate=True), seed=3))
        transition = runner.begin()
        while transition is not None:
            step = transition.step
            tokens = encoder.encode(weights, transition.images["top"])
            state = state_filter.update(weights, tokens, step)
            if step.is_last:
                transition = runner.begin()
                continue
            flat = torch.from_numpy(weights.model.pack(state).numpy())
            action = policy.act(weights, weights.model.unpack(flat), step)[0]
            transition = runner.execute(action, weights.origin(policy.module))
            graph_actions.append(transition.step.executed)
    actions = []
    with LargeImagePoint(time_limit=4) as robot:
        learned_policy = LearnedPolicy.load(
            folder, robot.spec, seed=3, planner=planner, device="cpu"
        )
        append = actions.append
        evaluate(
            robot,
            learned_policy,
            2,
            seed=3,
            watch=lambda observation: observation.is_first or append(observation.executed),
        )
    assert len(graph_actions) == 8
    np.testing.assert_array_equal(graph_actions, actions)


def test_begin_forgets_the_last_episode(folder):
    with LargeImagePoint() as robot:
        policy = LearnedPolicy.load(folder, robot.spec, device="cpu")
        first = evaluate(robot, policy, 1, seed=0).rows
    with LargeImagePoint() as robot:  # the same clock, so the same noise
        policy.begin()
        assert evaluate(robot, policy, 1, seed=0).rows == first


def test_exploring_differs_from_the_mode(folder):
    weights = load_weights(folder, NEEDS, CPU)
    with LargeImagePoint() as robot:
        observation = robot.reset(0)
        actions = {
            explore: LearnedPolicy(weights, robot.spec, explore=explore).act(observation)
            for explore in (False, True)
        }
    assert actions[False] != actions[True]


def test_larger_images_are_resized(folder):
    with LargeImagePoint(size=64) as robot:
        action = LearnedPolicy.load(folder, robot.spec, device="cpu").act(robot.reset(0))
    assert action.shape == (1,)
    assert abs(action).max() <= 1


def test_differences_from_training_are_reported(folder):
    with LargeImagePoint() as robot:
        assert differences(folder, robot.spec) == ["task: trained with elsewhere, this is origin"]


def test_unknown_camera_and_planner_are_refused(folder):
    weights = load_weights(folder, NEEDS, CPU)
    with LargeImagePoint() as robot:
        with pytest.raises(RobotError, match=r"camera: got 'side', expected one of \['top'\]"):
            LearnedPolicy(weights, robot.spec, camera="side")
        with pytest.raises(RobotError, match="got 'mpc', expected one of actor, cem, mppi, gd"):
            LearnedPolicy(weights, robot.spec, planner="mpc")


def test_weights_for_continuous_actions_do_not_act_on_a_discrete_set(folder):
    weights = load_weights(folder, NEEDS, CPU)
    with LargeImagePoint() as robot:
        spec = replace(robot.spec, action=VectorSpec.one_hot(("push",)))
        with pytest.raises(UserError, match="of tiny for continuous actions, expected discrete"):
            LearnedPolicy(weights, spec)


@pytest.mark.parametrize("planner", ["cem", "mppi", "gd"])
def test_a_search_does_not_act_on_a_discrete_set(folder, planner):
    weights = load_weights(folder, NEEDS, CPU)
    weights.model.spec = replace(weights.model.spec, discrete=True)
    with LargeImagePoint() as robot:
        spec = replace(robot.spec, action=VectorSpec.one_hot(("push",)))
        with pytest.raises(UserError, match=f"planner: got '{planner}'.*expected actor"):
            LearnedPolicy(weights, spec, planner=planner)
        LearnedPolicy(weights, spec, planner="actor")
