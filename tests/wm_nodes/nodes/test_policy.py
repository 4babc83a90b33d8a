"""Search settings change while the policy or agent node runs: `ros2 param set`, real rclpy."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter

from tests.wm_models.families.dino_wm.dino_tiny import EMBODIMENT, TINY
from tests.wm_nodes.nodes.test_goals import (
    CPU,
    SEARCH,
    SMALL,
    Arm,
    add_chain,
    image_of,
    joints_of,
    step_of,
)
from wm_models.registry import PRESETS
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.agent.action_selection import SearchSettings, action_selector
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.in_process import NEEDS
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import load_weights
from wm_nodes.nodes.policy import LIVE

CHANGES = {
    "samples": 16, "iterations": 4, "temperature": 8.0, "objective": "last", "goal_visual": 100.0,
    "goal_proprio": 1000.0, "horizon": 3,
}  # fmt: skip
GOAL = Goal(image_of(99), joints_of(99))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A store with one version of a model with a frameskip of 2."""
    preset = replace(TINY, model=replace(TINY.model, encoder=SMALL, context=1), samples=20)
    monkeypatch.setitem(PRESETS, "dino_tiny", preset)
    manifest = Manifest(1, "dino_tiny", action_dim=2, body=EMBODIMENT.to_json())
    WeightStore(tmp_path / "w").save(preset.build(EMBODIMENT, 3).modules_by_name(), manifest)
    return tmp_path / "w"


def start(graph, composition: str, weights, planner: str = "mppi"):
    """The node that plans, with a goal."""
    node = add_chain(graph, composition, weights, planner)[-1]
    (node._policy if composition == "fused" else node._core).goal = GOAL
    return node


def set_parameters(graph, node, **values):
    """The response of the node's parameter service."""
    name = f"{node.get_fully_qualified_name()}/set_parameters_atomically"
    client = graph.probe.create_client(SetParametersAtomically, name)
    graph.until(client.service_is_ready)
    request = SetParametersAtomically.Request()
    request.parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
    response = client.call_async(request)
    graph.until(response.done)
    return response.result().result


def expected_plans(weights, ticks: int, changes: dict[int, dict[str, object]]) -> list[np.ndarray]:
    """Plans without ROS; settings change after the plans of these ticks."""
    loaded, encoder, state_filter = (
        load_weights(weights, NEEDS, CPU),
        Encoder(),
        StateFilter(5, CPU),
    )
    settings = SearchSettings(**SEARCH)
    planner = ActionPlanner(5, CPU, action_selector("mppi", settings))
    planner.goal, plans = GOAL, []
    for tick in range(1, ticks + 1):
        tokens = encoder.encode(loaded, image_of(tick), joints_of(tick))
        state = state_filter.update(loaded, tokens, step_of(tick))
        plans.append(planner.act(loaded, state, step_of(tick)))
        if tick in changes:
            settings = replace(settings, **changes[tick])
            planner.configure(settings)
    return plans


@pytest.mark.parametrize("composition", ["split", "fused"])
def test_every_live_setting_acts_at_the_next_plan(graph, weights, composition: str):
    """Each is set during a plan: the plan is executed to its end, the next one uses the setting."""
    assert set(CHANGES) == set(LIVE)
    changes = {2 * i + 1: {name: value} for i, (name, value) in enumerate(CHANGES.items())}
    ticks = 2 * len(CHANGES) + 1
    expected = expected_plans(weights, ticks, changes)
    node = start(graph, composition, weights)
    arm = Arm(graph, composition)
    for tick in range(1, ticks + 1):
        np.testing.assert_allclose(arm.request_plan(tick).actions, expected[tick - 1], atol=1e-5)
        if tick in changes:
            assert set_parameters(graph, node, **changes[tick]).successful
    for tick, change in changes.items():  # each setting decides the plan after it
        others = {t: c for t, c in changes.items() if t != tick}
        without_change = expected_plans(weights, tick + 2, others)[-1]
        assert without_change.shape != expected[tick + 1].shape or not np.allclose(
            without_change, expected[tick + 1], atol=1e-3
        ), change


def test_a_wrong_value_is_refused_and_the_old_one_stays(graph, weights):
    node = start(graph, "fused", weights)
    before = node.params
    for values, reason in (
        ({"samples": -1}, "samples"),
        ({"objective": "best"}, "objective: got 'best', expected "),
        ({"goal_visual": 0.0, "goal_proprio": 0.0}, "goal_visual: got 0.0, expected more than 0"),
        ({"samples": 32, "objective": "best"}, "objective"),
        ({"planner": "cem"}, "planner|read-only"),
    ):
        response = set_parameters(graph, node, **values)
        assert not response.successful
        assert re.search(reason, response.reason), response.reason
        for name in values:
            assert node.get_parameter(name).value == getattr(before, name)
    assert node.params == before
    arm = Arm(graph, "fused")
    expected = expected_plans(weights, 3, {})
    for tick in range(1, 4):
        np.testing.assert_allclose(arm.request_plan(tick).actions, expected[tick - 1], atol=1e-5)


@pytest.mark.parametrize(
    ("planner", "reason"),
    [("cem", "temperature: got 2 for planner cem, expected 0"), ("actor", "for planner actor")],
)
def test_a_setting_that_the_planner_does_not_take_is_refused(
    graph, weights, planner: str, reason: str
):
    node = start(graph, "fused", weights, planner)
    response = set_parameters(graph, node, temperature=2.0)
    assert not response.successful and reason in response.reason
    assert node.get_parameter("temperature").value == 0.0
