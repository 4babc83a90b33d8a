"""Work with the driver: one task at a time, only while the robot stands; none allows motion."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.wm_nodes.control.line_arm import LineArm
from wm_nodes.control.driver_work import DONE, UNDER_WAY, DriverWork
from wm_nodes.records import Answer, DriverStep, DriverTask

TASKS = get_args(DriverTask)


class Bench:
    def __init__(self) -> None:
        self.robot = LineArm()
        self.work = DriverWork(self.robot)

    def step(
        self, task: DriverTask, phase: str, *, moving: bool = False, permitted: bool = False
    ) -> Answer:
        driver_step = DriverStep(task, phase)  # type: ignore[arg-type]
        return self.work.execute(driver_step, moving=moving, permitted=permitted)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_under_way_until_its_outcome_is_reported(task) -> None:
    bench = Bench()
    assert bench.step(task, "begin") == Answer(True, UNDER_WAY[task])
    assert bench.work.busy == UNDER_WAY[task]
    assert bench.step(task, "done") == Answer(True, DONE[task])
    assert bench.work.busy == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_failed_task_changes_nothing_and_is_over(task) -> None:
    bench = Bench()
    bench.step(task, "begin")
    assert bench.step(task, "failed") == Answer(True, "nothing was changed")
    assert bench.work.busy == ""


@pytest.mark.parametrize("task", TASKS)
def test_no_task_begins_while_another_is_under_way_or_the_robot_moves(task) -> None:
    bench = Bench()
    refused = bench.step(task, "begin", moving=True)
    assert not refused.done and f"call pause, and {task}" in refused.text
    assert not bench.work.busy and not bench.robot.calls
    bench.step("recover", "begin")
    refused = bench.step(task, "begin")
    assert not refused.done and f"call {task} again afterwards" in refused.text
    assert bench.work.busy == UNDER_WAY["recover"] and not bench.robot.calls


@pytest.mark.parametrize(
    ("permitted", "latched", "stopped", "begins"),
    [
        (True, False, False, False),
        (True, True, False, True),
        (True, False, True, True),
        (True, True, True, True),
        (False, False, False, True),
    ],
)
def test_the_driver_is_recovered_only_where_something_stopped_the_robot(
    permitted, latched, stopped, begins
) -> None:
    bench = Bench()
    bench.robot.latches = {"estop": "test"} if latched else {}
    bench.robot.watchdog = stopped
    assert bench.step("recover", "begin", permitted=permitted).done == begins
    assert bool(bench.work.busy) == begins
    assert bench.step("activate", "begin", permitted=permitted).done != begins  # busy if it began


@pytest.mark.parametrize("phase", ["done", "failed"])
def test_recovery_neither_releases_nor_takes_the_driver(phase) -> None:
    bench = Bench()
    bench.step("recover", "begin")
    bench.step("recover", phase)
    assert bench.robot.calls == []


def test_a_deactivated_driver_is_taken_again_only_when_it_is_activated() -> None:
    bench = Bench()
    bench.step("deactivate", "begin")
    bench.step("deactivate", "done")
    assert bench.robot.calls == [("release",)]
    bench.step("activate", "begin")
    bench.step("activate", "failed")
    assert bench.robot.calls == [("release",)] * 2  # still deactivated
    bench.step("activate", "begin")
    bench.step("activate", "done")
    assert bench.robot.calls == [("release",)] * 3 + [("take", True)]


@pytest.mark.parametrize("task", ["activate", "deactivate"])
def test_a_driver_that_was_not_switched_is_taken_as_it_was(task) -> None:
    bench = Bench()
    bench.step(task, "begin")
    bench.step(task, "failed")
    assert bench.robot.calls == [("release",), ("take", False)]
