"""Plans: created with the robot's action space and period, checked by name, read by time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_nodes.point_robot import PointRobot
from wm_datasets.spec import VectorSpec
from wm_nodes.control.plans import PlanMaker, check_plan, due_action
from wm_nodes.errors import MessageError
from wm_nodes.records import Origin, Plan, Step

ORIGIN = Origin("mwm", "actor", 1)
XY = VectorSpec(("x", "y"), ("m", "m"), (-1.0, -2.0), (1.0, 2.0))


def plan(names: tuple[str, ...], actions: list[list[float]], period_s: float = 0.25) -> Plan:
    return Plan(7, ORIGIN, names, np.float32(actions), period_s)


def step(names: tuple[str, ...]) -> Step:
    zeros = np.zeros(len(names), np.float32)
    return Step(7, names, zeros, zeros)


def test_space_and_period_are_those_of_the_robots_spec() -> None:
    maker, actions = PlanMaker(), np.zeros((3, 1), np.float32)
    unit = maker.space(step(("x", "y")))
    assert (unit.low, unit.high) == ((-1, -1), (1, 1))
    assert maker.known_space(step(("x", "y"))) is None
    spec = PointRobot().spec.log_spec()
    maker.learn(spec)
    assert maker.space(step(spec.action.names)) == spec.action
    result = maker.plan(step(spec.action.names), ORIGIN, actions)
    assert (result.stamp_ns, result.origin, result.names) == (7, ORIGIN, spec.action.names)
    assert result.actions is actions and result.period_s == spec.control_period_s


def test_a_checked_plan_has_its_dimensions_in_the_robots_order() -> None:
    ordered = plan(("x", "y"), [[1, 2]])
    assert check_plan(ordered, XY) is ordered
    swapped = check_plan(plan(("y", "x"), [[1, 2], [3, 4]]), XY)
    assert swapped.names == ("x", "y") and swapped.actions.tolist() == [[2, 1], [4, 3]]
    assert (swapped.stamp_ns, swapped.origin, swapped.period_s) == (7, ORIGIN, 0.25)


@pytest.mark.parametrize("names", [("x",), ("x", "z"), ("x", "y", "y"), ("x", "y", "z")])
def test_other_dimensions_are_refused(names) -> None:
    with pytest.raises(MessageError, match=r"plan: got dimensions .*, expected \["):
        check_plan(plan(names, [[0.0] * len(names)]), XY)


@pytest.mark.parametrize(
    ("age_s", "index", "overdue_s"),
    [
        (-1.0, 0, -1.5),
        (0.0, 0, -0.5),
        (0.25, 1, -0.25),
        (0.375, 1, -0.125),
        (0.5, 1, 0.0),
        (9.0, 1, 8.5),
    ],
)
def test_point_i_is_due_after_i_periods_and_the_last_one_stays(age_s, index, overdue_s) -> None:
    two_points = plan(("x",), [[10], [11]])
    action, overdue = due_action(two_points, age_s, period_s=100.0)
    assert (action.tolist(), overdue) == ([10.0 + index], overdue_s)


def test_a_plan_without_a_period_has_that_of_the_robot() -> None:
    two_points = plan(("x",), [[10], [11]], period_s=0.0)
    action, overdue = due_action(two_points, 0.5, period_s=0.5)
    assert (action.tolist(), overdue) == ([11.0], -0.5)
