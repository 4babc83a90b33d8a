"""The control loop as the robot node runs it, with the smallest robot that is called in real time.

The loop runs in its thread; the tests wait for its effects without a time limit that matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.wm_nodes.control.line_arm import LineArm
from tests.wm_nodes.control.test_lockstep import Output
from wm_nodes.control import realtime_control
from wm_nodes.control.active_plan import ActivePlan, Due
from wm_nodes.control.realtime_control import (
    BLOCKING,
    NO_REALTIME,
    NOT_RUNNING,
    RealtimeControl,
    RealtimeSettings,
)
from wm_nodes.control.safety_record import Record, SafetyRecord
from wm_nodes.control.states import State
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.errors import UserError
from wm_nodes.records import Answer, Origin, Plan

LATCH = {"estop": "before the restart"}


class NodeOutput(Output):
    """A stub of the robot node: it keeps all outputs of the loop, faults with their severity."""

    def __init__(self) -> None:
        super().__init__()
        self.planner = True
        self.errors: set[str] = set()

    def has_planner(self) -> bool:
        return self.planner

    def report_fault(self, name: str, text: str, *, error: bool = False) -> None:
        super().report_fault(name, text)
        (self.errors.add if error else self.errors.discard)(name)


class Bench:
    def __init__(self, folder: Path, episodes: int = 0, time_limit: int = 2, **settings) -> None:
        self.record, self.output = folder / "line.json", NodeOutput()
        self.robot = LineArm(time_limit)
        runner = EpisodeRunner(self.robot, Schedule(StopCriteria(episodes=episodes), seed=0))
        self.plan = ActivePlan(0.1, max_age_s=60.0, max_plan_s=600.0)
        realtime_settings = RealtimeSettings(record=self.record, **{"home": False, **settings})
        self.control = RealtimeControl(
            runner, self.robot, self.plan, self.output, realtime_settings
        )

    @property
    def stored(self) -> Record:
        return SafetyRecord(self.record).load()

    def begin(self) -> Bench:
        """Start, and publish the first observation."""
        self.control.start()
        until(lambda: self.control.loop.ready)
        self.control.on_wake()
        assert self.output.published[-1].step.is_first
        return self

    def step(self) -> None:
        """Let one agent step be complete."""
        self.robot.done = True
        self.control.on_wake()

    def send_plan(self) -> tuple[str, str]:
        stamp_ns = self.output.published[-1].step.stamp_ns
        return self.control.accept(
            Plan(stamp_ns, Origin("mwm", "actor", 1), ("push",), np.float32([[0.5]]), 0.1)
        )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def ordinary_priority(monkeypatch) -> None:
    """The process that runs the tests keeps its priority and its switch interval."""
    monkeypatch.setattr(realtime_control, "realtime_allowed", lambda: True)
    monkeypatch.setattr("wm_nodes.control.periodic_thread.take_priority", lambda own, others: True)
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)


@pytest.fixture
def make_bench(tmp_path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**options) -> Bench:
        benches.append(Bench(tmp_path, **options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.control.stop()


@pytest.mark.parametrize(
    ("allowed", "lockable", "owns", "realtime"),
    [
        (True, True, True, True),
        (True, False, True, False),
        (True, False, False, True),  # the memory of other processes is not locked
        (False, True, True, False),
        (False, True, False, False),
    ],
)
def test_real_time_needs_priority_and_in_a_process_of_its_own_locked_memory(
    make_bench, monkeypatch, allowed, lockable, owns, realtime
) -> None:
    monkeypatch.setattr(realtime_control, "realtime_allowed", lambda: allowed)
    monkeypatch.setattr(realtime_control, "lock_memory", lambda: lockable)
    assert make_bench(owns_process=owns).control.realtime == realtime
    if realtime:
        make_bench(owns_process=owns, require_realtime=True)
        return
    with pytest.raises(UserError, match="require_realtime"):
        make_bench(owns_process=owns, require_realtime=True)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_lack_of_real_time_is_a_fault(make_bench, monkeypatch, allowed) -> None:
    monkeypatch.setattr(realtime_control, "realtime_allowed", lambda: allowed)
    bench = make_bench().begin()
    bench.control.tick()
    assert bench.output.faults.get("realtime") == (None if allowed else NO_REALTIME)


def test_before_the_start_no_call_has_an_effect(make_bench) -> None:
    bench = make_bench()
    control = bench.control
    assert not control.alive and control.request("pause") == Answer(False, NOT_RUNNING)
    control.tick()
    control.stop()
    assert not bench.output.faults and not bench.robot.calls


@pytest.mark.parametrize(
    ("record", "restarted"),
    [(Record({}, False), False), (Record({}, True), True), (Record(LATCH, False), True)],
)
def test_latches_of_an_earlier_process_hold_and_its_unclean_end_needs_the_operator(
    make_bench, tmp_path, record, restarted
) -> None:
    SafetyRecord(tmp_path / "line.json").store(lambda: record)
    bench = make_bench()
    assert bench.robot.latches == dict(record.latched)
    assert bench.control.loop.permission.granted != restarted


@pytest.mark.parametrize(("settings", "waits"), [({}, False), ({"confirm_home": True}, True)])
def test_the_way_home_waits_for_a_call_only_where_that_is_set(make_bench, settings, waits) -> None:
    loop = make_bench(home=True, **settings).control.loop
    loop.prepare(0)
    for _ in range(10):
        loop.tick()
    assert loop.ready != waits and ("call go_home" in loop.waiting_for()) == waits


def test_episodes_follow_each_other_until_the_run_is_over(make_bench) -> None:
    bench = make_bench(episodes=2, time_limit=2).begin()
    assert [call for call, *_ in bench.robot.calls] == ["prepare", "reset"]
    bench.control.on_wake()  # no agent step is complete
    assert len(bench.output.published) == 1
    bench.step()
    assert not bench.output.saved
    bench.step()
    assert bench.output.saved == 1 and not bench.output.ended
    assert not bench.control.loop.acting
    bench.robot.done = False
    until(lambda: bench.control.loop.ready)
    bench.control.on_wake()
    bench.step()
    bench.step()
    assert bench.output.saved == 2 and bench.output.ended
    first_marks = [transition.step.is_first for transition in bench.output.published]
    assert first_marks == [True, False, False] * 2
    assert not bench.control.loop.acting and not bench.control.loop.ready


def test_a_run_that_is_over_does_not_start(make_bench) -> None:
    bench = make_bench(episodes=1)
    bench.control._runner.schedule.counts.episodes = 1
    bench.control.start()
    assert bench.output.ended and not bench.control.alive


def test_an_episode_waits_for_a_planner(make_bench) -> None:
    bench = make_bench(await_planner_s=3600.0)
    bench.output.planner = False
    bench.control.start()
    until(lambda: bench.control.loop.ready)
    bench.control.on_wake()
    assert not bench.output.published
    bench.output.planner = True
    bench.control.on_wake()
    assert len(bench.output.published) == 1


def test_without_a_wait_an_episode_needs_no_planner(make_bench) -> None:
    bench = make_bench(await_planner_s=0.0)
    bench.output.planner = False
    bench.begin()


def test_the_loop_wakes_the_node_when_an_episode_may_begin(make_bench) -> None:
    bench, woken = make_bench(), []
    bench.control.wake = lambda: woken.append(True)
    bench.control.start()
    until(lambda: bool(woken))


def test_only_the_latency_of_accepted_plans_is_recorded(make_bench) -> None:
    bench = make_bench()
    bench.begin()
    assert bench.send_plan() == ("", "")
    assert len(bench.output.diagnostics.latencies) == 1
    assert 0.0 <= bench.output.diagnostics.latencies[0] < 600.0
    bench.control.loop.plan.end()
    assert bench.send_plan()[0] == "phase"
    assert len(bench.output.diagnostics.latencies) == 1


@pytest.mark.parametrize("age_s", [10_000.0, -10_000.0])
def test_the_age_of_an_action_counts_from_when_its_images_were_taken(make_bench, age_s) -> None:
    bench = make_bench()
    bench.robot.image_age = age_s
    bench.begin()
    bench.send_plan()
    due = bench.plan.due(time.monotonic())
    assert isinstance(due, Due)
    assert max(age_s, 0.0) - 600.0 < due.image_age_s <= max(age_s, 0.0)


def test_the_age_of_images_is_that_at_their_observation(make_bench, monkeypatch) -> None:
    bench, observed_calls = make_bench().begin(), []
    transition = replace(bench.output.published[-1], observed_s=4000.0)
    bench.robot.image_age = 1500.0
    with monkeypatch.context() as patch:
        patch.setattr(realtime_control, "time", SimpleNamespace(monotonic=lambda: 5000.0))
        patch.setattr(bench.plan, "observed", lambda *observed: observed_calls.append(observed))
        bench.control._publish(transition)
    assert observed_calls == [(transition.step.stamp_ns, 4000.0, 500.0)]


def test_facts_hold_the_state_the_robots_and_the_ages_of_images_in_ms(make_bench) -> None:
    bench = make_bench()
    bench.begin()
    until(lambda: bench.control.loop.state is State.ACTING)
    bench.control.tick()
    facts = bench.output.diagnostics.facts
    assert facts["joints"] == 1 and facts["state"] == State.ACTING.value
    assert "camera_to_command_p50_ms" not in facts
    bench.control._ages.extend([0.25, 0.5, 0.75])
    bench.control.tick()
    assert facts["camera_to_command_p50_ms"] == "500.0"
    assert facts["camera_to_command_p99_ms"] == "745.0"


def test_an_action_that_is_executed_has_an_age(make_bench) -> None:
    bench = make_bench()
    bench.begin()
    bench.send_plan()
    until(lambda: len(bench.control._ages) > 0)


def test_faults_are_reported_while_they_last_and_only_the_operators_are_errors(make_bench) -> None:
    bench = make_bench()
    bench.begin()
    bench.robot.fault_texts = {"bus": "silent", "lag": "late", "tracking": "off"}
    bench.robot.latches = {"tracking": "off"}
    bench.control.tick()
    assert bench.robot.fault_texts.items() <= bench.output.faults.items()
    assert bench.output.errors == {"bus", "tracking"} and "bus" in BLOCKING
    bench.robot.fault_texts = {"lag": "late"}
    bench.control.tick()
    assert "lag" in bench.output.faults and "bus" not in bench.output.faults


def test_a_missing_plan_is_a_fault_only_while_acting(make_bench) -> None:
    bench = make_bench()
    bench.robot.fault_texts = {"plan": "the robot's"}
    bench.control.start()
    until(lambda: bench.control.loop.ready)
    bench.control.tick()
    assert "plan" not in bench.output.faults
    bench.control.on_wake()
    until(lambda: bool(bench.control.loop.due_text))
    bench.control.tick()
    assert bench.output.faults["plan"] == bench.control.loop.due_text


def test_the_condition_that_an_episode_waits_for_is_a_fault(make_bench) -> None:
    bench = make_bench()
    bench.robot.waiting = "the scene is being built"
    bench.control.start()
    bench.control.tick()
    assert bench.output.faults["waiting"] == bench.robot.waiting
    bench.robot.waiting = ""
    bench.control.tick()
    assert "waiting" not in bench.output.faults


def test_a_failed_control_thread_halts_the_robot_and_is_raised(make_bench) -> None:
    bench = make_bench().begin()
    bench.robot.fails = RuntimeError("the bus is gone")
    until(lambda: not bench.control.alive)
    until(lambda: ("halt",) in bench.robot.calls)
    with pytest.raises(RuntimeError, match="the bus is gone"):
        bench.control.tick()
    assert bench.control.request("pause") == Answer(False, NOT_RUNNING)
    bench.control.stop()
    assert bench.stored.running  # the next process asks the operator


def test_the_end_halts_the_robot_and_is_clean(make_bench) -> None:
    bench = make_bench().begin()
    assert bench.control.alive and bench.stored.running
    bench.control.stop()
    assert bench.robot.calls[-1] == ("halt",) and not bench.control.alive
    assert not bench.stored.running
    assert bench.control.loop.waiting_for() == "" and not bench.control.loop.acting


def test_a_robot_that_does_not_come_to_rest_has_not_ended_cleanly(make_bench, monkeypatch) -> None:
    monkeypatch.setattr(realtime_control, "STOP_S", 0.01)
    bench = make_bench().begin()
    bench.robot.rest = False
    bench.control.stop()
    assert bench.stored.running


def test_a_request_is_executed_by_the_loop(make_bench) -> None:
    bench = make_bench().begin()
    assert bench.control.request("pause").done
    assert "paused" in bench.control.loop.waiting_for()


def test_a_request_without_an_answer_is_not_executed_later(make_bench, monkeypatch) -> None:
    bench = make_bench().begin()
    monkeypatch.setattr(realtime_control, "ANSWER_S", 0.01)
    with bench.control.loop.lock:
        response = bench.control.request("pause")
    assert not response.done and "did not answer within 0.01 s" in response.text
    monkeypatch.undo()
    assert bench.control.request("speed_scale", 0.5).text  # a later request is executed
    assert bench.control.loop.permission.granted


def test_an_emergency_stop_is_on_the_disk_when_it_is_answered(make_bench, monkeypatch) -> None:
    monkeypatch.setattr(realtime_control, "ESTOP_S", 60.0)
    bench = make_bench().begin()
    assert bench.control.estop(on=True) == Answer(True, "stopped and latched")
    assert bench.robot.latches and bench.stored.latched == bench.robot.latches
    assert ("halt",) not in bench.robot.calls
    assert bench.control.estop(on=False).done
    assert not bench.robot.latches and bench.stored == Record({}, running=True)


def test_a_refused_clear_leaves_the_latch(make_bench) -> None:
    bench = make_bench().begin()
    bench.control.estop(on=True)
    bench.robot.refuses_clear = "the driver reports an error"
    assert bench.control.estop(on=False) == Answer(False, "the driver reports an error")
    assert bench.robot.latches and bench.stored.latched


def test_without_a_loop_an_emergency_stop_halts_the_robot_and_reports_it(make_bench) -> None:
    bench = make_bench()
    response = bench.control.estop(on=True)
    assert not response.done and "use the arm's own emergency stop" in response.text
    assert bench.robot.calls == [("halt",)] and "estop" in bench.stored.latched


def test_the_execution_of_an_emergency_stop_is_looked_for_five_times_per_period(
    make_bench, monkeypatch
) -> None:
    bench, waits = make_bench(), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        assert seconds == bench.robot.tick_s / 5

    clock = SimpleNamespace(monotonic=lambda: sum(waits), sleep=wait)
    with monkeypatch.context() as patch:
        patch.setattr(RealtimeControl, "alive", True)  # a loop that never executes it
        patch.setattr(realtime_control, "time", clock)
        assert not bench.control.estop(on=True).done
    assert realtime_control.ESTOP_S <= sum(waits) < realtime_control.ESTOP_S + bench.robot.tick_s


def test_a_latch_that_cannot_be_stored_holds_and_is_reported(make_bench, tmp_path) -> None:
    bench = make_bench().begin()
    (tmp_path / ".line.json.part").mkdir()
    response = bench.control.estop(on=True)
    assert not response.done and "latched, but latches cannot be stored" in response.text
    until(lambda: bool(bench.robot.latches))
    (tmp_path / ".line.json.part").rmdir()
    assert bench.control.estop(on=True).done
    (tmp_path / ".line.json.part").mkdir()
    response = bench.control.estop(on=False)
    assert response.done and ", but latches cannot be stored" in response.text
