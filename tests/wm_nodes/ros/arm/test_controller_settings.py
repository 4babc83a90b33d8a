"""Settings of a trajectory controller: requests for its parameters, real rclpy."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from wm_nodes.ros.arm import controller_settings
from wm_nodes.ros.arm.controller_settings import FROM_COMMAND, ControllerSettings


def until(condition, every, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not hold in time"
        every()


def test_requests_to_a_controller_that_does_not_answer_do_not_accumulate(graph, monkeypatch):
    monkeypatch.setattr(controller_settings, "AGAIN_S", 0.0)
    controller = Node("controller", context=graph.context, namespace=graph.namespace)
    controller.declare_parameter(FROM_COMMAND[0], False)
    name = f"{graph.namespace}/controller"
    settings = ControllerSettings(graph.probe)
    try:
        until(lambda: settings._pending, lambda: settings.wrong([name]))  # its service exists
        client = settings._clients[name]
        for _ in range(20):
            assert settings.wrong([name]) == ""
            assert len(client._pending_requests) == len(FROM_COMMAND)
            assert set(client._pending_requests.values()) == set(settings._pending.values())
        executor = SingleThreadedExecutor(context=graph.context)
        executor.add_node(controller)  # from now on it answers
        monkeypatch.setattr(controller_settings, "AGAIN_S", 1e9)

        def spin() -> None:
            executor.spin_once(timeout_sec=0.01)
            graph.executor.spin_once(timeout_sec=0.01)

        until(lambda: settings.wrong([name]), spin)
        assert f"controller {name}: got {FROM_COMMAND[0]} false" in settings.wrong([name])
        until(lambda: not client._pending_requests, spin)
        executor.shutdown()
        assert settings.wrong([]) == "" and not settings._pending
    finally:
        controller.destroy_node()
