"""The life cycle of every node through its services, as `ros2 lifecycle set` does it."""

from __future__ import annotations

from importlib import import_module

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

from wm_nodes.ros.node import ManagedNode

# Module -> class, and the parameters that it needs to be configured without other nodes.
POINT = {"adapter": "tests.wm_nodes.point_robot:PointRobot", "time_limit": 3, "retry_s": 0.1}
CHEAP = {
    "plan_recorder": ("PlanRecorderNode", {}),
    "camera": ("CameraNode", {"camera": "top"}),
    "monitor": ("MonitorNode", {}),
    "scripted_policy": ("ScriptedPolicyNode", {"policy": "random"}),
    "recorder": ("RecorderNode", {}),
    "robot": ("RobotNode", POINT),
}
FOLDERS = {"plan_recorder": "folder", "monitor": "run", "recorder": "log"}
OTHERS = {
    "agent": "AgentNode",
    "arm_sim": "ArmSimNode",
    "demonstrator": "DemonstratorNode",
    "encoder": "EncoderNode",
    "policy": "PolicyNode",
    "replay": "ReplayNode",
    "trainer": "TrainerNode",
    "world_model": "WorldModelNode",
}
CLASSES = {**{name: kind for name, (kind, _) in CHEAP.items()}, **OTHERS}
SHUTDOWN = {
    "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}


class Operator:
    """Calls the lifecycle services of one node."""

    def __init__(self, graph, node: ManagedNode) -> None:
        self._graph, self._name = graph, node.get_fully_qualified_name()

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self._call(ChangeState, "change_state", request).success

    def state(self) -> int:
        return self._call(GetState, "get_state", GetState.Request()).current_state.id

    def _call(self, kind, service: str, request):
        client = self._graph.probe.create_client(kind, f"{self._name}/{service}")
        self._graph.until(client.service_is_ready)
        future = client.call_async(request)
        self._graph.until(future.done)
        self._graph.probe.destroy_client(client)
        return future.result()


def add_node(graph, name: str, folder) -> ManagedNode:
    _, parameters = CHEAP.get(name, ("", {}))
    kind = getattr(import_module(f"wm_nodes.nodes.{name}"), CLASSES[name])
    arguments = {**parameters, "autostart": False}
    if name in FOLDERS:
        arguments[FOLDERS[name]] = str(folder / name)
    return graph.add(kind, begin=False, **arguments)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_unconfigured_node_is_shut_down_by_its_service(graph, tmp_path, name) -> None:
    node = add_node(graph, name, tmp_path)
    operator = Operator(graph, node)
    assert operator.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert operator.change(SHUTDOWN["unconfigured"])
    assert operator.state() == State.PRIMARY_STATE_FINALIZED
    assert node.finished.done() and node.exit_code == 0


@pytest.mark.parametrize("state", ["inactive", "active"])
@pytest.mark.parametrize("name", sorted(CHEAP))
def test_a_node_is_shut_down_in_every_state(graph, tmp_path, name, state) -> None:
    node = add_node(graph, name, tmp_path)
    operator = Operator(graph, node)
    for _ in range(2):  # twice round first
        assert operator.change(Transition.TRANSITION_CONFIGURE)
        assert operator.change(Transition.TRANSITION_ACTIVATE)
        assert operator.change(Transition.TRANSITION_DEACTIVATE)
        assert operator.change(Transition.TRANSITION_CLEANUP)
    assert operator.change(Transition.TRANSITION_CONFIGURE)
    if state == "active":
        assert operator.change(Transition.TRANSITION_ACTIVATE)
    assert operator.change(SHUTDOWN[state])
    assert operator.state() == State.PRIMARY_STATE_FINALIZED
    assert node.finished.done() and node.exit_code == 0
    node.end()
    assert not node.active


def test_a_run_is_over_when_its_robot_is_shut_down(graph, tmp_path) -> None:
    robot, monitor = add_node(graph, "robot", tmp_path), add_node(graph, "monitor", tmp_path)
    for node in (robot, monitor):
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert Operator(graph, node).change(transition)
    assert Operator(graph, robot).change(SHUTDOWN["active"])
    graph.remove(robot)
    graph.until(monitor.finished.done)
