"""The control loop with the simulated arm: what moves it, what stops it, and where it rests."""

from __future__ import annotations

import itertools
from concurrent.futures import Future

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from wm_nodes.control.active_plan import ActivePlan
from wm_nodes.control.realtime import RealtimeLoop
from wm_nodes.control.states import MOVING, State
from wm_nodes.records import Answer, DriverStep, Origin, Plan
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

ORIGIN = Origin("script", "test")
STILL_RAD = 0.01  # the arm sags when a controller begins to hold the measured position


class Bench:
    """A loop over the simulated arm in simulated time; plans may come for every observation."""

    def __init__(self, *, away: bool = False, home: bool = True, **options) -> None:
        self.arm = SimulatedArm("goal", render="none", time_limit=10**6, action_repeat=5)
        driver = self.arm.motion.driver
        if away:  # moved by its driver to another position
            pose = self.arm.config.home[:6] + np.array([0.8, 0.2, -0.2, 0, 0, 0.5])
            driver.controller.command("position", pose)
            driver.wait(3.0)
        active = ActivePlan(self.arm.spec.control_period_s, 0.0, 2.0)
        self.loop = RealtimeLoop(self.arm, active, home=home, clock=driver.now_s, **options)
        self.driver, self.plans, self.speed = driver, True, 0.1
        self.stamp, self.latches = itertools.count(1), 0
        self.planned_ns = 0
        with self.loop.lock:
            self.loop.prepare(0)

    def tick(self) -> None:
        """One control period, with what the node does after it."""
        loop, now_s = self.loop, self.driver.now_s()
        if loop.tick():
            if not loop.acting:
                self.arm.reset(0)
                self.observed = next(self.stamp)
                loop.begin(self.observed)
                loop.plan.observed(self.observed, now_s, 0.0)
            elif self.arm.complete():
                step = self.arm.act(np.zeros(3))
                self.observed = next(self.stamp)
                loop.plan.observed(self.observed, now_s, 0.0)
                if step.is_last:
                    loop.prepare(0)
            if self.plans:
                self.plan()
        self.driver.wait(self.arm.period_s)

    def plan(self, stamp_ns: int | None = None) -> str:
        """Send a plan for an observation; returns the reason if it is dropped."""
        stamp_ns = self.observed if stamp_ns is None else stamp_ns
        actions = np.repeat(np.float32([[0.0, self.speed, 0.0]]), 20, axis=0)
        return self.loop.plan.accept(
            Plan(stamp_ns, ORIGIN, ("x", "y", "z"), actions, 0.1), self.now
        )[0]

    @property
    def now(self) -> float:
        return self.driver.now_s()

    def run(self, seconds: float) -> float:
        """Let time pass; returns the largest displacement of a joint [rad]."""
        before = self.arm.world.positions()
        for _ in range(round(seconds / self.arm.period_s)):
            self.tick()
        return float(np.abs(self.arm.world.positions() - before).max())

    def until(self, state: State, seconds: float = 30.0) -> Bench:
        for _ in range(round(seconds / self.arm.period_s)):
            if self.loop.state is state and (state is not State.ACTING or not self.arm.at_rest()):
                return self
            self.tick()
        raise AssertionError(f"state is {self.loop.state}, not {state}: {self.arm.faults()}")

    def ask(self, name: str, value: object = None) -> Answer:
        future: Future[Answer] = self.loop.ask(name, value)
        self.tick()
        return future.result(0)

    def stop(self, how: str) -> Bench:
        """Stop the arm in one of several ways, and let it come to rest."""
        if how == "estop":
            self.loop.estop()
        elif how == "pause":
            assert self.ask("pause").done
        elif how == "protective stop":
            self.arm.latch("tracking", "test")
        self.run(1.5)
        assert self.arm.at_rest()
        return self

    def release(self) -> None:
        """What the operator does after a stop, except for the last call."""
        if self.arm.latched():
            assert self.ask("clear").done


STOPS = ("estop", "pause", "protective stop")


def test_it_goes_home_and_follows_plans():
    bench = Bench(away=True).until(State.HOMING).until(State.ACTING)
    assert bench.run(1.0) > 0.02


@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize("during", [State.HOMING, State.ACTING])
def test_after_a_stop_the_arm_rests_until_the_operators_call(during, how):
    """Not by itself, not by plans made before or after, not by scheduled homing, not by a clear."""
    bench = Bench(away=True).until(during)
    bench.run(0.4)
    bench.stop(how)
    assert bench.run(2.0) < STILL_RAD
    bench.release()
    assert bench.run(2.0) < STILL_RAD
    assert "call resume" in bench.loop.waiting_for()
    assert bench.ask("resume").done
    assert bench.run(2.0) > 0.02


