"""The camera node: size, stamp, rate; files; silent and frozen cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("cv2")

import cv2
import rclpy
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from tests.wm_nodes.point_robot import PointRobot
from wm_nodes.errors import UserError
from wm_nodes.nodes.camera import CameraNode
from wm_nodes.ros import messages, robot_camera, topics

TOP = {"camera": "top"}


@pytest.fixture
def camera_topics(graph):
    """Return a function that publishes an image, and the list of images from the node."""
    received = graph.subscribe(topics.IMAGE, messages.image_from_msg, **TOP)
    publisher = topics.IMAGE_RAW.always(graph.probe, **TOP)

    def publish(stamp_ns: int, value: int = 0, shape: tuple = (48, 64, 3)) -> None:
        graph.matched(publisher)
        image = np.full(shape, value, np.uint8)
        publisher.publish(messages.image_to_msg(image, stamp_ns))

    return publish, received


def write_video(path: Path, frames: int = 6) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    return path


def test_an_image_is_published_in_the_models_size_with_its_stamp(graph, camera_topics) -> None:
    publish, received = camera_topics
    graph.add(CameraNode, **TOP, height=16, width=32)
    publish(123)
    graph.until(lambda: received)
    assert received[0][0] == 123 and received[0][1].shape == (16, 32, 3)


def test_in_lockstep_every_image_is_published_in_order(graph, camera_topics) -> None:
    publish, received = camera_topics
    graph.add(CameraNode, **TOP)
    for stamp in range(1, 51):
        publish(stamp)
    graph.until(lambda: len(received) == 50)
    assert [stamp for stamp, _ in received] == list(range(1, 51))


def test_in_real_time_the_rate_is_bounded(graph, camera_topics) -> None:
    publish, received = camera_topics
    graph.add(CameraNode, **TOP, mode="realtime", rate_hz=5.0)
    for stamp in range(1, 31):
        publish(stamp)
        graph.spin(0.02)
    graph.spin(0.1)
    assert 1 <= len(received) <= 12


def test_a_silent_and_a_frozen_camera_are_faults_until_new_images_arrive(
    graph, camera_topics
) -> None:
    publish, _ = camera_topics
    node = graph.add(CameraNode, **TOP, mode="realtime", stale_s=0.5, frozen_s=1.0)
    publish(1)
    graph.until(lambda: "silent" in node.diagnostics.active_faults.get("camera", ""))
    ticks = iter(range(2, 10_000))

    def publish_next(value: int = 9) -> bool:
        publish(next(ticks), value)
        return False

    graph.until(
        lambda: publish_next() or "frozen" in node.diagnostics.active_faults.get("camera", "")
    )
    graph.until(
        lambda: publish_next(next(ticks) % 255) or "camera" not in node.diagnostics.active_faults
    )


def test_the_node_ends_at_the_end_of_its_video_file(graph, camera_topics, tmp_path) -> None:
    _, received = camera_topics
    node = graph.add(CameraNode, **TOP, source=str(write_video(tmp_path / "a.avi")))
    graph.until(node.finished.done)
    assert node.exit_code == 0 and received
    stamps = [stamp for stamp, _ in received]
    assert stamps == sorted(stamps) and received[0][1].shape == (64, 64, 3)


def test_a_video_file_may_be_looped(graph, camera_topics, tmp_path) -> None:
    _, received = camera_topics
    node = graph.add(CameraNode, **TOP, source=str(write_video(tmp_path / "a.avi")), loop=True)
    graph.until(lambda: len(received) > 8)
    assert not node.finished.done()


@pytest.mark.parametrize("source", ["/nowhere.mp4", "/dev/video99", "http://127.0.0.1:9/none"])
def test_a_source_that_cannot_be_opened_is_a_user_error(graph, source: str) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        graph.add(CameraNode, **TOP, source=source)


@pytest.mark.parametrize("crop", [[0.6, 0.0, 0.6, 0.0], [0.0, 0.0]])
def test_a_wrong_crop_is_a_user_error(graph, crop: list) -> None:
    with pytest.raises(UserError, match="crop"):
        graph.add(CameraNode, **TOP, crop=crop)


def test_a_camera_without_a_publisher_is_a_user_error(graph, monkeypatch) -> None:
    monkeypatch.setattr(robot_camera, "WAIT_S", 0.1)
    graph.add(CameraNode, **TOP)
    spec = replace(PointRobot().spec.log_spec(), cameras={"front": (8, 8, 3)})
    latched = topics.SPEC.always(graph.probe)
    latched.publish(messages.spec_to_msg(spec))
    with pytest.raises(
        UserError, match=r"got 'top', which .* does not have and no node publishes .*: front"
    ):
        graph.until(lambda: False)


def test_a_camera_with_its_own_publisher_is_accepted(graph, camera_topics, monkeypatch) -> None:
    monkeypatch.setattr(robot_camera, "WAIT_S", 0.1)
    publish, received = camera_topics
    node = graph.add(CameraNode, **TOP)
    graph.until(lambda: node.count_publishers("top/image_raw"))
    spec = replace(PointRobot().spec.log_spec(), cameras={"front": (8, 8, 3)})
    topics.SPEC.always(graph.probe).publish(messages.spec_to_msg(spec))
    graph.until(lambda: node._robot._robot is not None)
    graph.spin(0.3)
    publish(1)
    graph.until(lambda: received)


RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
BGR = np.ascontiguousarray(RGB[:, :, ::-1])


@pytest.mark.parametrize("fmt", ["png", "rgb8; png compressed bgr8"])
def test_compressed_images_are_decoded_and_bad_ones_counted(graph, fmt: str) -> None:
    received = graph.subscribe(topics.IMAGE, messages.image_from_msg, **TOP)
    node = graph.add(CameraNode, **TOP, transport="compressed", height=0, width=0)
    publisher = graph.matched(topics.IMAGE_COMPRESSED.always(graph.probe, **TOP))
    data = cv2.imencode(".png", BGR)[1].tobytes()
    publisher.publish(CompressedImage(format=fmt, data=data[:-20]))
    publisher.publish(CompressedImage(format="16UC1; compressedDepth rvl", data=data))
    publisher.publish(CompressedImage(header=messages.header(7), format=fmt, data=data))
    graph.until(lambda: received)
    assert received[0][0] == 7 and np.array_equal(received[0][1], RGB)
    for reason in ("data", "encoding"):
        assert node.diagnostics.drops[f"top/image_raw/compressed/{reason}"] == 1


@pytest.mark.parametrize(("encoding", "pixels"), [("8UC3", BGR), ("8UC1", RGB[:, :, 0])])
def test_encodings_without_colour_names_are_read_as_opencv_does(
    graph, encoding: str, pixels
) -> None:
    received = graph.subscribe(topics.IMAGE, messages.image_from_msg, **TOP)
    graph.add(CameraNode, **TOP, height=0, width=0)
    publisher = graph.matched(topics.IMAGE_RAW.always(graph.probe, **TOP))
    msg = ImageMsg(encoding=encoding, height=6, width=8, step=pixels[0].size, data=pixels.tobytes())
    publisher.publish(msg)
    graph.until(lambda: received)
    expected = RGB if encoding == "8UC3" else np.repeat(RGB[:, :, :1], 3, axis=2)
    assert np.array_equal(received[0][1], expected)


@pytest.mark.parametrize(
    ("transport", "published_type", "message"),
    [
        ("raw", topics.IMAGE_COMPRESSED.type, "CompressedImage, expected .*transport: compressed"),
        ("compressed", topics.IMAGE_RAW.type, "/Image, expected .*transport: raw"),
        ("compressed", None, "top/image_raw/compressed: got no publisher"),
    ],
)
def test_images_of_another_type_are_a_user_error(
    graph, monkeypatch, request, transport: str, published_type, message: str
) -> None:
    monkeypatch.setattr(robot_camera, "WAIT_S", 0.3)
    node = graph.add(CameraNode, **TOP, transport=transport)
    name = node.params.images.name.format(**TOP)
    if published_type is not None:
        other = rclpy.Context()  # one process has one type for a topic
        other.init(domain_id=graph.probe.context.get_domain_id())
        request.addfinalizer(other.try_shutdown)
        driver = rclpy.create_node("driver", context=other)
        driver.create_publisher(published_type, node.resolve_topic_name(name), 1)
        graph.until(lambda: node.count_publishers(name))
    cameras = {"front" if transport == "raw" else "top": (8, 8, 3)}
    spec = replace(PointRobot().spec.log_spec(), cameras=cameras)
    topics.SPEC.always(graph.probe).publish(messages.spec_to_msg(spec))
    with pytest.raises(UserError, match=message):
        graph.until(lambda: False)
