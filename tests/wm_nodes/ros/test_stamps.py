"""Stamps that are no time of capture are counted and reported; all stamps are passed on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from wm_nodes.nodes.camera import CameraNode
from wm_nodes.robots.cameras.opencv import taken_s
from wm_nodes.ros import messages, topics
from wm_nodes.ros.stamps import wrong_stamp

SECOND = messages.SECOND_NS
TOP = {"camera": "top"}


@pytest.mark.parametrize(
    "stamp_ns, age_s, expected",
    [
        (1, 0.0, ""), (1, 10.0, ""), (1, -0.1, ""), (1, 10.1, "old"), (1, -0.2, "future"),
        (0, 1.8e9, "zero"), (5, 1.8e9, "old"),
    ],
)  # fmt: skip
def test_a_stamp_is_valid_zero_old_or_future(stamp_ns, age_s, expected) -> None:
    assert wrong_stamp(stamp_ns, age_s) == expected


@pytest.mark.parametrize(
    "stamp_ms, expected", [(99_980.0, 99.98), (0.0, 100.0), (100_001.0, 100.0), (89_000.0, 100.0)]
)
def test_a_drivers_time_of_capture_counts_if_it_can_be_one(stamp_ms, expected) -> None:
    assert taken_s(stamp_ms, now_s=100.0) == expected


@pytest.mark.parametrize("mode, counted", [("realtime", 1), ("lockstep", 0)])
@pytest.mark.parametrize(
    "offset_s, reason", [(None, "zero"), (-1e9, "old"), (-11.0, "old"), (5.0, "future")]
)
def test_the_camera_node_counts_and_reports_stamps_out_of_range(
    graph, mode, counted, offset_s, reason
) -> None:
    """In lockstep, stamps are simulated time: any is valid."""
    node = graph.add(CameraNode, mode=mode, **TOP)
    received = graph.subscribe(topics.IMAGE, messages.image_from_msg, **TOP)
    publisher = graph.matched(topics.IMAGE_RAW.always(graph.probe, **TOP))
    now_ns = node.get_clock().now().nanoseconds
    stamp_ns = 0 if offset_s is None else now_ns + round(offset_s * SECOND)
    image = np.zeros((8, 8, 3), np.uint8)
    publisher.publish(messages.image_to_msg(image, stamp_ns))
    graph.until(lambda: received)
    assert received[0][0] == stamp_ns  # it is passed on unchanged
    assert node.diagnostics.facts.get(f"stamps/top/{reason}", 0) == counted
    assert ("camera_clock" in node.diagnostics.active_faults) == bool(counted)
    publisher.publish(messages.image_to_msg(image, node.get_clock().now().nanoseconds))
    graph.until(lambda: "camera_clock" not in node.diagnostics.active_faults)
