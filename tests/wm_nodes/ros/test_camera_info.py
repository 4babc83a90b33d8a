"""camera_info beside each image: of drivers, adjusted to crop and resize, and of simulators."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from tests.wm_nodes.robots.arm.arms import config
from wm_nodes.errors import MessageError
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.robots.arm.config.sections import CameraSource
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import RenderError
from wm_nodes.robots.sims import rendering
from wm_nodes.ros import messages, topics
from wm_nodes.ros.arm import endpoints
from wm_nodes.ros.camera_info import (
    CameraInfos,
    DriverViews,
    beside,
    intrinsics_from_msg,
    intrinsics_to_msg,
)
from wm_nodes.ros.node import ManagedNode

K = [600.0, 0.0, 310.0, 0.0, 590.0, 250.0, 0.0, 0.0, 1.0]
P = [590.0, 0.0, 305.0, -59.0, 0.0, 580.0, 245.0, 0.0, 0.0, 0.0, 1.0, 0.0]
D = [-0.2, 0.1, 0.001, 0.002, 0.0]


def info(**changes) -> CameraInfo:
    """Return a calibrated camera of 640x480."""
    fields = {"width": 640, "height": 480, "k": K, "p": P, "d": D}
    fields |= {"r": np.eye(3).ravel().tolist(), "distortion_model": "plumb_bob", **changes}
    return CameraInfo(**fields)


class DriverCameras:
    """The sizes and frame ids that a driver reports of its cameras."""

    def __init__(self) -> None:
        self.raw_sizes = {"front": (480, 640)}
        self.frame_ids = {"front": "driver_frame"}


class CameraNodeStub(ManagedNode):
    NAME = "robot"
    config = config()

    def configure(self) -> None:
        self.driver = DriverCameras()
        self.views = DriverViews(self, self.config, self.driver, "left_")
        self.infos = CameraInfos(self, self.config.cameras, self.views)


@pytest.fixture
def start_camera(graph):
    """Return a function: (changes of the source) -> (node, publisher of the driver, messages)."""

    def start(**changes):
        defaults = {"topic": f"{graph.namespace}/driver/image_raw", "width": 64, "height": 64}
        source = CameraSource(**{**defaults, "crop": (0.125, 0.0, 0.125, 0.0), **changes})
        arm_config = replace(config(), cameras={"front": source})
        kind = type("ConfiguredNode", (CameraNodeStub,), {"config": arm_config})
        node = graph.add(kind)
        topic = f"{graph.namespace}/driver/camera_info"
        info_pub = graph.probe.create_publisher(CameraInfo, source.info_topic or topic, 10)
        received = graph.subscribe(topics.CAMERA_INFO, camera="front")
        graph.matched(node.infos.publishers[0])
        return node, info_pub, received

    return start


def fact(node) -> str:
    return node.diagnostics.facts["camera_info/front"]


def test_intrinsics_of_the_driver_are_adjusted_and_carry_the_images_stamp(
    graph, start_camera
) -> None:
    node, info_pub, received = start_camera()
    graph.matched(info_pub).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))
    node.infos.publish("front", 12_000_000_034)
    graph.until(lambda: received)
    msg, scale = received[0], 64 / 480
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (12, 34)
    assert msg.header.frame_id == node.infos.frame_id("front") == "driver_frame"
    assert (msg.width, msg.height, list(msg.d)) == (64, 64, D)
    expected = [600 * scale, 590 * scale, (310.5 - 80) * scale - 0.5, 250.5 * scale - 0.5]
    np.testing.assert_allclose([msg.k[0], msg.k[4], msg.k[2], msg.k[5]], expected)
    expected = [590 * scale, 580 * scale, (305.5 - 80) * scale - 0.5, 245.5 * scale - 0.5]
    np.testing.assert_allclose([msg.p[0], msg.p[5], msg.p[2], msg.p[6]], expected)
    assert msg.p[3] == pytest.approx(-59 * scale)
    assert (msg.binning_x, msg.binning_y, msg.roi) == (0, 0, RegionOfInterest())
    assert fact(node) == "published"


def test_a_topic_of_the_yaml_is_used(graph, start_camera) -> None:
    node, info_pub, _ = start_camera(info_topic=f"{graph.namespace}/calibration/front")
    graph.matched(info_pub).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))


@pytest.mark.parametrize(
    ("message", "expected_message"),
    [
        (None, "none: no CameraInfo on "),
        (info(k=[0.0] * 9), "none: the camera is not calibrated"),
        (info(width=1280, height=720), "is of 1280x720 pixels, the images have 640x480"),
    ],
)
def test_without_calibration_none_is_published_and_the_diagnostics_hold_the_reason(
    graph, start_camera, message, expected_message
) -> None:
    node, info_pub, received = start_camera()
    if message is not None:
        graph.matched(info_pub).publish(message)
        graph.until(lambda: "front" in node.views._sent)
    node.infos.publish("front", 1)
    graph.spin(0.1)
    assert not received
    assert expected_message in fact(node)


def test_a_device_without_a_topic_has_none(graph, start_camera) -> None:
    node, _, received = start_camera(topic="", device="0")
    node.infos.publish("front", 1)
    graph.spin(0.1)
    assert not received
    assert "set `info_topic`" in fact(node)


@pytest.mark.parametrize(
    "bad",
    [
        info(k=[float("nan"), *K[1:]]),
        info(d=[float("inf")]),
        info(roi=RegionOfInterest(x_offset=600, width=100, height=100)),
        info(binning_x=4000),
        info(d=[0.0] * 10_000),
    ],
)
def test_bad_messages_are_dropped_and_the_last_good_one_stays(graph, start_camera, bad) -> None:
    node, info_pub, _ = start_camera()
    graph.matched(info_pub).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))
    good = node.views.intrinsics("front")
    info_pub.publish(bad)
    graph.until(lambda: node.diagnostics.drops)
    assert node.views.intrinsics("front") is good


def test_the_newest_calibration_counts_and_equal_ones_are_not_converted_again(
    graph, start_camera
) -> None:
    node, info_pub, _ = start_camera()
    graph.matched(info_pub).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))
    first = node.views.intrinsics("front")
    for _ in range(3):
        info_pub.publish(info())
        graph.spin(0.05)
    assert node.views.intrinsics("front") is first
    info_pub.publish(info(k=[700.0, *K[1:]]))
    graph.until(lambda: node.views.intrinsics("front") is not first)
    assert node.views.intrinsics("front").k[0, 0] == pytest.approx(700 * 64 / 480)


def test_a_camera_without_a_frame_id_gets_one(graph, start_camera) -> None:
    node, _, _ = start_camera()
    node.driver.frame_ids = {"front": ""}
    assert node.infos.frame_id("front") == "left_front_optical_frame"


@pytest.mark.parametrize("binning", [(0, 0), (2, 2), (2, 4)])
@pytest.mark.parametrize("region", [(0, 0, 0, 0), (40, 20, 400, 320)])
def test_intrinsics_are_those_of_the_binned_region(binning, region) -> None:
    x, y, width, height = region
    roi = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    intrinsics = intrinsics_from_msg(info(binning_x=binning[0], binning_y=binning[1], roi=roi))
    bx, by = max(binning[0], 1), max(binning[1], 1)
    assert (intrinsics.width, intrinsics.height) == ((width or 640) // bx, (height or 480) // by)
    point = np.array([0.1, -0.05, 1.0])
    u, v, _ = np.reshape(K, (3, 3)) @ point
    expected = [(u - x + 0.5) / bx - 0.5, (v - y + 0.5) / by - 0.5, 1]
    np.testing.assert_allclose(intrinsics.k @ point, expected)


def test_intrinsics_survive_a_message() -> None:
    intrinsics = intrinsics_from_msg(info())
    restored = intrinsics_from_msg(intrinsics_to_msg(intrinsics))
    for name in ("k", "p", "r"):
        np.testing.assert_array_equal(getattr(intrinsics, name), getattr(restored, name))
    assert restored.distortion == intrinsics.distortion == tuple(D)
    uncalibrated = intrinsics_from_msg(info(p=[0.0] * 12, r=[0.0] * 9))
    np.testing.assert_array_equal(uncalibrated.p[:, :3], uncalibrated.k)
    np.testing.assert_array_equal(uncalibrated.r, np.eye(3))
    with pytest.raises(MessageError):
        intrinsics_from_msg(info(p=[float("nan")] * 12))


def test_the_camera_info_topic_of_an_image_topic() -> None:
    assert beside("/camera/color/image_raw") == "/camera/color/camera_info"
    assert beside("/image_raw") == "/camera_info"
    assert beside("image_raw") == "camera_info"
    assert beside("/camera/color/image_raw/compressed") == "/camera/color/camera_info"
    assert beside("/camera/depth/image_raw/compressedDepth") == "/camera/depth/camera_info"
    assert beside("") == ""


# The nodes -------------------------------------------------------------------------------------


@pytest.fixture
def gl() -> None:
    try:
        rendering.gl_renderer()
    except RenderError as error:
        pytest.skip(str(error))


def pairs(images: list[Image], infos: list[CameraInfo]) -> list[tuple[Image, CameraInfo]]:
    """Return images and infos of equal stamps."""
    by_stamp = {messages.from_time(msg.header.stamp): msg for msg in infos}
    matches = [(msg, by_stamp.get(messages.from_time(msg.header.stamp))) for msg in images]
    return [(image, camera_info) for image, camera_info in matches if camera_info is not None]


def test_the_robot_node_publishes_the_intrinsics_of_the_simulated_driver(
    graph, gl, monkeypatch
) -> None:
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)
    images, infos = (
        graph.subscribe(t, camera="front") for t in (topics.IMAGE_RAW, topics.CAMERA_INFO)
    )
    graph.add(ArmSimNode, camera_px=96)
    graph.add(RobotNode, adapter="arm", mode="realtime", home=False, dry_run=True)
    graph.until(lambda: len(pairs(images, infos)) > 1)
    for image, camera_info in pairs(images, infos):
        assert image.header == camera_info.header
        assert image.header.frame_id == "front_optical_frame"
        assert (camera_info.width, camera_info.height) == (image.width, image.height) == (64, 64)
        expected = Intrinsics.pinhole(64, 64, 42, upturned=False)  # fovy of the camera in the model
        np.testing.assert_allclose(np.reshape(camera_info.k, (3, 3)), expected.k, atol=1e-6)


def test_metaworld_in_lockstep_publishes_camera_info(graph, gl) -> None:
    pytest.importorskip("metaworld")
    image_topics = (topics.IMAGE_RAW, topics.CAMERA_INFO)
    images, infos = (graph.subscribe(topic, camera="corner4") for topic in image_topics)
    node = graph.add(RobotNode, adapter="metaworld", task="reach-v3", frame_prefix="sim_")
    graph.until(lambda: pairs(images, infos))
    image, camera_info = pairs(images, infos)[0]
    assert image.header == camera_info.header
    assert image.header.frame_id == "sim_corner4_optical_frame"
    assert (camera_info.width, camera_info.height, list(camera_info.d)) == (64, 64, [0.0] * 5)
    assert node.diagnostics.facts["camera_info/corner4"] == "published"


def test_a_robot_without_intrinsics_reports_it(graph) -> None:
    infos, images = (
        graph.subscribe(t, camera="top") for t in (topics.CAMERA_INFO, topics.IMAGE_RAW)
    )
    node = graph.add(RobotNode, adapter="wall", task="wall-any")
    graph.until(lambda: images)
    graph.spin(0.1)
    assert not infos
    assert "does not know" in node.diagnostics.facts["camera_info/top"]
