"""A simulator in real time with a simulated clock: one step per period, with or without a plan."""

from __future__ import annotations

import math

import numpy as np

from tests.wm_nodes.control.test_lockstep import ACTOR, Output
from tests.wm_nodes.point_robot import PointRobot
from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.realtime import HOLD
from wm_nodes.control.timed import TimedControl
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.records import Plan, Transition

PERIOD_S = 0.125  # exact in binary: the sums and differences of times are too


class Bench:
    """The loop with the smallest robot; its steady time passes with `tick` only."""

    def __init__(self, episodes: int = 0, time_limit: int = 100) -> None:
        self.output, robot = Output(), PointRobot(time_limit=time_limit)
        self.runner = EpisodeRunner(robot, Schedule(StopCriteria(episodes=episodes), seed=0))
        self.plan = ActivePlan(PERIOD_S, max_age_s=PERIOD_S / 2, max_plan_s=2.0)
        self.loop = TimedControl(self.runner, self.output, self.plan, PERIOD_S, self.now_s)
        self.loop.start()
        self.start_s, self.ticks = math.ceil(self.newest.observed_s), 0

    def now_s(self) -> float:
        return self.start_s + self.ticks * PERIOD_S

    @property
    def newest(self) -> Transition:
        return self.output.published[-1]

    def tick(self) -> float:
        """Let one period pass; return the action that was executed."""
        self.loop.tick()
        self.ticks += 1
        return float(self.newest.step.executed[0])

    def send_plan(self, *pushes: float, stamp_ns: int | None = None) -> tuple[str, str]:
        """Send a plan for an observation, whose age is set by the simulated clock."""
        stamp_ns = self.newest.step.stamp_ns if stamp_ns is None else stamp_ns
        if stamp_ns in self.plan._observed:
            self.plan._observed[stamp_ns] = (self.now_s(), 0.0)
        actions = np.float32([[push] for push in pushes])
        return self.loop.accept(Plan(stamp_ns, ACTOR, ("push",), actions, PERIOD_S))


def test_without_a_plan_the_robot_holds_still_and_time_passes() -> None:
    bench = Bench()
    assert [bench.tick() for _ in range(3)] == [0.0] * 3
    assert bench.runner.counts.decisions == 3 and "plan" in bench.output.faults
    assert bench.newest.step.source == int(HOLD.source)


def test_the_actions_of_a_plan_are_executed_in_their_time_and_then_it_is_over() -> None:
    bench = Bench()
    assert bench.send_plan(0.25, -0.5) == ("", "")
    # The last action is held up to max_age_s after its period.
    assert [bench.tick() for _ in range(4)] == [0.25, -0.5, -0.5, 0.0]
    assert "plan" in bench.output.faults
    bench.send_plan(0.125)
    assert bench.tick() == 0.125 and "plan" not in bench.output.faults
    assert bench.newest.step.weights == ACTOR.version


def test_a_plan_for_no_observation_is_refused() -> None:
    bench = Bench()
    assert bench.send_plan(1.0, stamp_ns=10**15)[0] == "stamp"
    assert bench.tick() == 0.0


def test_pause_and_emergency_stop_void_the_plan() -> None:
    for hold, release in (
        (lambda loop: loop.request("pause"), lambda loop: loop.request("resume")),
        (lambda loop: loop.estop(on=True), lambda loop: loop.estop(on=False)),
    ):
        bench = Bench()
        bench.send_plan(*[0.5] * 10)
        assert bench.tick() == 0.5
        assert hold(bench.loop).done and bench.tick() == 0.0
        assert release(bench.loop).done and bench.tick() == 0.0  # a new plan is needed
        bench.send_plan(0.25)
        assert bench.tick() == 0.25


def test_the_run_ends_after_its_episodes() -> None:
    bench = Bench(episodes=2, time_limit=3)
    for _ in range(20):
        bench.tick()
    assert bench.output.ended and bench.runner.counts.decisions == 6
    assert [t.step.is_first for t in bench.output.published] == [True, False, False, False] * 2
