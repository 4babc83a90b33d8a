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


def speed_scale(brain, node, value: float):
    """Set the parameter as `wm arm speed` does; returns the result."""
    client = AsyncParameterClient(brain.graph.probe, node.get_fully_qualified_name())
    brain.graph.until(client.services_are_ready)
    future = client.set_parameters([Parameter("speed_scale", value=value)])
    brain.graph.until(future.done)
    return future.result().results[0]


def test_the_operator_sets_the_speed_while_the_arm_runs(arm):
    node, _, brain = arm(speed_scale=0.5)
    path = node._robot.motion.filter
    brain.graph.until(lambda: "speed_scale" in node.diagnostics.facts)
    assert node.diagnostics.facts["speed_scale"] == "0.5"
    assert speed_scale(brain, node, 0.1).successful
    brain.graph.until(lambda: node.diagnostics.facts["speed_scale"] == "0.1")
    brain.graph.until(lambda: path._path._allowed.bound == 0.1)
    for wrong in (0.0, 0.04, 1.01, math.nan):
        assert not speed_scale(brain, node, wrong).successful
    assert node.diagnostics.facts["speed_scale"] == "0.1"
    assert speed_scale(brain, node, 1.0).successful
    brain.graph.until(lambda: path._path._allowed.bound == 1.0)


def test_a_pause_on_the_pendant_stops_the_arm_and_its_end_lets_it_go_on(arm):
    node, sim, brain = arm()
    brain.graph.until(brain.moving)
    sim.set_parameters([Parameter("driver_speed_scale", value=0.0)])
    brain.graph.until(
        lambda: "driver_paused" in node.diagnostics.active_faults and not brain.moving()
    )
    assert not node._robot.latched()
    sim.set_parameters([Parameter("driver_speed_scale", value=0.4)])
    brain.graph.until(
        lambda: "driver_paused" not in node.diagnostics.active_faults and brain.moving()
    )
    assert node.diagnostics.facts["driver_speed_scale"] == "0.4" and not node._robot.latched()


def test_a_protective_stop_is_recovered_cleared_and_resumed(arm):
    node, sim, brain = arm()
    brain.graph.until(brain.moving)
    sim.set_parameters([Parameter("protective_stop", value=True)])
    brain.graph.until(lambda: "tracking" in node.diagnostics.active_faults)
    brain.graph.until(node._robot.at_rest)
    assert brain.call("recover").success
    assert not sim._faults.protective_stop
    brain.still()
    assert "tracking" in node._robot.latched()
    brain.release()
    brain.graph.until(brain.moving)


def test_the_controller_is_switched_while_the_arm_stands(arm):
    node, sim, brain = arm()
    brain.graph.until(brain.moving)
    assert brain.call("pause", True).success
    brain.graph.until(node._robot.at_rest)
    brain.graph.until(lambda: brain.call("deactivate").success)
    assert sim._faults.controller_inactive
    brain.graph.until(lambda: "deactivated" in node.diagnostics.active_faults)

    def silent() -> bool:
        before = len(brain.commands)
        brain.graph.spin(0.3)
        return len(brain.commands) == before

    brain.graph.until(silent)  # what was sent before is received
    before = len(brain.commands)
    brain.graph.spin(0.3)
    assert len(brain.commands) == before  # nothing is commanded
    assert brain.call("activate").success and not sim._faults.controller_inactive
    brain.graph.until(lambda: len(brain.commands) > before + 25 and brain.rests())
    brain.still()  # where it was measured
    assert brain.call("resume").success
    brain.graph.until(brain.moving)
    assert (np.abs(np.diff(brain.commands, axis=0)).max(axis=0) < 0.1).all()
