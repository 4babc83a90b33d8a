"""A model with a frameskip and proprioception plans to goals, split and fused, as without ROS."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger

from tests.wm_models.families.dino_wm.dino_tiny import EMBODIMENT, TINY
from tests.wm_nodes.nodes.test_chain import CHAIN, TOP
from wm_models.encoders.conv import ConvConfig
from wm_models.registry import PRESETS
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.agent.action_selection import SearchSettings, action_selector
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.goals import Goal, read_goal
from wm_nodes.agent.in_process import NEEDS
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import load_weights
from wm_nodes.errors import MessageError, UserError
from wm_nodes.nodes.agent import AgentNode
from wm_nodes.nodes.camera import CameraNode
from wm_nodes.records import Step
from wm_nodes.ros import messages, topics

CPU = torch.device("cpu")
NAMES = ("dx", "dy")
JOINTS = ("x", "y", "z")
PERIOD_NS = round(EMBODIMENT.period_s * 1e9)
SEARCH = {"horizon": 2, "samples": 8, "iterations": 2}
SMALL = ConvConfig(image_size=64, channels=(4, 4, 8, 8), width=12)


@pytest.fixture(params=[1, 3], ids=["one-frame", "history"])
def weights(request, tmp_path, monkeypatch):
    """A store with one version; the context of the model is one frame, or three."""
    model = replace(TINY.model, encoder=SMALL, context=request.param)
    preset = replace(TINY, model=model, samples=20)
    monkeypatch.setitem(PRESETS, "dino_tiny", preset)
    manifest = Manifest(1, "dino_tiny", action_dim=2, body=EMBODIMENT.to_json())
    WeightStore(tmp_path / "w").save(preset.build(EMBODIMENT, 3).modules_by_name(), manifest)
    return tmp_path / "w"


def image_of(tick: int) -> np.ndarray:
    random = np.random.default_rng(tick)
    return random.integers(0, 256, (64, 64, 3)).astype(np.uint8)


def joints_of(tick: int) -> np.ndarray:
    return np.random.default_rng(tick).normal(size=3).astype(np.float32)


def step_of(tick: int, executed=(0.2, 0.4), **rest) -> Step:
    action = np.float32((0, 0) if tick == 1 else executed)
    return Step(tick * PERIOD_NS, NAMES, action, action, is_first=tick == 1, explore=False, **rest)


def plans_without_ros(
    weights, ticks: int, goal: Goal | None, planner: str = "cem"
) -> list[np.ndarray]:
    """Plans of encoder, state filter and planner without nodes."""
    loaded = load_weights(weights, NEEDS, CPU)
    encoder, state_filter = Encoder(), StateFilter(5, CPU)
    policy = ActionPlanner(5, CPU, action_selector(planner, SearchSettings(**SEARCH)))
    policy.goal = goal
    plans = []
    for tick in range(1, ticks + 1):
        tokens = encoder.encode(loaded, image_of(tick), joints_of(tick))
        state = state_filter.update(loaded, tokens, step_of(tick))
        plans.append(policy.act(loaded, state, step_of(tick)))
    return plans


class Arm:
    """Publishes observations as the robot node does, joint_states included; receives plans."""

    def __init__(self, graph, composition: str) -> None:
        self.graph = graph
        self.image = topics.IMAGE_RAW.always(graph.probe, camera="top")
        self.steps = topics.STEPS.always(graph.probe)
        self.joints = topics.JOINT_STATES.always(graph.probe)
        self.plans = graph.subscribe(topics.PLAN, messages.plan_from_msg)
        graph.matched(self.steps, 1 if composition == "fused" else 3)
        graph.matched(self.joints)
        graph.matched(self.image)
        graph.spin(0.2)

    def publish_observation(self, tick: int) -> None:
        stamp = tick * PERIOD_NS
        self.joints.publish(messages.joints_to_msg(JOINTS, joints_of(tick), stamp))
        self.steps.publish(messages.step_to_msg(step_of(tick)))
        self.image.publish(messages.image_to_msg(image_of(tick), stamp))

    def request_plan(self, tick: int):
        before, stamp = len(self.plans), tick * PERIOD_NS
        self.publish_observation(tick)
        self.graph.until(lambda: len(self.plans) > before)
        assert self.plans[-1].stamp_ns == stamp
        return self.plans[-1]


def add_chain(graph, composition: str, weights, planner: str = "cem", **parameters) -> list:
    common = {"weights": str(weights), "seed": 5, **parameters}
    search = {"planner": planner, **SEARCH}
    if composition == "fused":
        return [graph.add(AgentNode, **TOP, **common, **search)]
    nodes = []
    for kind, camera in CHAIN.items():
        arguments = {} if kind is CameraNode else common if camera else common | search
        nodes.append(graph.add(kind, **camera, **arguments))
    return nodes


each_composition = pytest.mark.parametrize("composition", ["split", "fused"])


@each_composition
def test_split_and_fused_plan_as_without_ros(graph, weights, composition: str, tmp_path):
    """Plans in robot units, executed for one model step, then planned again."""
    goal = Goal(image_of(99), joints_of(99))
    expected = plans_without_ros(weights, 5, goal)
    add_chain(graph, composition, weights)
    arm = Arm(graph, composition)
    for topic, msg in (
        (topics.GOAL_JOINTS, messages.joints_to_msg(JOINTS, goal.proprio, 7)),
        (topics.GOAL, messages.image_to_msg(goal.image, 7)),
    ):
        graph.matched(topic.always(graph.probe)).publish(msg)
        graph.spin(0.3)
    plans = [arm.request_plan(tick) for tick in range(1, 6)]
    for plan, actions in zip(plans, expected, strict=True):
        assert str(plan.origin) == "dino_tiny/cem@1"
        np.testing.assert_allclose(plan.actions, actions, atol=1e-5)
        assert (plan.actions >= EMBODIMENT.action_low).all() and (
            plan.actions <= EMBODIMENT.action_high
        ).all()
    lengths = [len(plan.actions) for plan in plans]
    assert lengths == [4, 3, 4, 3, 4]  # two model steps of two agent steps each; one is executed
    np.testing.assert_array_equal(plans[1].actions, plans[0].actions[1:])


@each_composition
def test_features_and_latents_name_the_module_that_computed_them(graph, weights, composition: str):
    """DINO-WM's state is a window of encoder tokens: its encoder computes both."""
    nodes = add_chain(graph, composition, weights)
    features, latents = graph.subscribe(topics.FEATURES), graph.subscribe(topics.LATENT)
    for topic in (topics.FEATURES, topics.LATENT):
        graph.until(lambda topic=topic: graph.probe.count_publishers(topic.name) > 0)
    spec = next(n.weight_cache.newest for n in nodes if hasattr(n, "weight_cache")).model.spec
    Arm(graph, composition).request_plan(1)
    graph.until(lambda: features and latents)
    assert features[0].header.frame_id == f"dino_tiny/{spec.encoder_module}@1"
    assert latents[0].header.frame_id == f"dino_tiny/{spec.state_module}@1"
    assert spec.state_module == "encoder"


