"""A matched subscription hears every publisher, reliably where all of them are."""

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
    """Publishes until it is heard."""

    def __init__(self, graph, qos: QoSProfile) -> None:
        self._graph, self.sent = graph, 0
        self._publisher = graph.probe.create_publisher(Image, "top/image_raw", qos)

    def is_heard(self, heard: list) -> bool:
        self.sent += 1
        self._publisher.publish(Image(height=self.sent))
        return bool(heard)

    def close(self) -> None:
        self._graph.probe.destroy_publisher(self._publisher)


@pytest.fixture
def heard(graph):
    made: list = []
    made_by = MatchedSubscription(
        graph.probe, Image, "top/image_raw", made.append, NEWEST, on_lost=lambda n: None
    )
    yield made_by, made
    made_by.close()


@pytest.mark.parametrize("qos, right", [(RELIABLE_QOS, RELIABLE), (BEST_EFFORT_QOS, BEST_EFFORT)])
def test_it_takes_the_publishers_reliability(graph, heard, qos, right) -> None:
    matched, messages = heard
    camera = Camera(graph, qos)
    graph.until(lambda: matched.reliability == right and camera.is_heard(messages))
    assert matched.subscription.qos_profile.depth == NEWEST


def test_it_follows_when_the_publishers_change(graph, heard) -> None:
    matched, messages = heard
    first = Camera(graph, RELIABLE_QOS)
    graph.until(lambda: matched.reliability == RELIABLE and first.is_heard(messages))
    second = Camera(graph, BEST_EFFORT_QOS)  # both must be heard
    graph.until(lambda: matched.reliability == BEST_EFFORT)
    messages.clear()
    graph.until(lambda: second.is_heard(messages))
    second.close()
    graph.until(lambda: matched.reliability == RELIABLE)
    messages.clear()
    graph.until(lambda: first.is_heard(messages))
    assert len(list(graph.probe.subscriptions)) == 1


def test_a_publisher_that_goes_changes_nothing(graph, heard) -> None:
    matched, _ = heard
    camera = Camera(graph, RELIABLE_QOS)
    graph.until(lambda: matched.reliability == RELIABLE)
    before = matched.subscription
    camera.close()
    graph.until(lambda: not graph.probe.get_publishers_info_by_topic("top/image_raw"))
    matched.match()
    assert matched.subscription is before
