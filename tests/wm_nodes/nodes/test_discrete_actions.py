"""Discrete actions through the nodes: random plans, executed one-hot vectors, unfit weights."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from tests.wm_nodes import gym_tasks
from wm_datasets.spec import LogSpec
from wm_models.registry import preset
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.control.plans import PlanMaker
from wm_nodes.errors import UserError
from wm_nodes.nodes.agent import AgentNode
from wm_nodes.nodes.policy import PolicyNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.records import Origin, Plan, Step
from wm_nodes.ros import messages, topics

ROBOT = {"adapter": "gym", "task": gym_tasks.CHOICES, "camera": "image", "action_repeat": 1}


@pytest.mark.parametrize("kind", [AgentNode, PolicyNode])
def test_all_random_plans_are_one_hot_vectors_also_where_the_spec_comes_late(
    graph, monkeypatch, kind
) -> None:
    learn, received = PlanMaker.learn, list[LogSpec]()
    monkeypatch.setattr(PlanMaker, "learn", lambda _, spec: received.append(spec))  # it comes late
    steps = graph.subscribe(topics.STEPS, messages.step_from_msg)
    planner = graph.add(kind, **({"camera": "image"} if kind is AgentNode else {}))
    graph.add(RobotNode, **ROBOT, time_limit=5, retry_s=0.05)
    graph.until(lambda: received and len(steps) > 10)
    assert len({step.stamp_ns for step in steps}) == 1  # the first observation, again and again
    learn(planner._maker, received[0])
    graph.until(lambda: len({step.stamp_ns for step in steps}) > 25)
    later = [step for step in steps if not step.is_first]
    commanded = np.stack([step.commanded for step in later])
    assert set(np.unique(commanded)) == {0, 1}
    assert (commanded.sum(1) == 1).all() and (commanded.sum(0) > 0).all()
    np.testing.assert_array_equal(commanded, np.stack([step.executed for step in later]))


def test_a_spec_of_plain_video_does_not_keep_random_plans_back(graph) -> None:
    video = LogSpec("camera", "none", 0.1, {"image": (8, 8, 3)}, None, None)
    plans = graph.subscribe(topics.PLAN, messages.plan_from_msg)
    steps = topics.STEPS.always(graph.probe)
    topics.SPEC.always(graph.probe).publish(messages.spec_to_msg(video))
    node = graph.add(PolicyNode)
    graph.matched(steps)
    graph.until(lambda: node._maker.knows_robot)
    zeros = np.zeros(2, np.float32)
    steps.publish(messages.step_to_msg(Step(1, ("a", "b"), zeros, zeros, is_first=True)))
    graph.until(lambda: plans)
    assert (np.abs(plans[0].actions) <= 1).all()


def test_the_largest_number_of_a_plan_is_executed_one_hot(graph) -> None:
    steps = graph.subscribe(topics.STEPS, messages.step_from_msg)
    spec = graph.subscribe(topics.SPEC, messages.spec_from_msg)
    plans = topics.PLAN.always(graph.probe)
    graph.add(RobotNode, **ROBOT)
    graph.matched(plans)
    graph.until(lambda: steps and spec)
    assert spec[-1].action.discrete
    requested = np.float32([[0.2, 0.5, 0.3]])
    plan = Plan(steps[-1].stamp_ns, Origin("mine", "actor", 1), spec[-1].action.names, requested, 0)
    plans.publish(messages.plan_to_msg(plan))
    graph.until(lambda: not steps[-1].is_first)
    assert steps[-1].executed.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(steps[-1].commanded, requested[0])


def test_weights_for_continuous_actions_are_a_mistake_of_the_user(graph, tmp_path) -> None:
    manifest = Manifest(1, "mwm_cpu", action_dim=3)
    WeightStore(tmp_path).save(preset("mwm_cpu").build(3).modules_by_name(), manifest)
    graph.add(AgentNode, camera="image", weights=str(tmp_path))
    graph.add(RobotNode, **ROBOT)
    with pytest.raises(UserError, match="of mwm_cpu for continuous actions, expected discrete"):
        graph.until(lambda: False)