@each_composition
def test_without_a_goal_it_moves_at_random_in_lock_step(graph, weights, composition: str):
    nodes = add_chain(graph, composition, weights)
    plan = Arm(graph, composition).request_plan(1)
    assert str(plan.origin) == "random/uniform@-1"
    assert "goal" in nodes[-1].diagnostics.faults


def test_without_a_goal_it_publishes_no_plan_in_real_time(graph, weights):
    (agent,) = add_chain(graph, "fused", weights, mode="realtime")
    arm = Arm(graph, "fused")
    with pytest.raises(AssertionError, match="did not hold"):
        before = len(arm.plans)
        arm.joints.publish(messages.joints_to_msg(JOINTS, joints_of(1), PERIOD_NS))
        arm.steps.publish(messages.step_to_msg(step_of(1)))
        arm.image.publish(messages.image_to_msg(image_of(1), PERIOD_NS))
        graph.until(lambda: len(arm.plans) > before, timeout_s=1.0)
    assert "goal" in agent.diagnostics.faults


@each_composition
@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_a_refused_plan_is_not_published_and_its_reason_is_shown(
    graph, weights, composition: str, mode: str
):
    """With a goal of NaN no plan is published, so that the robot stops, until the goal is valid."""
    nodes = add_chain(graph, composition, weights, mode=mode)
    policy = nodes[-1]._policy if composition == "fused" else nodes[-1]._core
    policy.goal = Goal(image_of(9), np.full(3, np.nan, np.float32))
    arm = Arm(graph, composition)
    diagnostics = nodes[-1].diagnostics
    arm.publish_observation(1)
    graph.until(lambda: "plan" in diagnostics.active_faults)
    graph.spin(0.2)
    assert not arm.plans
    assert "no finite cost" in diagnostics.active_faults["plan"]
    status = diagnostics.status("/wm/policy")
    assert status.level == DiagnosticStatus.ERROR and "no finite cost" in status.message
    policy.goal = Goal(image_of(9), joints_of(9))
    assert str(arm.request_plan(2).origin) == "dino_tiny/cem@1"
    assert "plan" not in diagnostics.active_faults


@pytest.mark.parametrize(("budget_s", "cut_short"), [(1e-6, True), (0.0, False)])
def test_a_search_that_is_cut_short_is_a_fault(graph, weights, budget_s, cut_short):
    search = {**SEARCH, "iterations": 3, "budget_s": budget_s}
    goal_parameters = {"mode": "realtime", "goal": str(weights.parent / "goal.png")}
    cv2.imwrite(goal_parameters["goal"], image_of(9))
    common = {"weights": str(weights), "seed": 5, "planner": "cem"}
    agent = graph.add(AgentNode, **TOP, **common, **search, **goal_parameters)
    Arm(graph, "fused").request_plan(1)
    graph.until(lambda: "rounds" in agent.diagnostics.facts)
    assert ("search" in agent.diagnostics.active_faults) == cut_short
    assert agent.diagnostics.facts["rounds"] == ("1 of 3" if cut_short else "3 of 3")


