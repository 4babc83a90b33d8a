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
    """A store with one version; the model looks at one frame, or at three."""
    model = replace(TINY.model, encoder=SMALL, context=request.param)
    preset = replace(TINY, model=model, samples=20)
    monkeypatch.setitem(PRESETS, "dino_tiny", preset)
    manifest = Manifest(1, "dino_tiny", action_dim=2, body=EMBODIMENT.to_json())
    WeightStore(tmp_path / "w").save(preset.build(EMBODIMENT, 3).modules_by_name(), manifest)
    return tmp_path / "w"


def picture(tick: int) -> np.ndarray:
    random = np.random.default_rng(tick)
    return random.integers(0, 256, (64, 64, 3)).astype(np.uint8)


def joints(tick: int) -> np.ndarray:
    return np.random.default_rng(tick).normal(size=3).astype(np.float32)


def step_of(tick: int, executed=(0.2, 0.4), **rest) -> Step:
    done = np.float32((0, 0) if tick == 1 else executed)
    return Step(tick * PERIOD_NS, NAMES, done, done, is_first=tick == 1, explore=False, **rest)


def alone(weights, ticks: int, goal: Goal | None, planner: str = "cem") -> list[np.ndarray]:
    """Plans as the cores make them, hand to hand."""
    loaded = load_weights(weights, NEEDS, CPU)
    encoder, filter_ = Encoder(), StateFilter(5, CPU)
    policy = ActionPlanner(5, CPU, action_selector(planner, SearchSettings(**SEARCH)))
    policy.goal = goal
    plans = []
    for tick in range(1, ticks + 1):
        tokens = encoder.encode(loaded, picture(tick), joints(tick))
        state = filter_.update(loaded, tokens, step_of(tick))
        plans.append(policy.act(loaded, state, step_of(tick)))
    return plans


class Arm:
    """Publishes observations as the robot node does, joint_states included; hears plans."""

    def __init__(self, graph, composition: str) -> None:
        self.graph = graph
        self.image = topics.IMAGE_RAW.always(graph.probe, camera="top")
        self.steps = topics.STEPS.always(graph.probe)
        self.joints = topics.JOINT_STATES.always(graph.probe)
        self.plans = graph.hear(topics.PLAN, messages.plan_from_msg)
        graph.joined(self.steps, 1 if composition == "fused" else 3)
        graph.joined(self.joints)
        graph.joined(self.image)
        graph.spin(0.2)

    def say(self, tick: int) -> None:
        stamp = tick * PERIOD_NS
        self.joints.publish(messages.joints_to_msg(JOINTS, joints(tick), stamp))
        self.steps.publish(messages.step_to_msg(step_of(tick)))
        self.image.publish(messages.image_to_msg(picture(tick), stamp))

    def ask(self, tick: int):
        before, stamp = len(self.plans), tick * PERIOD_NS
        self.say(tick)
        self.graph.until(lambda: len(self.plans) > before)
        assert self.plans[-1].stamp_ns == stamp
        return self.plans[-1]


def brain(graph, composition: str, weights, planner: str = "cem", **parameters) -> list:
    common = {"weights": str(weights), "seed": 5, **parameters}
    planning = {"planner": planner, **SEARCH}
    if composition == "fused":
        return [graph.add(AgentNode, **TOP, **common, **planning)]
    made = []
    for kind, own in CHAIN.items():
        given = {} if kind is CameraNode else common if own else common | planning
        made.append(graph.add(kind, **own, **given))
    return made


both = pytest.mark.parametrize("composition", ["split", "fused"])


@both
def test_split_and_fused_plan_as_the_cores_alone(graph, weights, composition: str, tmp_path):
    """Plans in robot units, carried out for a model step; then made anew from what is seen."""
    aim = Goal(picture(99), joints(99))
    expected = alone(weights, 5, aim)
    brain(graph, composition, weights)
    arm = Arm(graph, composition)
    for topic, msg in (
        (topics.GOAL_JOINTS, messages.joints_to_msg(JOINTS, aim.proprio, 7)),
        (topics.GOAL, messages.image_to_msg(aim.image, 7)),
    ):
        graph.joined(topic.always(graph.probe)).publish(msg)
        graph.spin(0.3)
    found = [arm.ask(tick) for tick in range(1, 6)]
    for plan, actions in zip(found, expected, strict=True):
        assert str(plan.origin) == "dino_tiny/cem@1"
        np.testing.assert_allclose(plan.actions, actions, atol=1e-5)
        assert (plan.actions >= EMBODIMENT.action_low).all() and (
            plan.actions <= EMBODIMENT.action_high
        ).all()
    lengths = [len(plan.actions) for plan in found]
    assert lengths == [4, 3, 4, 3, 4]  # two model steps of two decisions; one is done
    np.testing.assert_array_equal(found[1].actions, found[0].actions[1:])


