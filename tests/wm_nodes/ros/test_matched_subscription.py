"""A matched subscription receives from every publisher, reliably where all of them are reliable."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from wm_nodes.ros.arm.cameras import NEWEST
from wm_nodes.ros.matched_subscription import BEST_EFFORT, RELIABLE, MatchedSubscription

RELIABLE_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Camera:
    """Publishes an image at each check, until one is received."""

    def __init__(self, graph, qos: QoSProfile) -> None:
        self._graph, self.sent = graph, 0
        self._publisher = graph.probe.create_publisher(Image, "top/image_raw", qos)

    def is_received(self, messages: list) -> bool:
        self.sent += 1
        self._publisher.publish(Image(height=self.sent))
        return bool(messages)

    def close(self) -> None:
        self._graph.probe.destroy_publisher(self._publisher)


@pytest.fixture
def subscription(graph):
    messages: list = []
    matched = MatchedSubscription(
        graph.probe, Image, "top/image_raw", messages.append, NEWEST, on_lost=lambda n: None
    )
    yield matched, messages
    matched.close()


@pytest.mark.parametrize(
    "qos, expected", [(RELIABLE_QOS, RELIABLE), (BEST_EFFORT_QOS, BEST_EFFORT)]
)
def test_it_has_the_publishers_reliability(graph, subscription, qos, expected) -> None:
    matched, messages = subscription
    camera = Camera(graph, qos)
    graph.until(lambda: matched.reliability == expected and camera.is_received(messages))
    assert matched.subscription.qos_profile.depth == NEWEST


def test_it_follows_when_the_publishers_change(graph, subscription) -> None:
    matched, messages = subscription
    first = Camera(graph, RELIABLE_QOS)
    graph.until(lambda: matched.reliability == RELIABLE and first.is_received(messages))
    second = Camera(graph, BEST_EFFORT_QOS)  # messages of both must be received
    graph.until(lambda: matched.reliability == BEST_EFFORT)
    messages.clear()
    graph.until(lambda: second.is_received(messages))
    second.close()
    graph.until(lambda: matched.reliability == RELIABLE)
    messages.clear()
    graph.until(lambda: first.is_received(messages))
    assert len(list(graph.probe.subscriptions)) == 1


def test_a_publisher_that_ends_changes_nothing(graph, subscription) -> None:
    matched, _ = subscription
    camera = Camera(graph, RELIABLE_QOS)
    graph.until(lambda: matched.reliability == RELIABLE)
    before = matched.subscription
    camera.close()
    graph.until(lambda: not graph.probe.get_publishers_info_by_topic("top/image_raw"))
    matched.match()
    assert matched.subscription is before