@each_composition
def test_the_present_observation_becomes_the_goal(graph, weights, composition: str):
    nodes = add_chain(graph, composition, weights)
    arm = Arm(graph, composition)
    arm.request_plan(1)
    encoder_node = nodes[0] if composition == "fused" else nodes[1]
    policy = nodes[-1]._policy if composition == "fused" else nodes[-1]._core
    client = graph.probe.create_client(Trigger, "set_goal_here")
    graph.until(client.service_is_ready)
    response = client.call_async(Trigger.Request())
    graph.until(response.done)
    assert response.result().success
    graph.until(lambda: policy.goal is not None and policy.goal.proprio is not None)
    np.testing.assert_array_equal(policy.goal.image, image_of(1))
    np.testing.assert_allclose(policy.goal.proprio, joints_of(1), rtol=1e-6)
    assert str(arm.request_plan(2).origin) == "dino_tiny/cem@1"
    assert encoder_node.get_name() in ("agent", "encoder")


def test_a_goal_from_a_file(graph, weights, tmp_path):
    path = tmp_path / "goal.png"
    cv2.imwrite(str(path), cv2.cvtColor(image_of(9), cv2.COLOR_RGB2BGR))
    np.testing.assert_array_equal(read_goal(path).image, image_of(9))
    (agent,) = add_chain(graph, "fused", weights, goal=str(path))
    np.testing.assert_array_equal(agent._policy.goal.image, image_of(9))
    plan = Arm(graph, "fused").request_plan(1)
    np.testing.assert_allclose(
        plan.actions, plans_without_ros(weights, 1, Goal(image_of(9)))[0], atol=1e-5
    )
    with pytest.raises(UserError, match="expected a PNG or JPEG"):
        read_goal(tmp_path / "none.png")


def test_goals_of_any_size_are_resized_and_a_new_goal_takes_effect_at_once(weights):
    loaded = load_weights(weights, NEEDS, CPU)
    policy = ActionPlanner(5, CPU, action_selector("cem", SearchSettings(**SEARCH)))
    state_filter, encoder = StateFilter(5, CPU), Encoder()
    tokens = encoder.encode(loaded, image_of(1), joints_of(1))
    state = state_filter.update(loaded, tokens, step_of(1))
    policy.goal = Goal(np.zeros((48, 80, 3), np.uint8))
    first = policy.act(loaded, state, step_of(1))
    policy.goal = Goal(image_of(7), joints_of(7))
    assert len(policy.act(loaded, state, step_of(2))) == len(
        first
    )  # a new plan, not the rest of the old one
    with pytest.raises(MessageError, match="got 2 numbers, expected 3 for model dino_tiny"):
        policy.goal = Goal(image_of(7), np.zeros(2, np.float32))
        policy.act(loaded, state, step_of(3))


def test_a_model_without_an_actor_names_the_planners_that_it_allows(weights):
    loaded = load_weights(weights, NEEDS, CPU)
    with pytest.raises(UserError, match=r"dino_tiny has no actor, expected one of cem, mppi, gd"):
        ActionPlanner(5, CPU, action_selector("actor")).can_act(loaded)
    policy = ActionPlanner(5, CPU, action_selector("cem"))
    assert not policy.can_act(loaded)
    policy.goal = Goal(image_of(1))
    assert policy.can_act(loaded)


@pytest.mark.parametrize("planner", ["mppi", "gd"])
def test_other_planners_plan_to_goals_too(weights, planner: str):
    plans = plans_without_ros(weights, 2, Goal(image_of(5), joints_of(5)), planner)
    assert [len(plan) for plan in plans] == [4, 3] and np.isfinite(plans[0]).all()


def test_the_filter_uses_every_second_observation_and_starts_again_after_a_gap(weights):
    loaded = load_weights(weights, NEEDS, CPU)
    state_filter, encoder = StateFilter(0, CPU), Encoder()
    history = loaded.model.spec.context > 1
    lengths = []
    for tick in (1, 2, 3, 4, 5, 9):
        step = step_of(tick, executed=(0.1 * tick, 0.4))
        if tick == 9:  # in real time images are skipped; steps are received
            for skipped in (6, 7, 8):
                state_filter.record(step_of(skipped))
        tokens = encoder.encode(loaded, image_of(tick), joints_of(tick))
        state = state_filter.update(loaded, tokens, step)
        lengths.append(int(state.length))
    assert lengths == ([1, 1, 2, 2, 3, 1] if history else [1] * 6)
    if history:  # the actions between frames 1 and 3, in the model's units
        state_filter = StateFilter(0, CPU)
        for tick in (1, 2, 3):
            tokens = encoder.encode(loaded, image_of(tick), joints_of(tick))
            state = state_filter.update(loaded, tokens, step_of(tick, executed=(0.1 * tick, 0.4)))
        expected = loaded.actions.from_robot(torch.tensor([[0.2, 0.4], [0.3, 0.4]]))
        torch.testing.assert_close(state.action[0, 0], expected)
