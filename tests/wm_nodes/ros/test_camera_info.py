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
    given = {"width": 640, "height": 480, "k": K, "p": P, "d": D}
    given |= {"r": np.eye(3).ravel().tolist(), "distortion_model": "plumb_bob", **changes}
    return CameraInfo(**given)


class Bus:
    """What a bus knows of its cameras."""

    def __init__(self) -> None:
        self.raw_sizes = {"front": (480, 640)}
        self.frame_ids = {"front": "driver_frame"}


class CameraNodeStub(ManagedNode):
    NAME = "robot"
    config = config()

    def configure(self) -> None:
        self.bus = Bus()
        self.views = DriverViews(self, self.config, self.bus, "left_")
        self.infos = CameraInfos(self, self.config.cameras, self.views)


@pytest.fixture
def camera(graph):
    """Return a function: (source's changes) -> (node, the driver's publisher, messages)."""

    def made(**changes):
        given = {"topic": f"{graph.namespace}/driver/image_raw", "width": 64, "height": 64}
        source = CameraSource(**{**given, "crop": (0.125, 0.0, 0.125, 0.0), **changes})
        given = replace(config(), cameras={"front": source})
        kind = type("Given", (CameraNodeStub,), {"config": given})
        node = graph.add(kind)
        topic = f"{graph.namespace}/driver/camera_info"
        driver = graph.probe.create_publisher(CameraInfo, source.info_topic or topic, 10)
        received = graph.subscribe(topics.CAMERA_INFO, camera="front")
        graph.matched(node.infos.publishers[0])
        return node, driver, received

    return made


def fact(node) -> str:
    return node.diagnostics.facts["camera_info/front"]


def test_intrinsics_of_the_driver_are_adjusted_and_carry_the_images_stamp(graph, camera) -> None:
    node, driver, received = camera()
    graph.matched(driver).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))
    node.infos.publish("front", 12_000_000_034)
    graph.until(lambda: received)
    msg, scale = received[0], 64 / 480
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (12, 34)
    assert msg.header.frame_id == node.infos.frame_id("front") == "driver_frame"
    assert (msg.width, msg.height, list(msg.d)) == (64, 64, D)
    right = [600 * scale, 590 * scale, (310.5 - 80) * scale - 0.5, 250.5 * scale - 0.5]
    np.testing.assert_allclose([msg.k[0], msg.k[4], msg.k[2], msg.k[5]], right)
    right = [590 * scale, 580 * scale, (305.5 - 80) * scale - 0.5, 245.5 * scale - 0.5]
    np.testing.assert_allclose([msg.p[0], msg.p[5], msg.p[2], msg.p[6]], right)
    assert msg.p[3] == pytest.approx(-59 * scale)
    assert (msg.binning_x, msg.binning_y, msg.roi) == (0, 0, RegionOfInterest())
    assert fact(node) == "published"


def test_a_topic_of_the_yaml_is_taken(graph, camera) -> None:
    node, driver, _ = camera(info_topic=f"{graph.namespace}/calibration/front")
    graph.matched(driver).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))


@pytest.mark.parametrize(
    ("message", "expected_message"),
    [
        (None, "none: no CameraInfo on "),
        (info(k=[0.0] * 9), "none: the camera is not calibrated"),
        (info(width=1280, height=720), "is of 1280x720 pixels, the images have 640x480"),
    ],
)
def test_without_calibration_there_is_none_and_the_diagnostics_say_why(
    graph, camera, message, expected_message
) -> None:
    node, driver, received = camera()
    if message is not None:
        graph.matched(driver).publish(message)
        graph.until(lambda: "front" in node.views._sent)
    node.infos.publish("front", 1)
    graph.spin(0.1)
    assert not received
    assert expected_message in fact(node)


def test_a_device_without_a_topic_has_none(graph, camera) -> None:
    node, _, received = camera(topic="", device="0")
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
def test_bad_messages_are_dropped_and_the_last_good_one_stays(graph, camera, bad) -> None:
    node, driver, _ = camera()
    graph.matched(driver).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))
    good = node.views.intrinsics("front")
    driver.publish(bad)
    graph.until(lambda: node.diagnostics.drops)
    assert node.views.intrinsics("front") is good


