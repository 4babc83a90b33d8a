"""Depth cameras, from a driver's topic into the log and out again: real nodes and messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image as ImageMsg

from tests.wm_nodes.point_robot import PointRobot
from wm_datasets import LogReader
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.episodes.playback import transitions
from wm_nodes.errors import MessageError
from wm_nodes.nodes.recorder import RecorderNode
from wm_nodes.nodes.replay import ReplayNode
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.ros import messages, topics

SHAPE = (4, 6)


class DepthRobot(PointRobot):
    """Its depth camera images a wall that comes nearer; one corner has no measurement."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.spec = replace(self.spec, depths={"deep": SHAPE})

    def _depths(self) -> dict[str, np.ndarray]:
        depth = np.full(SHAPE, 60_000 - self._observations, np.uint16)
        depth[0, 0] = 0
        return {"deep": depth}


@pytest.fixture
def log(tmp_path) -> Path:
    """Two episodes of 5 actions, with depth."""
    with DepthRobot() as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "log", 2, 0)
    return tmp_path / "log"


def depth_msg(
    values: np.ndarray, encoding: str, big_endian: bool = False, padding: int = 0
) -> ImageMsg:
    """A message as drivers send them: any byte order, lines with padding."""
    byte_order = ">" if big_endian else "<"
    lines = values.astype(values.dtype.newbyteorder(byte_order)).view(np.uint8)
    lines = lines.reshape(values.shape[0], -1)
    lines = np.pad(lines, ((0, 0), (0, padding)), constant_values=255)
    height, width = values.shape
    msg = ImageMsg(height=height, width=width, encoding=encoding, is_bigendian=big_endian)
    msg.step, msg.data = lines.shape[1], lines.tobytes()
    return msg


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_every_encoding_is_read_as_the_same_millimetres(encoding, padding, big_endian) -> None:
    expected = np.arange(0, 24 * 2700, 2700, dtype=np.uint16).reshape(SHAPE)
    values = expected if encoding != "32FC1" else (expected / 1000).astype(np.float32)
    depth = messages.depth_from_msg(depth_msg(values, encoding, big_endian, padding))[1]
    assert depth.dtype == np.uint16 and np.array_equal(depth, expected)


def test_a_value_that_is_no_distance_is_read_as_0() -> None:
    values = np.float32([[np.nan, np.inf, -np.inf], [-1.0, 65.536, 1e30]])
    assert not messages.depth_from_msg(depth_msg(values, "32FC1"))[1].any()


def test_depth_survives_a_message_and_an_invalid_message_is_refused() -> None:
    depth = np.random.default_rng(0).integers(0, 65536, SHAPE, np.uint16)
    msg = messages.depth_to_msg(depth, 12, "deep")
    stamp, decoded = messages.depth_from_msg(msg)
    assert stamp == 12 and np.array_equal(decoded, depth)
    msg.step -= 1
    with pytest.raises(MessageError, match="got 6x4 16UC1 with step 11"):
        messages.depth_from_msg(msg)
    with pytest.raises(MessageError, match="expected one of 16UC1"):
        messages.depth_from_msg(ImageMsg(encoding="rgb8"))


def test_resizing_adds_no_distance() -> None:
    depth = np.zeros((40, 60), np.uint16)
    depth[::2] = 3000
    assert set(np.unique(ImagePipeline(8, 12, exact=True)(depth))) <= {0, 3000}


def test_a_replayed_log_is_recorded_again_with_its_depth(graph, log, tmp_path) -> None:
    recorder = graph.add(RecorderNode, log=str(tmp_path / "copy"), raw=True)
    graph.add(ReplayNode, log=str(log), episode=0, rate=0.0, answers=["recorded"])
    graph.until(lambda: recorder._recording and recorder._recording.writer is not None)
    graph.until(lambda: recorder._recording.writer.length == 6)
    with LogReader(log) as original, LogReader(tmp_path / "copy") as copy:
        assert copy.spec.sensors == original.spec.sensors
        for name in original.spec.fields:
            assert np.array_equal(original.read(name, 0, 6), copy.read(name, 0, 6)), name


def test_depth_is_added_to_a_log_of_a_robot_without_it(graph, log, tmp_path) -> None:
    old = tmp_path / "old"
    with PointRobot() as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, 0), old, 1, 0)
    recorder = graph.add(RecorderNode, log=str(old), raw=True)
    graph.add(ReplayNode, log=str(log), episode=1, rate=0.0, answers=["recorded"])
    graph.until(lambda: recorder._recording and recorder._recording.writer.length == 12)
    with LogReader(old) as extended, LogReader(log) as source:
        assert extended.since("sensor/deep") == 6
        assert extended.present("sensor/deep").tolist() == [False, True]
        depth = source.read("sensor/deep", 6, 12)
        assert np.array_equal(extended.read("sensor/deep", 6, 12), depth)


def test_a_depth_camera_may_be_left_out(graph, log, tmp_path) -> None:
    recorder = graph.add(RecorderNode, log=str(tmp_path / "copy"), raw=True, cameras=["top"])
    graph.add(ReplayNode, log=str(log), episode=0, rate=0.0, answers=["recorded"])
    graph.until(lambda: recorder._recording and recorder._recording.writer is not None)
    graph.until(lambda: recorder._recording.writer.length == 6)
    assert not LogReader(tmp_path / "copy").spec.sensors


def test_transitions_of_a_log_have_its_depth(log) -> None:
    with LogReader(log) as reader:
        depths = [transition.depths["deep"] for transition in transitions(reader, 1)]
        assert np.array_equal(depths, reader.read("sensor/deep", 6, 12))


def test_an_arm_with_a_depth_camera_in_its_yaml_records_it(graph, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    pytest.importorskip("mujoco", reason="needs the [sim] extra")
    from wm_nodes.nodes.arm_sim import ArmSimNode
    from wm_nodes.nodes.robot import RobotNode
    from wm_nodes.robots.arm.config.arm_config import find_config

    source = find_config("arm_sim")
    settings = yaml.safe_load(source.read_text())
    settings["model"] = str(source.parent / settings["model"])
    settings["cameras"]["deep"] = {
        "topic": "/arm_sim/deep/image_raw", "height": 4, "width": 6, "depth": True,
        "crop": [0.25, 0, 0.25, 0],
    }  # fmt: skip
    settings["watch"]["camera_frozen_s"] = 0  # the same depth is sent again and again
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(settings))
    graph.add(ArmSimNode, task="goal", camera_px=32)
    camera = graph.probe.create_publisher(ImageMsg, "/arm_sim/deep/image_raw", topics.FRAMES)
    sent = np.zeros((8, 24), np.float32)
    sent[:, 6:18] = 1.25

    def publish_depth() -> None:
        msg = depth_msg(sent, "32FC1")
        msg.header.stamp = graph.probe.get_clock().now().to_msg()
        camera.publish(msg)

    timer = graph.probe.create_timer(0.05, publish_depth)
    recorder = graph.add(RecorderNode, log=str(tmp_path / "log"), raw=True)
    graph.add(
        RobotNode, adapter="arm", robot=str(path), mode="realtime", task="goal",
        time_limit=100_000, max_age_s=0.0,
    )  # fmt: skip
    graph.until(lambda: recorder._recording and recorder._recording.writer is not None)
    graph.until(lambda: recorder._recording.writer.length >= 4)
    graph.probe.destroy_timer(timer)
    with LogReader(tmp_path / "log") as log:
        assert log.spec.sensors["deep"].is_depth
        assert (log.read("sensor/deep", 0, 4) == 1250).all()
        assert log.read("image/front", 0, 4).any()