@pytest.mark.parametrize("how", STOPS)
def test_after_resume_only_a_plan_of_a_later_observation_counts(how):
    bench = Bench().until(State.ACTING)
    bench.plans = False
    before = bench.observed
    bench.plan(before)
    bench.stop(how)
    bench.release()
    assert bench.ask("resume").done
    assert bench.plan(before) in ("before-stop", "old", "late")
    assert bench.run(1.0) < STILL_RAD
    bench.plans = True
    assert bench.run(1.0) > 0.02


def test_after_a_restart_the_arm_rests_until_the_operators_call():
    bench = Bench(away=True, restarted=True)
    assert bench.run(2.0) < STILL_RAD
    assert "restarted" in bench.loop.waiting_for()
    assert bench.ask("resume").done
    assert bench.run(2.0) > 0.02


def test_a_latch_of_an_earlier_process_holds_and_needs_clear_and_resume():
    bench = Bench(away=True, restarted=True)
    bench.arm.latch("estop", "before the restart")
    assert bench.run(2.0) < STILL_RAD
    assert not bench.ask("resume").done
    assert not bench.ask("go_home").done
    assert bench.ask("clear").done
    assert bench.run(2.0) < STILL_RAD
    assert bench.ask("resume").done
    assert bench.run(2.0) > 0.02


def test_homing_that_must_be_confirmed_waits_for_the_call():
    bench = Bench(away=True, confirm_home=True)
    assert bench.run(2.0) < STILL_RAD
    assert "go_home" in bench.loop.waiting_for()
    assert bench.ask("go_home").done
    bench.until(State.HOMING).until(State.ACTING)


def test_plans_outside_an_episode_are_dropped():
    bench = Bench(away=True)
    bench.observed = 0
    assert bench.plan() == "phase"
    bench.until(State.HOMING)
    assert bench.plan() == "phase"


@pytest.mark.parametrize("state", [State.NO_DRIVER, State.HOMING, State.ACTING, State.LATCHED])
@pytest.mark.parametrize("name", ["pause", "resume", "clear", "go_home", "reset"])
def test_every_request_is_answered_in_every_state(state, name):
    bench = Bench(away=True)
    if state is State.LATCHED:
        bench.until(State.HOMING).stop("estop")
    elif state is not State.NO_DRIVER:
        bench.until(state)
    response = bench.ask(name)
    assert response.text and isinstance(response.done, bool)
    bench.run(1.0)


REST = (State.NO_DRIVER, State.STANDING, State.STOPPING, State.LATCHED)


@pytest.mark.parametrize("outcome", ["done", "failed"])
@pytest.mark.parametrize("task", ["recover", "activate", "deactivate"])
@pytest.mark.parametrize("state", list(State))
def test_driver_tasks_are_answered_in_every_state_and_the_arm_rests_during_them(
    state, task, outcome
):
    bench = Bench(away=True)
    if state is State.LATCHED:
        bench.until(State.HOMING).stop("estop")
    elif state is State.STANDING:
        bench.until(State.HOMING).stop("pause")
    elif state is State.STOPPING:
        bench.until(State.HOMING)
        bench.run(0.4)
        bench.loop.estop()
        bench.until(State.STOPPING)
    elif state is not State.NO_DRIVER:
        bench.until(state)
    response = bench.ask("driver", DriverStep(task, "begin"))
    assert response.text and response.done == (state not in (*MOVING, State.STOPPING))
    if not response.done:
        return
    for name in ("resume", "go_home"):
        assert not bench.ask(name).done
    assert not bench.ask("driver", DriverStep("recover", "begin")).done
    displacement = bench.run(1.0)
    assert bench.loop.state in REST and displacement < STILL_RAD
    assert bench.ask("driver", DriverStep(task, outcome)).text
    if outcome == "done":
        assert not bench.loop.permission.granted and bench.run(1.0) < 2 * STILL_RAD


@pytest.mark.parametrize("state", [State.NO_DRIVER, State.HOMING, State.ACTING, State.LATCHED])
def test_the_speed_scale_is_set_in_every_state(state):
    bench = Bench(away=True)
    if state is State.LATCHED:
        bench.until(State.HOMING).stop("estop")
    elif state is not State.NO_DRIVER:
        bench.until(state)
    assert bench.ask("speed_scale", 0.2).done
    assert bench.arm.motion.speed.operator == 0.2
    assert not bench.ask("speed_scale", 0.01).done and bench.arm.motion.speed.operator == 0.2


def test_reset_ends_the_episode_and_the_next_one_begins():
    bench = Bench().until(State.ACTING)
    assert bench.ask("reset").done
    bench.until(State.HOMING).until(State.ACTING)


