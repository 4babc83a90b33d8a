"""Two cameras, split and fused: all images of a stamp are needed, and a lock-step run repeats."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from tests.wm_nodes import two_cameras
from tests.wm_nodes.two_cameras import CAMERAS, SIZE, TINY
from wm_datasets import LogReader
from wm_models.interface.embodiment import Embodiment
from wm_models.registry import PRESETS
from wm_nodes.errors import UserError
from wm_nodes.nodes.agent import AgentNode
from wm_nodes.nodes.camera import CameraNode
from wm_nodes.nodes.encoder import EncoderNode
from wm_nodes.nodes.policy import PolicyNode
from wm_nodes.nodes.recorder import RecorderNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.nodes.world_model import WorldModelNode
from wm_nodes.records import Step
from wm_nodes.ros import messages, topics

BOTH = {"camera": "front,wrist"}
SMALL = {"height": SIZE, "width": SIZE}
each_composition = pytest.mark.parametrize("composition", ["split", "fused"])


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "two_eyed", TINY)
    return str(two_cameras.save_weights(tmp_path / "weights"))


def add_agent(graph, composition: str, weights: str, **parameters) -> list:
    """Add the nodes between images and plan."""
    if composition == "fused":
        return [graph.add(AgentNode, **BOTH, **SMALL, weights=weights, **parameters)]
    nodes = [graph.add(CameraNode, name=f"camera_{c}", camera=c, **SMALL) for c in CAMERAS]
    parameters["weights"] = weights
    nodes += [graph.add(kind, **BOTH, **parameters) for kind in (EncoderNode, WorldModelNode)]
    return [*nodes, graph.add(PolicyNode, **parameters)]


class Robot:
    """Publishes observations part by part, and receives plans."""

    def __init__(self, graph, composition: str) -> None:
        self.graph = graph
        self.images = {c: topics.IMAGE_RAW.always(graph.probe, camera=c) for c in CAMERAS}
        self.steps = topics.STEPS.always(graph.probe)
        self.plans = graph.subscribe(topics.PLAN, messages.plan_from_msg)
        graph.matched(self.steps, 1 if composition == "fused" else 3)
        for publisher in self.images.values():
            graph.matched(publisher)
        graph.spin(0.2)

    def publish(self, tick: int, *cameras: str) -> None:
        """Publish the step of a tick, and these cameras' images of it."""
        stamp, executed = tick * 100_000_000, np.float32([0.5])
        step = Step(stamp, ("push",), executed, executed, is_first=tick == 1)
        self.steps.publish(messages.step_to_msg(step))
        for camera in cameras:
            self.publish_image(tick, camera)

    def publish_image(self, tick: int, camera: str) -> None:
        value = 9 * tick + 100 * CAMERAS.index(camera)
        image = np.full((32, 32, 3), value, np.uint8)
        image[: 2 * tick] = 255
        self.images[camera].publish(messages.image_to_msg(image, tick * 100_000_000))

    @property
    def answered(self) -> list[int]:
        return [plan.stamp_ns // 100_000_000 for plan in self.plans]


@each_composition
def test_only_the_images_of_all_cameras_are_answered_also_late_and_in_any_order(
    graph, weights, composition: str
) -> None:
    add_agent(graph, composition, weights)
    robot = Robot(graph, composition)
    robot.publish(1, *CAMERAS)
    graph.until(lambda: robot.answered == [1])
    robot.publish(2, "front")
    robot.publish(3, "wrist", "front")
    graph.until(lambda: 3 in robot.answered)
    assert robot.answered == [1, 3]
    robot.publish_image(2, "wrist")
    graph.until(lambda: robot.answered == [1, 3, 2])


@each_composition
def test_a_camera_that_is_missing_beside_the_other_is_reported_by_name(
    graph, weights, composition: str
) -> None:
    nodes = add_agent(graph, composition, weights)
    robot = Robot(graph, composition)
    synchronizing = nodes[0] if composition == "fused" else nodes[len(CAMERAS)]
    for tick in range(1, 20):
        robot.publish(tick, "front")
        graph.spin(0.01)
    graph.until(lambda: synchronizing.diagnostics.drops["observation/wrist"] >= 3)
    assert "observation/front" not in synchronizing.diagnostics.drops
    assert robot.plans == []


def test_in_real_time_a_silent_camera_is_a_fault_with_its_name(graph, weights) -> None:
    node = graph.add(
        AgentNode, **BOTH, **SMALL, weights=weights, mode="realtime", stale_s=0.4, frozen_s=0.0
    )
    robot = Robot(graph, "fused")
    robot.publish(1, *CAMERAS)
    graph.until(lambda: robot.plans)
    tick = 1

    def wrist_alone_is_silent() -> bool:
        nonlocal tick
        tick += 1
        robot.publish(tick, "front")
        graph.spin(0.02)
        return "camera/wrist" in node.diagnostics.active_faults

    graph.until(wrist_alone_is_silent)
    assert robot.answered == [1]
    assert node.diagnostics.active_faults["camera/wrist"].startswith("wrist: camera silent")
    robot.publish(tick + 1, *CAMERAS)
    graph.until(lambda: "camera/wrist" not in node.diagnostics.active_faults)
    graph.until(lambda: tick + 1 in robot.answered)


def test_split_and_fused_plan_and_imagine_alike(graph, weights) -> None:
    plans, imagined = {}, {}
    for composition in ("split", "fused"):
        nodes = add_agent(graph, composition, weights)
        images = graph.subscribe(topics.IMAGINATION, messages.image_from_msg)
        robot = Robot(graph, composition)
        tick = 0
        while len(images) < 3 or tick < 5:  # the first come before the subscription is matched
            tick += 1
            robot.publish(tick, *CAMERAS)
            graph.until(lambda tick=tick, robot=robot: tick in robot.answered)
        plans[composition] = {p.stamp_ns: p.actions.tolist() for p in robot.plans}
        imagined[composition] = dict(images)
        for node in nodes:
            graph.remove(node)
    shared = plans["split"].keys() & plans["fused"].keys()
    assert len(shared) >= 5
    assert all(plans["split"][stamp] == plans["fused"][stamp] for stamp in shared)
    stamps = imagined["split"].keys() & imagined["fused"].keys()
    assert stamps
    for stamp in stamps:
        split, fused = imagined["split"][stamp], imagined["fused"][stamp]
        assert split.shape == (2 * SIZE, 2 * SIZE, 3) and np.array_equal(split, fused)
        tick = stamp // 100_000_000  # the last row of each camera's image is not white
        lowest = split[SIZE - 1, 0, 0], split[-1, 0, 0]
        assert lowest == (9 * tick, 9 * tick + 100) or tick >= SIZE


@pytest.mark.parametrize("kind", [AgentNode, EncoderNode])
def test_nodes_refuse_other_cameras_than_those_of_the_weights(
    graph, weights, tmp_path, kind
) -> None:
    with pytest.raises(UserError, match="got wrist,front, expected front,wrist in this order"):
        graph.add(kind, camera="wrist,front", weights=weights)
    one = two_cameras.save_weights(tmp_path / "one", Embodiment.unit(1), "front")
    with pytest.raises(UserError, match="got front,wrist, expected a single camera"):
        graph.add(kind, **BOTH, weights=str(one))
    with pytest.raises(UserError, match="camera: got 'front,front', expected one name"):
        graph.add(kind, camera="front,front")


def run_in_lockstep(graph, composition: str, weights: str, log) -> dict[str, np.ndarray]:
    """Run two episodes into a log; return its rows."""
    nodes = [graph.add(RecorderNode, log=str(log))]
    nodes += add_agent(graph, composition, weights, seed=3)
    robot = graph.add(
        RobotNode, adapter="tests.wm_nodes.two_cameras:TwoEyedPoint", episodes=2, seed=3,
        task="origin", time_limit=8, await_recorder_s=60.0, **BOTH,
    )  # fmt: skip
    graph.until(lambda: robot.finished.done())
    graph.until(lambda: nodes[0]._recording.writer and nodes[0]._recording.writer.length >= 18)
    for node in (robot, *nodes):
        graph.remove(node)
    with LogReader(log) as reader:
        assert list(reader.spec.cameras) == list(CAMERAS)
        return reader.read_rows(0, reader.length)


def test_a_lockstep_run_repeats_and_records_both_cameras(graph, weights, tmp_path) -> None:
    logs = {
        name: run_in_lockstep(graph, name.split()[0], weights, tmp_path / name)
        for name in ("fused", "fused again", "split")
    }
    first = logs["fused"]
    assert first["image/front"].shape[1:] == (SIZE, SIZE, 3)
    assert not np.array_equal(first["image/front"], first["image/wrist"])
    assert len(np.unique(first["action"])) > 2
    for other in ("fused again", "split"):
        assert logs[other].keys() == first.keys()
        for name, values in first.items():
            np.testing.assert_array_equal(logs[other][name], values, err_msg=f"{other} {name}")