def test_the_newest_calibration_counts_and_equal_ones_cost_nothing(graph, camera) -> None:
    node, driver, _ = camera()
    graph.matched(driver).publish(info())
    graph.until(lambda: node.views.intrinsics("front"))
    first = node.views.intrinsics("front")
    for _ in range(3):
        driver.publish(info())
        graph.spin(0.05)
    assert node.views.intrinsics("front") is first
    driver.publish(info(k=[700.0, *K[1:]]))
    graph.until(lambda: node.views.intrinsics("front") is not first)
    assert node.views.intrinsics("front").k[0, 0] == pytest.approx(700 * 64 / 480)


def test_a_camera_without_a_frame_of_its_own_gets_one(graph, camera) -> None:
    node, _, _ = camera()
    node.bus.frame_ids = {"front": ""}
    assert node.infos.frame_id("front") == "left_front_optical_frame"


@pytest.mark.parametrize("binning", [(0, 0), (2, 2), (2, 4)])
@pytest.mark.parametrize("region", [(0, 0, 0, 0), (40, 20, 400, 320)])
def test_binning_and_region_are_those_of_the_image_that_is_sent(binning, region) -> None:
    x, y, width, height = region
    roi = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    found = intrinsics_from_msg(info(binning_x=binning[0], binning_y=binning[1], roi=roi))
    bx, by = max(binning[0], 1), max(binning[1], 1)
    assert (found.width, found.height) == ((width or 640) // bx, (height or 480) // by)
    point = np.array([0.1, -0.05, 1.0])
    u, v, _ = np.reshape(K, (3, 3)) @ point
    expected = [(u - x + 0.5) / bx - 0.5, (v - y + 0.5) / by - 0.5, 1]
    np.testing.assert_allclose(found.k @ point, expected)


def test_a_message_and_its_intrinsics_are_the_same() -> None:
    found = intrinsics_from_msg(info())
    again = intrinsics_from_msg(intrinsics_to_msg(found))
    for name in ("k", "p", "r"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert again.distortion == found.distortion == tuple(D)
    bare = intrinsics_from_msg(info(p=[0.0] * 12, r=[0.0] * 9))
    np.testing.assert_array_equal(bare.p[:, :3], bare.k)
    np.testing.assert_array_equal(bare.r, np.eye(3))
    with pytest.raises(MessageError):
        intrinsics_from_msg(info(p=[float("nan")] * 12))


def test_the_topic_beside_an_image() -> None:
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
    found = [(msg, by_stamp.get(messages.from_time(msg.header.stamp))) for msg in images]
    return [(image, near) for image, near in found if near is not None]


def test_the_robot_node_says_what_the_simulated_driver_says(graph, gl, monkeypatch) -> None:
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)
    images, infos = (
        graph.subscribe(t, camera="front") for t in (topics.IMAGE_RAW, topics.CAMERA_INFO)
    )
    graph.add(ArmSimNode, camera_px=96)
    graph.add(RobotNode, adapter="arm", mode="realtime", home=False, dry_run=True)
    graph.until(lambda: len(pairs(images, infos)) > 1)
    for image, seen in pairs(images, infos):
        assert image.header == seen.header
        assert image.header.frame_id == "front_optical_frame"
        assert (seen.width, seen.height) == (image.width, image.height) == (64, 64)
        right = Intrinsics.pinhole(64, 64, 42, upturned=False)  # fovy of the camera in the model
        np.testing.assert_allclose(np.reshape(seen.k, (3, 3)), right.k, atol=1e-6)


def test_metaworld_in_lock_step_has_it_too(graph, gl) -> None:
    pytest.importorskip("metaworld")
    both = (topics.IMAGE_RAW, topics.CAMERA_INFO)
    images, infos = (graph.subscribe(topic, camera="corner4") for topic in both)
    node = graph.add(RobotNode, adapter="metaworld", task="reach-v3", frame_prefix="sim_")
    graph.until(lambda: pairs(images, infos))
    image, seen = pairs(images, infos)[0]
    assert image.header == seen.header
    assert image.header.frame_id == "sim_corner4_optical_frame"
    assert (seen.width, seen.height, list(seen.d)) == (64, 64, [0.0] * 5)
    assert node.diagnostics.facts["camera_info/corner4"] == "published"


def test_a_robot_that_does_not_know_its_camera_says_so(graph) -> None:
    infos, images = (
        graph.subscribe(t, camera="top") for t in (topics.CAMERA_INFO, topics.IMAGE_RAW)
    )
    node = graph.add(RobotNode, adapter="wall", task="wall-any")
    graph.until(lambda: images)
    graph.spin(0.1)
    assert not infos
    assert "does not know" in node.diagnostics.facts["camera_info/top"]
