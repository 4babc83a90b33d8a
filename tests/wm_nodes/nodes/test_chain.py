"""From an image to a plan, split and fused; bad input and other versions have no effect."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from wm_models.weights.store import read_manifest
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import load_weights
from wm_nodes.errors import UserError
from wm_nodes.nodes.agent import AgentNode
from wm_nodes.nodes.camera import CameraNode
from wm_nodes.nodes.encoder import EncoderNode
from wm_nodes.nodes.policy import PolicyNode
from wm_nodes.nodes.world_model import WorldModelNode
from wm_nodes.records import Announcement, Features, Latent, Origin, Step
from wm_nodes.ros import messages, topics

TOP = {"camera": "top"}
CHAIN = {CameraNode: TOP, EncoderNode: TOP, WorldModelNode: TOP, PolicyNode: {}}


class Robot:
    """Publishes observations as the robot node does, and receives plans."""

    def __init__(self, graph, subscribers: int) -> None:
        self.graph = graph
        self.image = topics.IMAGE_RAW.always(graph.probe, camera="top")
        self.steps = topics.STEPS.always(graph.probe)
        self.plans = graph.subscribe(topics.PLAN, messages.plan_from_msg)
        graph.matched(self.steps, subscribers)
        graph.matched(self.image)
        graph.spin(0.2)

    def publish_observation(
        self, tick: int, action: float = 0.5, explore: bool = True, **rest
    ) -> None:
        """Publish observation `tick`; its image depends on the tick."""
        stamp = tick * 100_000_000
        executed = np.float32([action])
        step = Step(stamp, ("push",), executed, executed, explore=explore, **rest)
        self.steps.publish(messages.step_to_msg(step))
        image = np.full((64, 64, 3), 10 * tick % 255, np.uint8)
        self.image.publish(messages.image_to_msg(image, stamp))

    def plans_for(self, tick: int) -> list:
        return [plan for plan in self.plans if plan.stamp_ns == tick * 100_000_000]

    def request_plan(self, tick: int, **rest):
        """Return the plan for observation `tick`."""
        before = len(self.plans)
        self.publish_observation(tick, **rest)
        self.graph.until(lambda: len(self.plans) > before)
        assert self.plans[-1].stamp_ns == tick * 100_000_000
        return self.plans[-1]


def add_chain(graph, composition: str, **parameters) -> list:
    """Add the nodes between image and plan."""
    if composition == "fused":
        return [graph.add(AgentNode, **TOP, **parameters)]
    nodes = []
    for kind, camera in CHAIN.items():
        common = {} if kind is CameraNode else parameters
        nodes.append(graph.add(kind, **camera, **common))
    return nodes


def start_robot(graph, composition: str) -> Robot:
    return Robot(graph, 1 if composition == "fused" else 3)


def announce(graph, store, version: int, publisher=None):
    publisher = publisher or topics.ANNOUNCEMENTS.always(graph.probe)
    manifest = read_manifest(store.path(version))
    announcement = Announcement(version, str(store.path(version)), manifest.digest, manifest.preset)
    publisher.publish(messages.announcement_to_msg(announcement))
    return publisher


def wait_for_version(graph, nodes: list, version: int) -> None:
    """Wait until every node has loaded the version."""
    caches = [n.weight_cache for n in nodes if hasattr(n, "weight_cache")]
    graph.until(lambda: all(cache.newest and cache.newest.version == version for cache in caches))


each_composition = pytest.mark.parametrize("composition", ["split", "fused"])


@each_composition
def test_an_image_leads_to_a_plan(graph, store, composition: str) -> None:
    add_chain(graph, composition, weights=str(store.path(1)))
    plan = start_robot(graph, composition).request_plan(1, is_first=True)
    assert str(plan.origin) == "mwm_cpu/actor@1" and plan.names == ("push",)
    assert plan.actions.shape == (1, 1) and np.abs(plan.actions).max() <= 1


def test_split_and_fused_plan_alike(graph, store) -> None:
    plans = {}
    for composition in ("split", "fused"):
        nodes = add_chain(graph, composition, weights=str(store.path(1)), seed=5)
        robot = start_robot(graph, composition)
        plans[composition] = [
            robot.request_plan(tick, is_first=tick == 1, explore=tick % 2 == 0).actions.tolist()
            for tick in range(1, 6)
        ]
        for node in nodes:
            node.trigger_deactivate()
    assert plans["split"] == plans["fused"]
    assert len({str(p) for p in plans["split"]}) == 5


def plans_of_an_episode(robot: Robot, ticks: range) -> list:
    """Actions of the plans of an episode that begins at the first of the ticks."""
    plans = []
    for tick in ticks:
        robot.publish_observation(tick, is_first=tick == ticks[0])
        robot.graph.until(lambda tick=tick: robot.plans_for(tick))
        plans.append(robot.plans_for(tick)[-1].actions.tolist())
    return plans


@pytest.mark.parametrize("kind", CHAIN)
def test_a_killed_node_of_the_split_graph_comes_back(graph, store, kind) -> None:
    """The repeated observation, as the robot node repeats it, gets a plan; from the next episode on
    the plans equal those of a chain of which no node was killed."""
    parameters = {"weights": str(store.path(1)), "seed": 5}
    intact = add_chain(graph, "split", **parameters)
    robot = start_robot(graph, "split")
    expected = [plans_of_an_episode(robot, ticks) for ticks in (range(1, 4), range(6, 10))]
    for node in intact:
        graph.remove(node)

    nodes = dict(zip(CHAIN, add_chain(graph, "split", **parameters), strict=True))
    robot = start_robot(graph, "split")
    assert plans_of_an_episode(robot, range(1, 4)) == expected[0]
    graph.kill(nodes[kind])
    graph.add(kind, **CHAIN[kind], **({} if kind is CameraNode else parameters))
    graph.until(lambda: robot.publish_observation(4) or graph.spin(0.2) or robot.plans_for(4))
    assert str(robot.plans_for(4)[0].origin) == "mwm_cpu/actor@1"
    assert plans_of_an_episode(robot, range(6, 10)) == expected[1]


@each_composition
def test_a_repeated_observation_gets_the_same_plan_and_leaves_the_state_unchanged(
    graph, store, composition: str
) -> None:
    add_chain(graph, composition, weights=str(store.path(1)))
    robot = start_robot(graph, composition)
    first = [robot.request_plan(tick, is_first=tick == 1).actions for tick in (1, 2, 3)]
    again = [robot.request_plan(tick, is_first=tick == 1).actions for tick in (1, 1, 2, 2, 2, 3)]
    assert again[0] != pytest.approx(0) and again[0] == again[1]
    assert np.array_equal(again[2], again[3]) and np.array_equal(again[3], again[4])
    assert np.array_equal(np.array(first), np.array([again[0], again[2], again[5]]))


@each_composition
def test_without_weights_actions_are_random_and_seeded(graph, composition: str) -> None:
    add_chain(graph, composition, seed=3)
    robot = start_robot(graph, composition)
    plans = [robot.request_plan(tick, is_first=tick == 1) for tick in (1, 2, 2)]
    assert {str(p.origin) for p in plans} == {"random/uniform@-1"}
    assert plans[0].actions != plans[1].actions and plans[1].actions == plans[2].actions


@each_composition
def test_weights_are_swapped_at_an_episodes_start_only(graph, store, composition: str) -> None:
    nodes = add_chain(graph, composition)
    robot = start_robot(graph, composition)
    publisher = announce(graph, store, 1)
    wait_for_version(graph, nodes, 1)
    versions = [robot.request_plan(1, is_first=True).origin.version]
    announce(graph, store, 2, publisher)
    wait_for_version(graph, nodes, 2)
    versions += [robot.request_plan(2).origin.version, robot.request_plan(3).origin.version]
    versions += [
        robot.request_plan(4, is_first=True).origin.version,
        robot.request_plan(5).origin.version,
    ]
    assert versions == [1, 1, 1, 2, 2]


@each_composition
def test_weights_stay_within_a_block_of_evaluation(graph, store, composition: str) -> None:
    nodes = add_chain(graph, composition, weights=str(store.path(1)))
    robot = start_robot(graph, composition)
    versions = [robot.request_plan(1, is_first=True, explore=False).origin.version]
    announce(graph, store, 2)
    wait_for_version(graph, nodes, 2)
    versions.append(robot.request_plan(2, is_first=True, explore=False).origin.version)
    versions.append(robot.request_plan(3, is_first=True).origin.version)
    assert versions == [1, 1, 2]


@each_composition
def test_damaged_weights_are_not_used(graph, store, tmp_path, composition: str) -> None:
    nodes = add_chain(graph, composition, weights=str(store.path(1)))
    robot = start_robot(graph, composition)
    wrong = Announcement(9, str(store.path(2)), "0" * 64, "mwm_cpu")
    topics.ANNOUNCEMENTS.always(graph.probe).publish(messages.announcement_to_msg(wrong))
    model_nodes = [n for n in nodes if hasattr(n, "weight_cache")]
    graph.until(lambda: all(n.diagnostics.drops["weights/refused"] == 1 for n in model_nodes))
    assert robot.request_plan(1, is_first=True).origin.version == 1


def test_weights_that_are_not_the_announced_ones_are_refused_and_the_node_runs_on(
    graph, store, tmp_path
) -> None:
    node = graph.add(AgentNode, **TOP, weights=str(store.path(1)))
    publisher = graph.matched(topics.ANNOUNCEMENTS.always(graph.probe))
    path, digest = str(store.path(2)), read_manifest(store.path(2)).digest
    newer = shutil.copytree(store.path(2), tmp_path / "newer")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    refused = [
        Announcement(9, path, digest, "mwm_cpu"),  # it is version 2
        Announcement(2, path, digest, "dino_wm_cpu"),
        Announcement(2, path, "0" * 64, "mwm_cpu"),
        Announcement(2, str(newer), digest, "mwm_cpu"),
        Announcement(2, str(tmp_path / "none"), digest, "mwm_cpu"),
        Announcement(2, "/dev/null", digest, "mwm_cpu"),
    ]
    for count, announcement in enumerate(refused, 1):
        publisher.publish(messages.announcement_to_msg(announcement))
        graph.until(lambda count=count: node.diagnostics.drops["weights/refused"] == count)
    for text in ("{" * 9, '{"version":' * 100_000, "[" * 100_000):
        publisher.publish(String(data=text))
    graph.until(lambda: node.diagnostics.drops["weights/json"] >= 1)
    assert node.weight_cache.newest.version == 1
    announce(graph, store, 2, publisher)
    wait_for_version(graph, [node], 2)


@pytest.mark.parametrize("kind", [AgentNode, EncoderNode, PolicyNode, WorldModelNode])
def test_weights_of_another_model_or_none_are_refused_at_once(graph, store, kind) -> None:
    with pytest.raises(UserError, match="mwm_cpu"):
        graph.add(kind, weights=str(store.path(1)), model="mwm")
    with pytest.raises(UserError, match="nothing at"):
        graph.add(kind, weights="/nowhere")


def test_no_plan_follows_an_episodes_last_observation(graph, store) -> None:
    for composition in ("split", "fused"):
        nodes = add_chain(graph, composition, weights=str(store.path(1)))
        robot = start_robot(graph, composition)
        robot.request_plan(1, is_first=True)
        robot.publish_observation(2, is_last=True)
        graph.spin(0.3)
        assert [p.stamp_ns for p in robot.plans] == [100_000_000]
        robot.request_plan(3, is_first=True)
        for node in nodes:
            node.trigger_deactivate()


def test_in_real_time_the_agent_publishes_all_images_and_plans_for_the_newest(
    graph, store, monkeypatch
) -> None:
    encode = Encoder.encode

    def slow_encode(*arguments: object) -> torch.Tensor:
        time.sleep(0.05)  # images arrive faster than this
        return encode(*arguments)

    monkeypatch.setattr(Encoder, "encode", slow_encode)
    graph.add(AgentNode, **TOP, weights=str(store.path(1)), mode="realtime")
    images = graph.subscribe(topics.IMAGE, messages.image_from_msg, **TOP)
    robot = start_robot(graph, "fused")
    robot.request_plan(1, is_first=True)
    graph.until(lambda: images)
    for tick in range(2, 8):
        robot.publish_observation(tick, is_first=tick == 4)
    graph.until(lambda: robot.plans[-1].stamp_ns == 700_000_000 and len(images) == 7)
    assert len(robot.plans) < 7


def test_a_filter_starts_again_without_the_first_image_of_an_episode(store) -> None:
    device = torch.device("cpu")
    weights = load_weights(store.path(1), ("encode", "filter"), device)
    steps = [
        Step(t, ("push",), np.float32([0.5]), np.float32([0.5]), is_first=t == 3) for t in range(6)
    ]
    tokens = torch.randn(1, *weights.tokens)
    complete, incomplete, new = (StateFilter(0, device) for _ in range(3))
    for step in steps:
        for state_filter in (complete, incomplete, new):
            state_filter.record(step)
    incomplete.update(weights, tokens, steps[2])
    for state_filter in (incomplete, new):
        state = state_filter.update(weights, tokens, steps[4])
    assert torch.equal(weights.model.pack(incomplete._state), weights.model.pack(state))
    complete.update(weights, tokens, steps[3])
    assert not torch.equal(
        weights.model.pack(complete.update(weights, tokens, steps[4])), weights.model.pack(state)
    )


# Bad input -------------------------------------------------------------------------------------


def features_of(version: int, shape: tuple = (65, 64)) -> ImageMsg:
    origin = Origin("mwm_cpu", "autoencoder", version)
    return messages.features_to_msg(Features(100, origin, np.zeros(shape, np.float32)))


def latent_of(version: int, size: int = 512) -> ImageMsg:
    origin = Origin("mwm_cpu", "world_model", version)
    return messages.latent_to_msg(Latent(100, origin, np.zeros(size, np.float32)))


def step_msg() -> JointState:
    action = np.float32([0])
    return messages.step_to_msg(Step(100, ("push",), action, action, is_first=True))


def nan_features() -> ImageMsg:
    msg = features_of(1)
    msg.data[:4] = type(msg.data)("B", np.float32(np.nan).tobytes())
    return msg


BAD_MESSAGES = [
    (CameraNode, TOP, topics.IMAGE_RAW, ImageMsg(), "top/image_raw/encoding"),
    (CameraNode, TOP, topics.IMAGE_RAW, ImageMsg(encoding="rgb8", height=2, width=2, step=6),
     "top/image_raw/size"),
    (AgentNode, TOP, topics.IMAGE_RAW, ImageMsg(encoding="8UC9"), "top/image_raw/encoding"),
    (AgentNode, TOP, topics.STEPS, JointState(name=["a"]), "step/size"),
    (AgentNode, TOP, topics.SPEC, String(data="{"), "spec/json"),
    (AgentNode, TOP, topics.ANNOUNCEMENTS, String(data="{}"), "weights/json"),
    (EncoderNode, TOP, topics.IMAGE, ImageMsg(encoding="rgb8", height=1), "top/image/size"),
    (EncoderNode, TOP, topics.STEPS, JointState(), "step/size"),
    (EncoderNode, TOP, topics.ANNOUNCEMENTS, String(data="x"), "weights/json"),
    (WorldModelNode, {}, topics.FEATURES, ImageMsg(encoding="rgb8"), "features/encoding"),
    (WorldModelNode, {}, topics.FEATURES, nan_features(), "features/non-finite"),
    (WorldModelNode, {}, topics.STEPS, JointState(name=["reward"], position=[1.0]), "step/names"),
    (PolicyNode, {}, topics.LATENT, ImageMsg(encoding="32FC1", height=2), "latent/encoding"),
    (PolicyNode, {}, topics.LATENT, ImageMsg(encoding="32FC1", height=1, width=3), "latent/size"),
    (PolicyNode, {}, topics.STEPS, JointState(name=["a"], position=[float("nan")]),
     "step/non-finite"),
    (PolicyNode, {}, topics.SPEC, String(data="[]"), "spec/json"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "camera", "topic", "msg", "reason"), BAD_MESSAGES)
def test_a_bad_message_is_dropped_and_counted(graph, kind, camera, topic, msg, reason) -> None:
    node = graph.add(kind, **camera)
    graph.matched(topic.always(graph.probe, **camera)).publish(msg)
    graph.until(lambda: node.diagnostics.drops[reason] == 1)
    assert node.active


@pytest.mark.parametrize(
    ("kind", "topic", "msg", "reason"),
    [
        (WorldModelNode, topics.FEATURES, features_of(8), "features/version"),
        (WorldModelNode, topics.FEATURES, features_of(1, (65, 3)), "features/shape"),
        (PolicyNode, topics.LATENT, latent_of(8), "latent/version"),
        (PolicyNode, topics.LATENT, latent_of(1, 3), "latent/size"),
    ],
)
def test_outputs_of_another_version_are_dropped(graph, store, kind, topic, msg, reason) -> None:
    node = graph.add(kind, weights=str(store.path(1)))
    received = (
        graph.subscribe(topics.LATENT) if kind is WorldModelNode else graph.subscribe(topics.PLAN)
    )
    graph.matched(topics.STEPS.always(graph.probe)).publish(step_msg())
    graph.matched(topic.always(graph.probe)).publish(msg)
    graph.until(lambda: node.diagnostics.drops[reason] == 1)
    assert received == []


@each_composition
def test_an_image_of_another_size_is_dropped(graph, store, composition: str) -> None:
    nodes = [graph.add(AgentNode, **TOP, height=0, width=0, weights=str(store.path(1)))]
    if composition == "split":
        nodes = [graph.add(EncoderNode, **TOP, weights=str(store.path(1)))]
    topic = topics.IMAGE if composition == "split" else topics.IMAGE_RAW
    graph.matched(topics.STEPS.always(graph.probe)).publish(step_msg())
    image = messages.image_to_msg(np.zeros((32, 32, 3), np.uint8), 100)
    graph.matched(topic.always(graph.probe, **TOP)).publish(image)
    graph.until(lambda: nodes[0].diagnostics.drops["image/image-shape"] == 1)


def test_a_model_for_another_robot_is_a_user_error(graph, store) -> None:
    graph.add(AgentNode, **TOP, weights=str(store.path(1)))
    action = np.float32([0, 0])
    step = messages.step_to_msg(Step(100, ("x", "y"), action, action, is_first=True))
    graph.matched(topics.STEPS.always(graph.probe)).publish(step)
    image = messages.image_to_msg(np.zeros((64, 64, 3), np.uint8), 100)
    graph.matched(topics.IMAGE_RAW.always(graph.probe, **TOP)).publish(image)
    with pytest.raises(UserError, match="for 1 action dimensions, expected 2"):
        graph.spin(3.0)


def test_the_agent_publishes_features_latents_and_imagination(graph, store) -> None:
    graph.add(AgentNode, **TOP, weights=str(store.path(1)))
    received = {
        topic: graph.subscribe(topic, **names)
        for topic, names in (
            (topics.IMAGE, TOP),
            (topics.FEATURES, {}),
            (topics.LATENT, {}),
            (topics.IMAGINATION, {}),
        )
    }
    robot = start_robot(graph, "fused")
    robot.request_plan(1, is_first=True)
    graph.until(lambda: all(received.values()))
    assert {messages.from_time(m[0].header.stamp) for m in received.values()} == {100_000_000}
    assert received[topics.FEATURES][0].header.frame_id == "mwm_cpu/autoencoder@1"
    assert received[topics.LATENT][0].header.frame_id == "mwm_cpu/world_model@1"
    assert received[topics.IMAGINATION][0].width == 128


def test_split_and_fused_imagine_alike(graph, store) -> None:
    imagined = {}
    for composition in ("split", "fused"):
        nodes = add_chain(graph, composition, weights=str(store.path(1)), seed=5)
        images = graph.subscribe(topics.IMAGINATION, messages.image_from_msg)
        robot = start_robot(graph, composition)
        tick = 0
        while len(images) < 4:  # the first are published before the subscription is matched
            tick += 1
            robot.request_plan(tick, is_first=tick == 1)
        imagined[composition] = dict(images)
        for node in nodes:
            node.trigger_deactivate()
    for stamp in imagined["split"].keys() & imagined["fused"].keys():
        split, fused = imagined["split"][stamp], imagined["fused"][stamp]
        assert np.array_equal(split, fused)
        truth = np.full((64, 64, 3), 10 * (stamp // 100_000_000) % 255, np.uint8)
        assert np.array_equal(split[:, :64], truth) and split.shape == (64, 128, 3)
    assert len(imagined["split"].keys() & imagined["fused"].keys()) >= 2


def test_a_plan_of_a_policy_is_a_valid_message(graph) -> None:
    graph.add(PolicyNode)
    received = graph.subscribe(topics.PLAN)
    graph.matched(topics.STEPS.always(graph.probe)).publish(step_msg())
    graph.until(lambda: received)
    assert isinstance(received[0], JointTrajectory) and list(received[0].joint_names) == ["push"]
