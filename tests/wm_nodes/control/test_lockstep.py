"""Lock-step with a simulated clock: no test waits or depends on the machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.wm_nodes.point_robot import PointRobot
from wm_nodes.control.lockstep import LockstepControl, LockstepSettings
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.records import Origin, Plan, Transition

ACTOR = Origin("mwm_cpu", "actor", 7)


class Latencies:
    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.facts: dict[str, object] = {}

    def record_latency(self, seconds: float) -> None:
        self.latencies.append(seconds)


class Output:
    """A stub of the robot node: it keeps all outputs of the loop."""

    def __init__(self) -> None:
        self.published: list[Transition] = []
        self.repeated = 0
        self.diagnostics = Latencies()
        self.faults: dict[str, str] = {}
        self.saved = 0
        self.ended = False
        self.trainer = True

    def publish(self, transition: Transition, *, repeated: bool = False) -> None:
        if repeated:
            assert transition is self.published[-1]
            self.repeated += 1
        else:
            self.published.append(transition)

    def save_counts(self) -> None:
        self.saved += 1

    def end_run(self) -> None:
        self.ended = True

    def report_fault(self, name: str, text: str, *, error: bool = False) -> None:
        self.faults[name] = text

    def clear_fault(self, name: str, text: str) -> None:
        self.faults.pop(name, None)

    def has_planner(self) -> bool:
        return True

    def has_trainer(self) -> bool:
        return self.trainer


class Bench:
    """The loop with the smallest robot; `now_s` is its clock."""

    def __init__(self, episodes: int = 0, time_limit: int = 3, **settings: float) -> None:
        self.now_s, self.output = 100.0, Output()
        robot = PointRobot(time_limit=time_limit)
        self.runner = EpisodeRunner(robot, Schedule(StopCriteria(episodes=episodes), seed=0))
        lockstep_settings = LockstepSettings(**settings)  # type: ignore[arg-type]
        self.loop = LockstepControl(
            self.runner, self.output, lockstep_settings, clock=lambda: self.now_s
        )
        self.loop.start()

    @property
    def newest(self) -> Transition:
        return self.output.published[-1]

    def send_plan(self, push: float = 0.5, stamp_ns: int | None = None) -> tuple[str, str]:
        """Send a plan for the newest observation, or for another stamp."""
        stamp_ns = self.newest.step.stamp_ns if stamp_ns is None else stamp_ns
        return self.loop.accept(Plan(stamp_ns, ACTOR, ("push",), np.float32([[push], [9.0]]), 0.1))

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.loop.tick()

    @property
    def steps(self) -> int:
        return self.runner.counts.decisions


def test_one_plan_moves_the_simulator_by_one_step_with_its_first_action() -> None:
    bench = Bench()
    assert bench.newest.step.is_first and bench.steps == 0
    assert bench.send_plan(0.25) == ("", "")
    assert bench.steps == 1 and bench.newest.step.executed.tolist() == [0.25]
    assert bench.newest.step.weights == ACTOR.version


def test_without_a_plan_the_robot_rests() -> None:
    bench = Bench()
    for _ in range(100):
        bench.pass_time(10.0)
    assert bench.steps == 0 and len(bench.output.published) == 1


def test_a_plan_for_another_observation_is_dropped() -> None:
    bench = Bench()
    first = bench.newest.step.stamp_ns
    bench.send_plan()
    assert bench.send_plan(stamp_ns=first) == ("stamp", "")
    assert bench.send_plan(stamp_ns=bench.newest.step.stamp_ns + 1) == ("stamp", "")
    assert bench.steps == 1


def test_an_observation_without_a_plan_is_published_again_each_retry_s() -> None:
    bench = Bench(retry_s=0.5)
    for repeated in (0, 1, 1, 2):
        bench.pass_time(0.3)
        assert bench.output.repeated == repeated


def test_every_time_limit_of_the_settings_is_inclusive() -> None:
    """The figures here are exact in binary."""
    bench = Bench(retry_s=0.5, timeout_s=0.75)
    bench.pass_time(0.5)
    assert bench.output.repeated == 1 and not bench.output.faults
    bench.pass_time(0.25)
    assert bench.output.faults
    bench.output.faults.clear()
    bench.pass_time(0.5)
    assert not bench.output.faults  # reported again only after another timeout_s
    bench.pass_time(0.25)
    assert "no plan for 2 s" in bench.output.faults["plan"]
    bench = Bench(pace_hz=4.0)
    bench.send_plan()
    bench.pass_time(0.25)
    assert bench.steps == 1
    bench = Bench(await_recorder_s=0.5)
    bench.send_plan()
    bench.pass_time(0.5)
    assert bench.steps == 1 and bench.output.faults


def test_evaluation_episodes_do_not_wait_for_the_trainer() -> None:
    bench = Bench(time_limit=100, ahead=1)
    bench.loop.set_learned_steps(0)
    bench.runner.newest = replace(bench.newest, step=replace(bench.newest.step, explore=False))
    bench.runner.counts.decisions = 50
    bench.send_plan()
    assert bench.steps == 51


def test_a_stopped_loop_neither_executes_nor_publishes() -> None:
    bench = Bench(retry_s=0.5)
    bench.loop.stop()
    assert bench.send_plan() == ("", "")
    bench.pass_time(60.0)
    bench.loop.confirm_recorded(bench.newest.step.stamp_ns)
    assert bench.steps == 0 and not bench.output.repeated and not bench.output.faults
    assert not bench.loop.request("reset").done


def test_every_call_of_the_operator_has_a_response() -> None:
    bench = Bench()
    assert (bench.loop.request("pause").text, bench.loop.request("resume").text) == (
        "paused",
        "resumed",
    )
    assert bench.loop.estop(on=True).text == "stopped"
    assert bench.loop.estop(on=False).text == "cleared"
    assert bench.loop.request("reset").text == "the next episode has begun"
    assert "only an arm" in bench.loop.request("speed_scale", 0.5).text


def test_a_missing_plan_is_a_fault_until_one_is_received() -> None:
    bench = Bench(timeout_s=2.0)
    bench.pass_time(1.9)
    assert "plan" not in bench.output.faults
    bench.pass_time(0.2)
    assert "no plan for 2 s" in bench.output.faults["plan"]
    bench.send_plan()
    assert "plan" not in bench.output.faults and bench.steps == 1


def test_the_latency_counts_from_the_first_publication() -> None:
    bench = Bench(retry_s=0.5)
    bench.pass_time(0.7)
    bench.now_s += 0.1
    bench.send_plan()
    assert bench.output.repeated == 1 and bench.output.diagnostics.latencies == pytest.approx([0.8])


def test_the_pace_is_a_lower_bound_of_the_time_per_step() -> None:
    bench = Bench(pace_hz=10.0)
    bench.send_plan()
    assert bench.steps == 0
    bench.pass_time(0.09)
    assert bench.steps == 0
    bench.pass_time(0.02)
    assert bench.steps == 1
    assert bench.output.diagnostics.latencies == [0.0]  # of the planner, not of the pace


def test_the_robot_is_at_most_so_many_steps_ahead_of_the_trainer() -> None:
    bench = Bench(time_limit=100, ahead=2)
    bench.loop.set_learned_steps(0)
    for _ in range(10):
        bench.send_plan()
    assert bench.steps == 3  # the step that goes over the limit is the last one
    bench.loop.set_learned_steps(1)
    assert bench.steps == 4  # the plan that waited is executed at once


def test_without_a_trainer_the_robot_does_not_wait() -> None:
    bench = Bench(time_limit=100, ahead=1)
    for _ in range(5):
        bench.send_plan()
    assert bench.steps == 5
    bench.loop.set_learned_steps(0)
    bench.output.trainer = False  # it has ended
    bench.send_plan()
    assert bench.steps == 6


def test_an_episode_begins_when_the_recorder_has_its_first_observation() -> None:
    bench = Bench(await_recorder_s=5.0)
    bench.send_plan()
    bench.pass_time(4.0)
    bench.loop.confirm_recorded(bench.newest.step.stamp_ns - 1)
    assert bench.steps == 0
    bench.loop.confirm_recorded(bench.newest.step.stamp_ns)
    assert bench.steps == 1
    bench.send_plan()
    assert bench.steps == 2  # within an episode there is no wait for it


def test_the_wait_for_an_absent_recorder_occurs_once() -> None:
    bench = Bench(time_limit=1, await_recorder_s=5.0)
    bench.send_plan()
    bench.pass_time(5.1)
    assert bench.steps == 1 and "recorder" in bench.output.faults
    bench.send_plan()
    assert bench.steps == 2  # the next episode begins at once
    bench.loop.confirm_recorded(bench.newest.step.stamp_ns)
    assert "recorder" not in bench.output.faults
    bench.send_plan()
    assert bench.steps == 3
    bench.send_plan()
    assert bench.steps == 3  # it has answered: the robot waits for it again


def test_a_paused_robot_executes_the_plan_after_the_pause() -> None:
    bench = Bench()
    bench.loop.request("pause")
    bench.send_plan()
    bench.pass_time(60.0)
    assert bench.steps == 0 and not bench.output.repeated and not bench.output.faults
    assert bench.loop.request("resume").done
    bench.pass_time(0.1)
    assert bench.steps == 1


def test_an_emergency_stop_discards_the_plan() -> None:
    bench = Bench(pace_hz=1.0)
    bench.send_plan()  # waits for the pace
    assert bench.loop.estop(on=True).done and "estop" in bench.output.faults
    assert not bench.loop.request("reset").done
    bench.pass_time(2.0)
    assert bench.loop.estop(on=False).done and not bench.output.faults
    bench.pass_time(2.0)
    assert bench.steps == 0
    bench.send_plan()
    assert bench.steps == 1


def test_episodes_follow_each_other_and_the_run_ends() -> None:
    bench = Bench(episodes=2, time_limit=2)
    for _ in range(4):
        assert not bench.output.ended
        bench.send_plan()
    assert bench.output.ended and bench.runner.counts.episodes == 2
    first_marks = [t.step.is_first for t in bench.output.published]
    assert first_marks == [True, False, False] * 2 and bench.output.saved == 3
    bench.send_plan()
    bench.pass_time(60.0)
    assert bench.steps == 4 and not bench.output.repeated


def test_a_reset_begins_the_next_episode() -> None:
    bench = Bench(time_limit=10)
    bench.send_plan()
    before = bench.newest.step.stamp_ns
    assert bench.loop.request("reset").done
    assert bench.newest.step.is_first and bench.newest.step.stamp_ns > before
    assert bench.runner.counts.episodes == 1
    assert not bench.loop.request("go_home").done


def test_timing_does_not_change_the_results_of_a_run() -> None:
    """Two runs, one with repetitions and a pace: the same observations and stamps."""
    runs = []
    for settings, wait_s in (({}, 0.0), ({"pace_hz": 5.0, "retry_s": 0.05}, 0.3)):
        bench = Bench(episodes=3, **settings)
        for push in np.linspace(-1.0, 1.0, 9):
            bench.pass_time(wait_s)
            bench.send_plan(float(push))
            bench.pass_time(wait_s)
        assert bench.output.ended
        steps = [t.step for t in bench.output.published]
        runs.append([(s.stamp_ns, s.executed.tolist(), s.reward, s.is_last) for s in steps])
    assert runs[0] == runs[1]
