"""The life cycle of a node: automatic start, transitions, errors, drops and diagnostics."""

from __future__ import annotations

from array import array
from dataclasses import fields

import pytest
import yaml

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter, get_parameter_value
from std_msgs.msg import String

from wm_nodes.errors import UserError
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.camera import CameraNode, CameraParams
from wm_nodes.nodes.recorder import RecorderNode
from wm_nodes.nodes.robot import RobotNode, RobotParams
from wm_nodes.ros import messages, topics
from wm_nodes.ros.diagnostics import WARM_UP, NodeDiagnostics, statuses
from wm_nodes.ros.node import ManagedNode, NodeParams


class Listener(ManagedNode):
    NAME = "listener"

    def configure(self) -> None:
        self.announcements = []
        self.out = topics.SPEC.publisher(self)
        self.listen(topics.ANNOUNCEMENTS, messages.announcement_from_msg, self.announcements.append)


class Broken(ManagedNode):
    NAME = "broken"

    def configure(self) -> None:
        raise UserError("what, given, right")


def test_a_node_starts_automatically(graph) -> None:
    assert graph.add(Listener).active


def test_without_autostart_a_node_waits(graph) -> None:
    node = graph.add(Listener, autostart=False)
    assert not node.active
    node.trigger_configure()
    assert not node.active
    node.trigger_activate()
    assert node.active


def test_an_error_in_configure_reaches_the_caller(graph) -> None:
    with pytest.raises(UserError, match="what, given, right"):
        graph.add(Broken)


def test_cleanup_removes_all_entities_and_a_node_may_be_configured_again(graph) -> None:
    node = graph.add(Listener, autostart=False)
    before = node._entities()
    for _ in range(2):
        node.trigger_configure()
        assert len(list(node.subscriptions)) == len(before["subscription"]) + 1
        node.trigger_activate()
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert node._entities() == before


def test_a_refused_message_is_dropped_and_counted(graph) -> None:
    node = graph.add(Listener)
    received = graph.subscribe(topics.DIAGNOSTICS, statuses)
    publisher = graph.matched(topics.ANNOUNCEMENTS.always(graph.probe))
    for data in ("", "{", "[]"):
        publisher.publish(String(data=data))
        graph.until(lambda: True)
        graph.spin(0.05)
    graph.until(lambda: node.diagnostics.drops["weights/json"] == 3)
    assert node.announcements == []
    name = f"{graph.namespace}/listener"
    graph.until(
        lambda: any(report.get(name, {}).get("drops/weights/json") == "3" for report in received)
    )


def test_an_inactive_node_ignores_messages(graph) -> None:
    node = graph.add(Listener, autostart=False)
    node.trigger_configure()
    publisher = graph.matched(topics.ANNOUNCEMENTS.always(graph.probe))
    publisher.publish(String(data="{"))
    graph.spin(0.2)
    assert not node.diagnostics.drops


def test_diagnostics_hold_rate_latency_and_faults_until_they_are_cleared() -> None:
    diagnostics = NodeDiagnostics()
    assert diagnostics.latency_ms == (0.0, 0.0)
    for ms in (*[900] * WARM_UP, *range(1, 101)):  # the first ones are the node's start
        diagnostics.record_latency(ms / 1e3)
    p50, p99 = diagnostics.latency_ms
    assert p50 == pytest.approx(50.5) and p99 == pytest.approx(99.01)
    assert diagnostics.report_fault("camera", "silent") and not diagnostics.report_fault(
        "camera", "silent"
    )
    assert (
        diagnostics.status("/a").message == "silent" and diagnostics.status("/a").level == b"\x01"
    )
    assert diagnostics.clear_fault("camera") and not diagnostics.clear_fault("camera")
    assert (
        diagnostics.report()["faults/camera"] == "1" and diagnostics.status("/a").level == b"\x00"
    )


def test_the_level_is_error_while_a_node_cannot_do_its_work() -> None:
    diagnostics = NodeDiagnostics()
    diagnostics.report_fault("plan", "late")
    assert diagnostics.status("/robot/robot").level == DiagnosticStatus.WARN
    diagnostics.report_fault("estop", "latched", error=True)
    assert diagnostics.status("/robot/robot").level == DiagnosticStatus.ERROR
    diagnostics.clear_fault("estop")
    assert diagnostics.status("/robot/robot").level == DiagnosticStatus.WARN
    diagnostics.reset()
    status = diagnostics.status("/robot/robot")
    assert status.level == DiagnosticStatus.OK and status.message == "starting"


@pytest.mark.parametrize("name", ["/robot/camera", "/left/robot/camera", "/camera"])
def test_a_status_is_sorted_by_its_namespace_and_names_its_node(name) -> None:
    status = NodeDiagnostics().status(name)
    namespace, node = status.name.split(": ")
    assert status.hardware_id == namespace and status.name.endswith(": camera")
    assert (namespace.rstrip("/") + "/" + node) == name
    assert list(statuses(DiagnosticArray(status=[status]))) == [name]


def test_faults_are_cleared_when_a_node_ends(graph) -> None:
    node = graph.add(Listener)
    node.report_fault("camera", "silent", error=True)
    node.trigger_deactivate()
    assert not node.diagnostics.active_faults and not node.diagnostics.ready


class Tuned(Listener):
    NAME = "tuned"

    def configure(self) -> None:
        super().configure()
        self.add_on_set_parameters_callback(self._on_parameters)

    def _on_parameters(self, parameters) -> SetParametersResult:
        return SetParametersResult(successful=True)


def test_parameter_callbacks_do_not_accumulate(graph) -> None:
    node = graph.add(Tuned, autostart=False)
    before = list(node._on_set_parameters_callbacks)
    for _ in range(3):
        node.trigger_configure()
        assert len(node._on_set_parameters_callbacks) == len(before) + 1
        node.trigger_cleanup()
    assert list(node._on_set_parameters_callbacks) == before


@pytest.mark.parametrize("kind", [ArmSimNode, CameraNode, RecorderNode, RobotNode])
def test_a_dump_of_all_parameters_can_be_loaded(graph, kind) -> None:
    """As `ros2 param dump` and `ros2 param load` do, through YAML."""
    node = graph.add(kind, begin=False)
    dump = {name: node.get_parameter(name).value for name in node._parameters}
    assert {field.name for field in fields(kind.PARAMS)} <= dump.keys()
    text = yaml.safe_dump({n: list(v) if isinstance(v, array) else v for n, v in dump.items()})
    for name, value in yaml.safe_load(text).items():
        wire = ParameterMsg(name=name, value=get_parameter_value(yaml.safe_dump(value)))
        result = node.set_parameters_atomically([Parameter.from_parameter_msg(wire)])
        assert result.successful, f"{name}: {result.reason}"


def test_a_fixed_parameter_does_not_change(graph) -> None:
    node = graph.add(CameraNode, begin=False)
    result = node.set_parameters_atomically([Parameter("height", value=32)])
    assert not result.successful and node.get_parameter("height").value == 64


@pytest.mark.parametrize(
    ("kind", "params"),
    [(CameraNode, CameraParams), (RobotNode, RobotParams), (Listener, NodeParams)],
)
def test_the_type_argument_of_a_node_is_what_it_declares(graph, kind, params) -> None:
    node = graph.add(kind, begin=False)
    assert type(node.params) is params is kind.PARAMS
    assert {field.name for field in fields(params)} <= set(node._parameters)
