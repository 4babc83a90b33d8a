"""Speed, recovery and switching of an arm on topics: robot node, simulated driver, operator."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

from tests.wm_nodes.nodes.test_arm import arm

__all__ = ["arm"]


def speed_scale(planner, node, value: float):
    """Set the parameter as `wm arm speed` does; returns the result."""
    client = AsyncParameterClient(planner.graph.probe, node.get_fully_qualified_name())
    planner.graph.until(client.services_are_ready)
    future = client.set_parameters([Parameter("speed_scale", value=value)])
    planner.graph.until(future.done)
    return future.result().results[0]


def test_the_operator_sets_the_speed_while_the_arm_runs(arm):
    node, _, planner = arm(speed_scale=0.5)
    motion_filter = node._robot.motion.filter
    planner.graph.until(lambda: "speed_scale" in node.diagnostics.facts)
    assert node.diagnostics.facts["speed_scale"] == "0.5"
    assert speed_scale(planner, node, 0.1).successful
    planner.graph.until(lambda: node.diagnostics.facts["speed_scale"] == "0.1")
    planner.graph.until(lambda: motion_filter._path._allowed.bound == 0.1)
    for wrong in (0.0, 0.04, 1.01, math.nan):
        assert not speed_scale(planner, node, wrong).successful
    assert node.diagnostics.facts["speed_scale"] == "0.1"
    assert speed_scale(planner, node, 1.0).successful
    planner.graph.until(lambda: motion_filter._path._allowed.bound == 1.0)


def test_a_pause_on_the_pendant_stops_the_arm_and_its_end_lets_it_go_on(arm):
    node, sim, planner = arm()
    planner.graph.until(planner.moving)
    sim.set_parameters([Parameter("driver_speed_scale", value=0.0)])
    planner.graph.until(
        lambda: "driver_paused" in node.diagnostics.active_faults and not planner.moving()
    )
    assert not node._robot.latched()
    sim.set_parameters([Parameter("driver_speed_scale", value=0.4)])
    planner.graph.until(
        lambda: "driver_paused" not in node.diagnostics.active_faults and planner.moving()
    )
    assert node.diagnostics.facts["driver_speed_scale"] == "0.4" and not node._robot.latched()


def test_a_protective_stop_is_recovered_cleared_and_resumed(arm):
    node, sim, planner = arm()
    planner.graph.until(planner.moving)
    sim.set_parameters([Parameter("protective_stop", value=True)])
    planner.graph.until(lambda: "tracking" in node.diagnostics.active_faults)
    planner.graph.until(node._robot.at_rest)
    assert planner.call("recover").success
    assert not sim._faults.protective_stop
    planner.assert_still()
    assert "tracking" in node._robot.latched()
    planner.release()
    planner.graph.until(planner.moving)


def test_the_controller_is_switched_while_the_arm_stands(arm):
    node, sim, planner = arm()
    planner.graph.until(planner.moving)
    assert planner.call("pause", True).success
    planner.graph.until(node._robot.at_rest)
    planner.graph.until(lambda: planner.call("deactivate").success)
    assert sim._faults.controller_inactive
    planner.graph.until(lambda: "deactivated" in node.diagnostics.active_faults)

    def no_new_commands() -> bool:
        before = len(planner.commands)
        planner.graph.spin(0.3)
        return len(planner.commands) == before

    planner.graph.until(no_new_commands)  # what was sent before is received
    before = len(planner.commands)
    planner.graph.spin(0.3)
    assert len(planner.commands) == before  # nothing is commanded
    assert planner.call("activate").success and not sim._faults.controller_inactive
    planner.graph.until(lambda: len(planner.commands) > before + 25 and planner.at_rest())
    planner.assert_still()  # at its measured position
    assert planner.call("resume").success
    planner.graph.until(planner.moving)
    assert (np.abs(np.diff(planner.commands, axis=0)).max(axis=0) < 0.1).all()
