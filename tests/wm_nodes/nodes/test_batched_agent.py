"""One agent for the robots of two environments, each in a namespace of its own."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from tests.wm_nodes.nodes.test_chain import announce
from wm_nodes.errors import UserError
from wm_nodes.nodes.agent import AgentNode
from wm_nodes.nodes.batched_agent import BatchedAgentNode
from wm_nodes.nodes.trainer import TrainerNode
from wm_nodes.records import Step
from wm_nodes.robots.environments import environment_seed
from wm_nodes.ros import messages, topics

TOP = {"camera": "top"}


class Environment:
    """Publishes observations of one environment as its robot node does, and receives plans."""

    def __init__(self, graph, place: str) -> None:
        self.graph, probe = graph, graph.probe
        self.image = topics.IMAGE_RAW.below(place).always(probe, camera="top")
        self.steps = topics.STEPS.below(place).always(probe)
        self.plans = graph.subscribe(topics.PLAN.below(place), messages.plan_from_msg)
        self.shown = graph.subscribe(topics.IMAGE.below(place), camera="top")
        graph.matched(self.steps)
        graph.matched(self.image)
        graph.spin(0.2)

    def show(self, tick: int, **rest) -> None:
        stamp, executed = tick * 100_000_000, np.float32([0.5])
        step = Step(stamp, ("push",), executed, executed, **{"explore": True, **rest})
        self.steps.publish(messages.step_to_msg(step))
        image = np.full((64, 64, 3), 10 * tick % 255, np.uint8)
        self.image.publish(messages.image_to_msg(image, stamp))

    def actions(self, tick: int) -> np.ndarray:
        """Wait for the plan of an observation; return its actions."""

        def found():
            return [plan for plan in self.plans if plan.stamp_ns == tick * 100_000_000]

        self.graph.until(found)
        return found()[-1].actions


def test_each_environment_gets_the_plans_of_an_agent_of_its_own(graph, store):
    common = {"weights": str(store.path(1)), **TOP}
    graph.add(BatchedAgentNode, envs=2, seed=5, **common)
    pair = [Environment(graph, f"env_{number}") for number in range(2)]
    for tick in range(1, 5):
        for each in pair:
            each.show(tick, is_first=tick == 1)
        for each in pair:
            each.actions(tick)
    for number, each in enumerate(pair):
        alone = graph.neighbour()
        alone.add(AgentNode, seed=environment_seed(5, number), **common)
        single = Environment(alone, "")
        for tick in range(1, 5):
            single.show(tick, is_first=tick == 1)
            expected = single.actions(tick)
            np.testing.assert_allclose(each.actions(tick), expected, rtol=0, atol=1e-4)


def test_a_silent_environment_blocks_no_other_and_every_image_is_shown(graph, store):
    graph.add(BatchedAgentNode, envs=2, weights=str(store.path(1)), **TOP)
    talking, silent = (Environment(graph, f"env_{number}") for number in range(2))
    for tick in range(1, 4):
        talking.show(tick, is_first=tick == 1)
        talking.actions(tick)
    talking.show(4, is_last=True)  # a robot begins the next episode without an answer
    talking.show(5, is_first=True)
    talking.actions(5)
    graph.until(lambda: len(talking.shown) >= 5)
    stamps = [messages.from_time(msg.header.stamp) // 100_000_000 for msg in talking.shown]
    assert sorted(set(stamps)) == [1, 2, 3, 4, 5] and not silent.plans


def test_a_repeated_observation_gets_the_same_plan_and_new_weights_come_with_an_episode(
    graph, store
):
    agent = graph.add(BatchedAgentNode, envs=2, weights=str(store.path(1)), **TOP)
    first, second = (Environment(graph, f"env_{number}") for number in range(2))
    for each in (first, second):
        each.show(1, is_first=True)
        each.actions(1)
    announce(graph, store, 2)
    graph.until(lambda: agent.weight_cache.newest.version == 2)
    before = len(first.plans)
    first.show(1, is_first=True)
    graph.until(lambda: len(first.plans) > before)
    assert str(first.plans[-1].origin) == "mwm_cpu/actor@1"
    assert first.plans[-1].actions.tolist() == first.plans[0].actions.tolist()
    first.show(2)
    second.show(2, is_first=True)
    for each, version in ((first, 1), (second, 2)):
        each.actions(2)
        assert each.plans[-1].origin.version == version


def test_without_weights_each_environment_draws_random_actions_of_its_own(graph):
    graph.add(BatchedAgentNode, envs=2, **TOP)
    pair = [Environment(graph, f"env_{number}") for number in range(2)]
    for each in pair:
        each.show(1, is_first=True)
    drawn = [each.actions(1).tolist() for each in pair]
    assert drawn[0] != drawn[1]


def test_real_time_is_refused(graph):
    with pytest.raises(UserError, match=r"mode: got realtime, expected lockstep"):
        graph.add(BatchedAgentNode, envs=2, mode="realtime", **TOP)


def test_the_trainer_paces_each_environment(graph, tmp_path):
    graph.add(TrainerNode, run=str(tmp_path), envs=2)
    paces = [graph.subscribe(topics.PACE.below(f"env_{number}")) for number in range(2)]
    graph.until(lambda: all(paces))
    assert paces[0][-1].data == paces[1][-1].data > 0  # the prefill
