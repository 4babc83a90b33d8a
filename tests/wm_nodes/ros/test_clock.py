"""/clock: simulators publish it; one that is missing, stops or goes back is a fault."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from wm_nodes.nodes.robot import RobotNode
from wm_nodes.records import Origin, Plan
from wm_nodes.ros import clock, messages, topics
from wm_nodes.ros.node import ManagedNode

POINT = {"adapter": "tests.wm_nodes.point_robot:PointRobot", "time_limit": 3}


class PlainNode(ManagedNode):
    NAME = "plain"


@pytest.fixture
def node_and_clock(graph, monkeypatch):
    """Return a node with use_sim_time, and a function that sets its time [s]."""
    monkeypatch.setattr(clock, "STANDS_S", 0.3)
    node = graph.add(PlainNode, use_sim_time=True)
    publisher = graph.matched(graph.probe.create_publisher(Clock, clock.TOPIC, 10))

    def set_time(seconds: float) -> None:
        publisher.publish(Clock(clock=messages.to_time(round(seconds * messages.SECOND_NS))))
        graph.until(lambda: node.get_clock().now().nanoseconds == round(seconds * 1e9))

    return node, set_time


def test_a_missing_or_stopped_clock_is_a_fault_until_it_advances(graph, node_and_clock) -> None:
    node, set_time = node_and_clock
    graph.until(lambda: "no time at all" in node.diagnostics.active_faults.get("clock", ""))
    set_time(5.0)
    graph.until(lambda: "clock" not in node.diagnostics.active_faults)
    graph.until(lambda: "standing at 5.000 s" in node.diagnostics.active_faults.get("clock", ""))


def test_a_clock_that_goes_back_is_counted(graph, node_and_clock) -> None:
    node, set_time = node_and_clock
    for seconds in (5.0, 6.0, 5.5, 5.6):
        set_time(seconds)
    assert node.diagnostics.faults["clock_back"] == 1


def test_without_use_sim_time_there_is_no_fault(graph, monkeypatch) -> None:
    monkeypatch.setattr(clock, "STANDS_S", 0.0)
    node = graph.add(PlainNode)
    graph.spin(0.1)
    node.diagnose()
    assert not node.diagnostics.active_faults


@pytest.mark.parametrize("mode", topics.MODES)
def test_a_simulator_with_use_sim_time_publishes_the_clock(graph, mode) -> None:
    """/clock has the stamps of its observations, one control period apart."""
    clocks: list[int] = []
    graph.probe.create_subscription(
        Clock,
        clock.TOPIC,
        lambda msg: clocks.append(messages.from_time(msg.clock)),
        QoSProfile(depth=50),
    )
    steps = graph.subscribe(topics.STEPS, messages.step_from_msg)
    plans = topics.PLAN.always(graph.probe)
    node = graph.add(RobotNode, **POINT, mode=mode, use_sim_time=True)
    graph.matched(plans)
    if mode == topics.LOCKSTEP:
        graph.until(lambda: steps)
        plan = Plan(steps[-1].stamp_ns, Origin("m", "actor", 1), ("push",), [[0.0]], 0.1)
        plans.publish(messages.plan_to_msg(plan))
    graph.until(lambda: len({step.stamp_ns for step in steps}) > 1 and len(set(clocks)) > 1)
    stamps = sorted({step.stamp_ns for step in steps})
    assert {round(0.1 * messages.SECOND_NS)} == {b - a for a, b in pairwise(stamps)}
    graph.until(lambda: set(clocks) & set(stamps))
    assert stamps[-1] < messages.SECOND_NS * 1000  # simulated, not this computer's
    assert "clock" not in node.diagnostics.active_faults


def test_without_use_sim_time_a_simulator_publishes_no_clock(graph) -> None:
    graph.add(RobotNode, **POINT)
    assert graph.probe.count_publishers(clock.TOPIC) == 0


def test_the_clock_of_the_simulated_arm_begins_at_0(graph) -> None:
    pytest.importorskip("mujoco")
    from wm_nodes.nodes.arm_sim import ArmSimNode

    clocks: list[int] = []
    stamps: list[int] = []
    graph.probe.create_subscription(
        Clock, clock.TOPIC, lambda msg: clocks.append(messages.from_time(msg.clock)), 10
    )
    graph.probe.create_subscription(
        JointState,
        "/arm_sim/joint_states",
        lambda msg: stamps.append(messages.from_time(msg.header.stamp)),
        10,
    )
    graph.add(ArmSimNode, render="none", use_sim_time=True)
    graph.until(lambda: len(clocks) > 5 and len(stamps) > 5)
    assert clocks == sorted(clocks) and clocks[-1] < 1000 * messages.SECOND_NS
    assert stamps[-1] < 1000 * messages.SECOND_NS
