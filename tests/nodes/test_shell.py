"""The life of a node: automatic start, transitions, errors, drops and diagnostics."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from std_msgs.msg import String

from wm_nodes import messages, topics
from wm_nodes.errors import UserError
from wm_nodes.health import Health, statuses
from wm_nodes.nodes.shell import Shell


class Listener(Shell):
    NAME = "listener"

    def configure(self) -> None:
        self.heard = []
        self.out = topics.SPEC.publisher(self)
        self.listen(topics.ANNOUNCEMENTS, messages.announcement_from_msg, self.heard.append)


class Broken(Shell):
    NAME = "broken"

    def configure(self) -> None:
        raise UserError("what, given, right")


def test_a_node_starts_by_itself(graph) -> None:
    assert graph.add(Listener).active


def test_a_node_waits_when_it_is_told_to(graph) -> None:
    node = graph.add(Listener, autostart=False)
    assert not node.active
    node.trigger_configure()
    assert not node.active
    node.trigger_activate()
    assert node.active


def test_a_mistake_in_configuring_reaches_the_caller(graph) -> None:
    with pytest.raises(UserError, match="what, given, right"):
        graph.add(Broken)


def test_cleaning_up_leaves_nothing_and_a_node_may_be_configured_again(graph) -> None:
    node = graph.add(Listener, autostart=False)
    before = node._made()
    for _ in range(2):
        node.trigger_configure()
        assert len(list(node.subscriptions)) == len(before["subscription"]) + 1
        node.trigger_activate()
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert node._made() == before


def test_what_is_refused_is_dropped_counted_and_named(graph) -> None:
    node = graph.add(Listener)
    heard = graph.hear(topics.DIAGNOSTICS, statuses)
    publisher = graph.joined(topics.ANNOUNCEMENTS.always(graph.probe))
    for data in ("", "{", "[]"):
        publisher.publish(String(data=data))
        graph.until(lambda: True)
        graph.spin(0.05)
    graph.until(lambda: node.health.drops["weights/json"] == 3)
    assert node.heard == []
    name = f"{graph.namespace}/listener"
    graph.until(lambda: any(h.get(name, {}).get("drops/weights/json") == "3" for h in heard), 5)


def test_an_inactive_node_heeds_nothing(graph) -> None:
    node = graph.add(Listener, autostart=False)
    node.trigger_configure()
    publisher = graph.joined(topics.ANNOUNCEMENTS.always(graph.probe))
    publisher.publish(String(data="{"))
    graph.spin(0.2)
    assert not node.health.drops


def test_health_knows_rate_latency_faults_and_recovery() -> None:
    health = Health()
    assert health.latency_ms == (0.0, 0.0)
    for ms in range(1, 101):
        health.worked(ms / 1e3)
    p50, p99 = health.latency_ms
    assert p50 == pytest.approx(50.5) and p99 == pytest.approx(99.01)
    assert health.fault("camera", "silent") and not health.fault("camera", "silent")
    assert health.status("/a").message == "silent" and health.status("/a").level == b"\x01"
    assert health.cleared("camera") and not health.cleared("camera")
    assert health.report()["faults/camera"] == "1" and health.status("/a").level == b"\x00"
