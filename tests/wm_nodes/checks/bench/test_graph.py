"""What ROS adds to a decision, measured with real processes; and the robot it is measured with."""

from __future__ import annotations

import os

import pytest

from wm_nodes.checks.bench.graph import StillRobot
from wm_nodes.robots.robot import Robot
from wm_nodes.robots.testing import RobotContract


class TestStillRobot(RobotContract):
    def make_robot(self) -> Robot:
        return StillRobot(size=16, time_limit=4)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_graphs_decide() -> None:
    pytest.importorskip("rclpy")
    from wm_nodes.checks.bench import graph

    before = dict(os.environ)
    rows = {row.name: row for row in graph.run(agent_steps=40)}
    assert dict(os.environ) == before
    for composition in ("split", "fused"):
        whole = rows[f"{composition}: observation to action"].value
        assert whole >= rows[f"{composition}: ROS's part"].value > 0
