"""The Robot interface: the smallest robot meets it, and optional interfaces are recognised."""

from __future__ import annotations

import pytest

from tests.wm_nodes.point_robot import PointRobot
from wm_nodes.robots.robot import CalibratedCameras, GoalTask, Robot, ScoredTask
from wm_nodes.robots.testing import SimulatorContract


class TestPoint(SimulatorContract):
    def make_robot(self) -> Robot:
        return PointRobot()


@pytest.mark.parametrize(
    ("interface", "method"),
    [(GoalTask, "goal"), (ScoredTask, "distance"), (CalibratedCameras, "intrinsics")],
)
def test_a_robot_has_only_the_interfaces_that_it_implements(interface, method):
    assert not isinstance(PointRobot(), interface)
    extended = type("More", (PointRobot,), {method: lambda self: None})
    assert isinstance(extended(), interface)