def test_a_driver_without_joint_states_brings_it_to_rest():
    bench = Bench().until(State.ACTING)
    bench.arm.switches.driver_dead = True
    bench.until(State.NO_DRIVER)
    bench.arm.switches.driver_dead = False
    bench.run(2.0)
    assert bench.loop.state in (State.ACTING, State.LATCHED)


def test_latches_are_reported_when_they_change():
    reported: list[dict[str, str]] = []
    bench = Bench(on_latch=lambda: reported.append(dict(bench.arm.latched()))).until(State.ACTING)
    bench.loop.estop()
    assert bench.loop.latched() == {"estop": "called by the operator"}  # before the next period too
    bench.run(1.5)
    bench.ask("clear")
    assert [list(latches) for latches in reported] == [["estop"], []]


def test_the_emergency_stop_brakes_in_the_next_period():
    bench = Bench().until(State.ACTING)
    bench.run(1.0)
    speed = np.linalg.norm(bench.arm.motion.filter.v)
    bench.loop.estop()
    bench.run(0.1)
    assert np.linalg.norm(bench.arm.motion.filter.v) < 0.7 * speed


def test_at_the_end_it_comes_to_rest_after_any_call():
    bench = Bench(away=True, confirm_home=True)
    bench.run(1.0)
    assert bench.ask("go_home").done
    bench.until(State.HOMING)
    bench.run(0.3)
    with bench.loop.lock:
        bench.loop.end()
    bench.run(1.5)
    assert bench.arm.at_rest() and not bench.loop.moving
    assert not bench.ask("go_home").done
    assert bench.run(1.0) < STILL_RAD


def test_a_cancelled_request_is_not_executed_later():
    bench = Bench().until(State.ACTING).stop("estop")
    request = bench.loop.ask("clear")
    assert request.cancel()  # the caller waited long enough
    bench.run(0.5)
    assert "estop" in bench.arm.latched()


def test_a_clear_from_before_an_emergency_stop_does_not_end_it():
    bench = Bench().until(State.ACTING).stop("protective stop")
    bench.loop.ask("clear")
    bench.loop.estop()
    bench.run(0.5)
    assert "estop" in bench.arm.latched()


def test_an_interrupted_call_of_go_home_is_not_resumed():
    bench = Bench(away=True, confirm_home=True)
    bench.run(1.0)
    assert bench.ask("go_home").done
    bench.until(State.HOMING)
    bench.run(0.3)
    bench.arm.switches.driver_dead = True
    bench.until(State.NO_DRIVER)
    bench.arm.switches.driver_dead = False
    bench.run(0.5)
    assert bench.run(2.0) < STILL_RAD


def test_an_unsent_command_is_not_the_reference_of_the_next_one(monkeypatch):
    """Sampled 28 ms after the last command, delayed beyond 30 ms: not sent. The next is at once."""
    bench = Bench().until(State.ACTING)
    bench.run(1.0)
    motion, clock = bench.arm.motion, bench.driver.now_s
    late_s, samples = 8e-3, []

    def resample(setpoint, at_s):
        nonlocal late_s
        samples.append(original(setpoint, at_s))
        late_s += 3e-3 if len(samples) == 1 else 0.0
        return samples[-1]

    original = motion.filter.resample
    before = motion.filter.x.copy()
    monkeypatch.setattr(motion.filter, "resample", resample)
    monkeypatch.setattr(bench.driver, "now_s", lambda: clock() + late_s)
    motion.command(motion.filter.limits.velocity * 0.1)
    assert [sample.moved for sample in samples] == [True, False]
    unsent = np.abs(samples[0].position - before)
    assert (unsent > 4e-3 * motion.filter.limits.velocity).any()  # too far for a gap of 4 ms
    late_s += 1e-3
    motion.command(motion.filter.limits.velocity * 0.1)
    assert samples[-1].moved and not bench.arm.latched()


def test_a_command_delayed_before_sending_is_sampled_again(monkeypatch):
    bench = Bench().until(State.ACTING)
    motion, clock = bench.arm.motion, bench.driver.now_s
    sampled, sent, delays_s = [], [], [2e-3, 1e-3]  # s, by another thread
    late_s = 0.0

    def now_s() -> float:
        return clock() + late_s

    def resample(setpoint, at_s):
        nonlocal late_s
        sampled.append(at_s)
        sample = original(setpoint, at_s)
        late_s += delays_s.pop(0) if delays_s else 0.0
        return sample

    original, send = motion.filter.resample, bench.driver.send
    monkeypatch.setattr(bench.driver, "now_s", now_s)
    monkeypatch.setattr(motion.filter, "resample", resample)
    monkeypatch.setattr(bench.driver, "send", lambda s: (sent.append(now_s()), send(s)))
    bench.tick()
    assert len(sent) == 1 and len(sampled) == 3
    assert sampled[-1] == sent[0] and sampled[-1] - sampled[0] == pytest.approx(3e-3)
