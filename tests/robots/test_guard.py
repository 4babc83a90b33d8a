"""Watchdogs and latches: what stops the arm, how soon, and what alone may start it again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.robots.arms import config, kinematics
from wm_nodes.robots.arm.guard import Guard
from wm_nodes.robots.arm.safety import SafetyFilter, Setpoint

PERIOD_S = 0.02
BEGIN_S = max(2 * PERIOD_S, 0.05)  # in which stopping must have begun


class Bench:
    """A guard whose arm follows exactly; each source can be silenced."""

    def __init__(self) -> None:
        arm = config()
        self.guard = Guard(
            SafetyFilter(arm.limits, kinematics(), PERIOD_S), arm.watch, arm.arm_joints
        )
        self.now, self.made = 100.0, 100.0
        self.place = arm.home.copy()
        self.driver = self.camera = self.plan = self.follows = True
        self.changed = True
        self.wanted = np.array([0.3, 0, 0, 0, 0, 0, 0])
        self.guard.expect_camera("front", self.now)

    def tick(self) -> Setpoint:
        """One period."""
        self.now += PERIOD_S
        if self.driver:
            self.guard.saw_driver(self.place.copy(), np.zeros(7), self.now - 0.001)
        if self.camera:
            self.guard.saw_camera("front", self.now - 0.005, self.changed)
        if self.plan:
            self.made = self.now - 0.05
        setpoint = self.guard.step(self.wanted if self.plan else None, self.made, self.now)
        if self.follows:
            self.place = setpoint.position.copy()
        return setpoint

    def run(self, seconds: float) -> list[Setpoint]:
        return [self.tick() for _ in range(round(seconds / PERIOD_S))]

    def moving(self) -> Bench:
        self.run(1.2)
        assert not self.guard.filter.at_rest
        self.guard.stops.clear()
        return self


def speeds(setpoints: list[Setpoint]) -> np.ndarray:
    return np.array([np.linalg.norm(s.velocity) for s in setpoints])


@pytest.fixture
def bench() -> Bench:
    return Bench().moving()


@pytest.mark.parametrize(
    ("source", "name", "deadline_s"),
    [("plan", "plan", 0.0), ("camera", "camera", 0.5), ("driver", "driver", 0.1)],
)
def test_silence_stops_in_time_and_its_end_lets_go(bench, source, name, deadline_s):
    setattr(bench, source, False)
    seen = bench.run(deadline_s + 1.5)
    begun = next(i for i, s in enumerate(seen) if f"stop/{name}" in s.why)
    assert begun * PERIOD_S <= deadline_s + BEGIN_S
    assert (np.diff(speeds(seen[begun:])) <= 1e-12).all()
    assert bench.guard.filter.at_rest and bench.guard.stops[name] == 1
    setattr(bench, source, True)
    bench.run(0.5)
    assert not bench.guard.filter.at_rest


def test_a_late_camera_slows_before_it_stops(bench):
    bench.camera = False
    seen = bench.run(0.45)
    slow = next(i for i, s in enumerate(seen) if "slow" in s.why)
    assert 0.15 <= slow * PERIOD_S + PERIOD_S <= 0.15 + BEGIN_S
    assert speeds(seen)[-1] < 0.7 * speeds(seen)[0]
    assert not bench.guard.filter.at_rest


def test_a_frozen_picture_stops(bench):
    bench.changed = False
    bench.run(1.5)
    assert bench.guard.stopping == ("frozen",) and bench.guard.filter.at_rest


def test_estop_latches_and_old_plans_do_not_start_it_again(bench):
    bench.guard.estop()
    assert "stop/estop" in bench.tick().why
    bench.run(2.0)
    assert bench.guard.filter.at_rest
    held = bench.guard.filter.x.copy()
    bench.plan, made = False, bench.now
    bench.guard.clear(bench.now)
    for _ in range(100):
        bench.now += PERIOD_S
        bench.guard.saw_driver(bench.place.copy(), np.zeros(7), bench.now)
        bench.guard.saw_camera("front", bench.now)
        setpoint = bench.guard.step(bench.wanted, made - 0.1, bench.now)  # made before the clearing
        assert "stop/plan" in setpoint.why
    np.testing.assert_array_equal(bench.guard.filter.x, held)
    bench.plan = True
    bench.run(0.5)
    assert not bench.guard.filter.at_rest


def test_an_arm_that_does_not_follow_is_latched_and_held_where_it_is(bench):
    bench.follows = False
    bench.run(3.0)
    assert "tracking" in bench.guard.latched and bench.guard.filter.at_rest
    np.testing.assert_allclose(bench.guard.filter.x[:6], bench.place[:6], atol=0.021)
    bench.follows = True
    bench.run(2.0)
    assert bench.guard.filter.at_rest  # nobody cleared it
    bench.guard.clear(bench.now)
    bench.run(0.5)
    assert not bench.guard.filter.at_rest


def test_an_arm_that_was_moved_while_silent_is_taken_where_it_stands(bench):
    bench.driver = False
    bench.run(2.0)
    bench.place[0] += 0.5
    bench.plan = False
    bench.driver = True
    bench.follows = False
    bench.run(0.2)
    np.testing.assert_array_equal(bench.guard.filter.x[:6], bench.place[:6])


def test_nothing_moves_before_the_driver_has_spoken():
    bench = Bench()
    bench.driver = False
    assert not speeds(bench.run(1.0)).any()


@pytest.mark.parametrize("jump_s", [-1000.0, 1000.0])
def test_a_jump_of_the_steady_clock_stops_and_breaks_nothing(bench, jump_s):
    before = bench.guard.filter.x.copy()
    bench.now += jump_s
    after = bench.tick().position
    assert np.abs(after - before).max() <= 0.3 * PERIOD_S + 1e-9


def test_a_lying_driver_is_not_believed(bench):
    """Joint states from two publishers: one of them is broken."""
    random = np.random.default_rng(0)
    before = bench.guard.filter.x.copy()
    for _ in range(200):
        bench.guard.saw_driver(random.uniform(-3, 3, 7), np.zeros(7), bench.now)
        position = bench.tick().position
        assert np.abs(position - before).max() <= 0.3 * PERIOD_S + 1e-6
        before = position
    assert bench.guard.filter.interventions["implausible"] > 150
    assert not bench.guard.latched and not bench.guard.filter.at_rest


def test_a_driver_that_only_lies_stops_the_arm(bench):
    bench.driver = False
    random = np.random.default_rng(0)
    for _ in range(100):
        bench.guard.saw_driver(random.uniform(-3, 3, 7), np.zeros(7), bench.now)
        bench.tick()
    assert "driver" in bench.guard.stopping and bench.guard.filter.at_rest
