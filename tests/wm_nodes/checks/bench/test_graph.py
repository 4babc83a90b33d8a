"""What ROS adds to an agent step, measured with real processes; and the robot of the benchmark."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.wm_nodes.node_parameters import assert_declared, read_as_ros
from wm_nodes.checks.bench import graph
from wm_nodes.checks.bench.graph import COMPOSITIONS, GOALS_MS, TIMES, StillRobot
from wm_nodes.checks.bench.processes import NodeReports
from wm_nodes.robots.robot import Robot
from wm_nodes.robots.testing import RobotContract


class TestStillRobot(RobotContract):
    def make_robot(self) -> Robot:
        return StillRobot(size=16, time_limit=4)


def test_the_robot_writes_a_time_for_each_action(tmp_path, monkeypatch) -> None:
    file = tmp_path / "times.npy"
    monkeypatch.setenv(TIMES, str(file))
    with StillRobot(size=16, time_limit=4) as robot:
        robot.reset()
        for _ in range(3):
            robot.act(np.zeros(4))
    times = np.load(file)
    assert times.shape == (3,) and (times > 0).all()


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_nodes_are_started_with_parameters_that_they_declare(composition: str) -> None:
    pytest.importorskip("rclpy")
    for name in COMPOSITIONS[composition]:
        assert_declared(name, read_as_ros(graph._parameters(name, Path("/weights/1"))))


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_the_share_of_ros_is_the_total_without_the_computing(composition: str) -> None:
    loop_ms = np.array([8.0, 10.0, 12.0])
    total, computing, ros = graph._rows(composition, loop_ms, {"encoder": 3.0, "policy": 4.5})
    assert (total.value, computing.value, ros.value) == (10.0, 7.5, 2.5)
    assert total.low < total.value < total.high and total.samples == 3
    assert ros.goal == GOALS_MS[composition] and total.goal is computing.goal is None
    assert all(row.name.startswith(f"{composition}: ") for row in (total, computing, ros))
    assert "encoder 3.00, policy 4.50" in computing.note


def test_the_share_of_ros_is_never_negative() -> None:
    """Medians of different quantities do not add up exactly."""
    assert graph._rows("fused", np.array([5.0]), {"agent": 6.0})[-1].value == 0.0


def test_computing_times_are_complete_or_the_missing_node_is_named(monkeypatch) -> None:
    late = {"/robot/policy": {"latency_p50_ms": "1.5"}}
    reports = NodeReports(lambda seconds: reports.update(late))
    reports.update({"/robot/encoder": {"latency_p50_ms": "2.5"}})
    nodes = ("encoder", "policy")
    assert graph._computing_ms(reports, nodes) == {"encoder": 2.5, "policy": 1.5}
    monkeypatch.setattr(graph, "REPORT_S", 0.0)
    with pytest.raises(RuntimeError, match="nothing on /diagnostics from camera"):
        graph._computing_ms(reports, ("camera", *nodes))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_compositions_plan() -> None:
    pytest.importorskip("rclpy")
    before = dict(os.environ)
    rows = {row.name: row for row in graph.run(agent_steps=40)}
    assert dict(os.environ) == before
    for composition in COMPOSITIONS:
        total = rows[f"{composition}: observation to action"]
        assert total.samples >= 40  # the last episode is completed
        assert total.value >= rows[f"{composition}: ROS's part"].value > 0