@both
def test_features_and_latents_name_the_module_that_made_them(graph, weights, composition: str):
    """DINO-WM's state is a window of encoder tokens: its encoder made both."""
    nodes = brain(graph, composition, weights)
    features, latents = graph.hear(topics.FEATURES), graph.hear(topics.LATENT)
    for topic in (topics.FEATURES, topics.LATENT):
        graph.until(lambda topic=topic: graph.probe.count_publishers(topic.name) > 0)
    spec = next(n.weight_cache.newest for n in nodes if hasattr(n, "weight_cache")).model.spec
    Arm(graph, composition).ask(1)
    graph.until(lambda: features and latents)
    assert features[0].header.frame_id == f"dino_tiny/{spec.encoder_module}@1"
    assert latents[0].header.frame_id == f"dino_tiny/{spec.state_module}@1"
    assert spec.state_module == "encoder"


@both
def test_without_a_goal_it_moves_at_random_in_lock_step(graph, weights, composition: str):
    nodes = brain(graph, composition, weights)
    plan = Arm(graph, composition).ask(1)
    assert str(plan.origin) == "random/uniform@-1"
    assert "goal" in nodes[-1].diagnostics.faults


def test_without_a_goal_it_stays_silent_in_real_time(graph, weights):
    (agent,) = brain(graph, "fused", weights, mode="realtime")
    arm = Arm(graph, "fused")
    with pytest.raises(AssertionError, match="did not happen"):
        before = len(arm.plans)
        arm.joints.publish(messages.joints_to_msg(JOINTS, joints(1), PERIOD_NS))
        arm.steps.publish(messages.step_to_msg(step_of(1)))
        arm.image.publish(messages.image_to_msg(picture(1), PERIOD_NS))
        graph.until(lambda: len(arm.plans) > before, timeout_s=1.0)
    assert "goal" in agent.diagnostics.faults


@both
@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_a_refused_plan_is_not_published_and_its_reason_is_shown(
    graph, weights, composition: str, mode: str
):
    """With a goal that is not a number no plan comes, so that the robot stops; then one does."""
    nodes = brain(graph, composition, weights, mode=mode)
    planning = nodes[-1]._policy if composition == "fused" else nodes[-1]._core
    planning.goal = Goal(picture(9), np.full(3, np.nan, np.float32))
    arm = Arm(graph, composition)
    diagnostics = nodes[-1].diagnostics
    arm.say(1)
    graph.until(lambda: "plan" in diagnostics.active_faults)
    graph.spin(0.2)
    assert not arm.plans
    assert "no finite cost" in diagnostics.active_faults["plan"]
    status = diagnostics.status("/wm/policy")
    assert status.level == DiagnosticStatus.ERROR and "no finite cost" in status.message
    planning.goal = Goal(picture(9), joints(9))
    assert str(arm.ask(2).origin) == "dino_tiny/cem@1"
    assert "plan" not in diagnostics.active_faults


@pytest.mark.parametrize(("budget_s", "poor"), [(1e-6, True), (0.0, False)])
def test_a_search_that_is_cut_short_says_so(graph, weights, budget_s, poor):
    given = {**SEARCH, "iterations": 3, "budget_s": budget_s}
    aim = {"mode": "realtime", "goal": str(weights.parent / "goal.png")}
    cv2.imwrite(aim["goal"], picture(9))
    common = {"weights": str(weights), "seed": 5, "planner": "cem"}
    agent = graph.add(AgentNode, **TOP, **common, **given, **aim)
    Arm(graph, "fused").ask(1)
    graph.until(lambda: "rounds" in agent.diagnostics.facts)
    assert ("search" in agent.diagnostics.active_faults) == poor
    assert agent.diagnostics.facts["rounds"] == ("1 of 3" if poor else "3 of 3")


@both
def test_what_is_seen_now_becomes_the_goal(graph, weights, composition: str):
    nodes = brain(graph, composition, weights)
    arm = Arm(graph, composition)
    arm.ask(1)
    seeing = nodes[0] if composition == "fused" else nodes[1]
    planning = nodes[-1]._policy if composition == "fused" else nodes[-1]._core
    client = graph.probe.create_client(Trigger, "set_goal_here")
    graph.until(client.service_is_ready)
    answer = client.call_async(Trigger.Request())
    graph.until(answer.done)
    assert answer.result().success
    graph.until(lambda: planning.goal is not None and planning.goal.proprio is not None)
    np.testing.assert_array_equal(planning.goal.image, picture(1))
    np.testing.assert_allclose(planning.goal.proprio, joints(1), rtol=1e-6)
    assert str(arm.ask(2).origin) == "dino_tiny/cem@1"
    assert seeing.get_name() in ("agent", "encoder")


def test_a_goal_from_a_file(graph, weights, tmp_path):
    path = tmp_path / "goal.png"
    cv2.imwrite(str(path), cv2.cvtColor(picture(9), cv2.COLOR_RGB2BGR))
    np.testing.assert_array_equal(read_goal(path).image, picture(9))
    (agent,) = brain(graph, "fused", weights, goal=str(path))
    np.testing.assert_array_equal(agent._policy.goal.image, picture(9))
    plan = Arm(graph, "fused").ask(1)
    np.testing.assert_allclose(plan.actions, alone(weights, 1, Goal(picture(9)))[0], atol=1e-5)
    with pytest.raises(UserError, match="expected a PNG or JPEG"):
        read_goal(tmp_path / "none.png")


def test_goals_of_any_size_are_fitted_and_new_ones_count_at_once(weights):
    loaded = load_weights(weights, NEEDS, CPU)
    policy = ActionPlanner(5, CPU, action_selector("cem", SearchSettings(**SEARCH)))
    filter_, encoder = StateFilter(5, CPU), Encoder()
    tokens = encoder.encode(loaded, picture(1), joints(1))
    state = filter_.update(loaded, tokens, step_of(1))
    policy.goal = Goal(np.zeros((48, 80, 3), np.uint8))
    first = policy.act(loaded, state, step_of(1))
    policy.goal = Goal(picture(7), joints(7))
    assert len(policy.act(loaded, state, step_of(2))) == len(first)  # a fresh plan, not the rest
    with pytest.raises(MessageError, match="got 2 numbers, expected 3 for model dino_tiny"):
        policy.goal = Goal(picture(7), np.zeros(2, np.float32))
        policy.act(loaded, state, step_of(3))


def test_a_model_without_an_actor_says_which_planners_are_right(weights):
    loaded = load_weights(weights, NEEDS, CPU)
    with pytest.raises(UserError, match=r"dino_tiny has no actor, expected one of cem, mppi, gd"):
        ActionPlanner(5, CPU, action_selector("actor")).can_act(loaded)
    policy = ActionPlanner(5, CPU, action_selector("cem"))
    assert not policy.can_act(loaded)
    policy.goal = Goal(picture(1))
    assert policy.can_act(loaded)


@pytest.mark.parametrize("planner", ["mppi", "gd"])
def test_other_planners_plan_to_goals_too(weights, planner: str):
    plans = alone(weights, 2, Goal(picture(5), joints(5)), planner)
    assert [len(plan) for plan in plans] == [4, 3] and np.isfinite(plans[0]).all()


def test_the_filter_takes_every_second_observation_and_begins_anew_after_a_gap(weights):
    loaded = load_weights(weights, NEEDS, CPU)
    filter_, encoder = StateFilter(0, CPU), Encoder()
    history = loaded.model.spec.context > 1
    seen = []
    for tick in (1, 2, 3, 4, 5, 9):
        step = step_of(tick, executed=(0.1 * tick, 0.4))
        if tick == 9:  # in real time pictures are passed over; steps are heard
            for passed in (6, 7, 8):
                filter_.record(step_of(passed))
        tokens = encoder.encode(loaded, picture(tick), joints(tick))
        state = filter_.update(loaded, tokens, step)
        seen.append(int(state.length))
    assert seen == ([1, 1, 2, 2, 3, 1] if history else [1] * 6)
    if history:  # the actions between frames 1 and 3, in the model's units
        filter_ = StateFilter(0, CPU)
        for tick in (1, 2, 3):
            tokens = encoder.encode(loaded, picture(tick), joints(tick))
            state = filter_.update(loaded, tokens, step_of(tick, executed=(0.1 * tick, 0.4)))
        expected = loaded.actions.from_robot(torch.tensor([[0.2, 0.4], [0.3, 0.4]]))
        torch.testing.assert_close(state.action[0, 0], expected)
