"""Watchdogs and latches: what stops the arm, how soon, and what alone may start it again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config, kinematics
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.supervisor import Supervisor

PERIOD_S = 0.02
BEGIN_S = max(2 * PERIOD_S, 0.05)  # in which stopping must have begun


class Bench:
    """A supervisor whose arm follows exactly; each source can be silenced."""

    def __init__(self, interface: str = "position") -> None:
        arm = config()
        filter = SafetyFilter(arm.limits, kinematics(), PERIOD_S, interface)
        self.supervisor = Supervisor(filter, arm.watch, arm.arm_joints)
        self.now, self.made = 100.0, 100.0
        self.place = arm.home.copy()
        self.driver = self.camera = self.plan = self.follows = True
        self.changed, self.image_age_s = True, 0.005
        self.wires: dict[str, str] = {}
        self.wanted = np.array([0.3, 0, 0, 0, 0, 0, 0])
        self.supervisor.update_image("front", self.now)
        self.commands: list[np.ndarray] = []

    def tick(self) -> Setpoint:
        """One period."""
        self.now += PERIOD_S
        self.supervisor.update_connections(self.wires)
        if self.driver:
            self.supervisor.update_joints(self.place.copy(), self.now - 0.001)
        if self.camera:
            taken = self.now - self.image_age_s
            self.supervisor.update_image("front", self.now - 0.005, taken, self.changed)
        if self.plan:
            self.made = self.now - 0.05
        setpoint = self.supervisor.step(self.wanted if self.plan else None, self.made, self.now)
        if self.supervisor.began or self.supervisor.ready(self.now):
            self.supervisor.began = True
            self.commands.append(setpoint.position)
            if self.follows:
                self.place = setpoint.position.copy()
        return setpoint

    def run(self, seconds: float) -> list[Setpoint]:
        return [self.tick() for _ in range(round(seconds / PERIOD_S))]

    def moving(self) -> Bench:
        self.run(1.4)
        assert not self.supervisor.filter.at_rest
        self.supervisor.stops.clear()
        return self

    def largest_step(self) -> np.ndarray:
        """Return the largest step (n,) from one command to the next."""
        return np.abs(np.diff(self.commands, axis=0)).max(axis=0)


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
    assert (np.diff(speeds(seen[begun + 3 :])) <= 1e-12).all()
    assert bench.supervisor.filter.at_rest and bench.supervisor.stops[name] == 1
    setattr(bench, source, True)
    bench.run(0.5)
    assert not bench.supervisor.filter.at_rest


def test_a_late_camera_slows_before_it_stops(bench):
    bench.camera = False
    seen = bench.run(0.45)
    slow = next(i for i, s in enumerate(seen) if "slow" in s.why)
    assert 0.15 <= slow * PERIOD_S + PERIOD_S <= 0.15 + BEGIN_S
    assert speeds(seen)[-1] < 0.7 * speeds(seen)[0]
    assert not bench.supervisor.filter.at_rest


@pytest.mark.parametrize(("age_s", "stops"), [(0.2, False), (0.4, False), (0.7, True), (9.9, True)])
def test_images_that_are_old_by_their_stamps_slow_and_then_stop(bench, age_s, stops):
    """They arrive as often as ever."""
    bench.image_age_s = age_s
    seen = bench.run(2.0)
    assert ("slow" in seen[-1].why) == (0.3 < age_s < 0.6)
    assert bench.supervisor.filter.at_rest == stops
    assert ("camera_late" in bench.supervisor.stopping) == stops


def test_a_frozen_image_stops(bench):
    bench.changed = False
    bench.run(1.5)
    assert bench.supervisor.stopping == ("frozen",) and bench.supervisor.filter.at_rest


def test_a_latch_lasts_until_it_is_cleared_at_rest_and_old_plans_do_not_count(bench):
    bench.supervisor.latch("estop", "called")
    assert "stop/estop" in bench.tick().why
    assert "still stopping" in bench.supervisor.clear(bench.now)
    bench.run(2.0)
    assert bench.supervisor.filter.at_rest
    held = bench.supervisor.filter.x.copy()
    bench.plan, made = False, bench.now
    assert bench.supervisor.clear(bench.now) == ""
    for _ in range(100):
        bench.now += PERIOD_S
        bench.supervisor.update_joints(bench.place.copy(), bench.now)
        bench.supervisor.update_image("front", bench.now)
        setpoint = bench.supervisor.step(
            bench.wanted, made - 0.1, bench.now
        )  # made before the clearing
        assert "stop/plan" in setpoint.why
    np.testing.assert_array_equal(bench.supervisor.filter.x, held)
    bench.plan = True
    bench.run(0.5)
    assert not bench.supervisor.filter.at_rest


def test_an_arm_that_does_not_follow_latches_and_is_taken_where_it_is_only_when_cleared(bench):
    bench.follows = False
    bench.run(3.0)
    assert "tracking" in bench.supervisor.latched and bench.supervisor.filter.at_rest
    commanded = bench.supervisor.filter.x.copy()
    assert np.abs(commanded - bench.place).max() > 0.05
    bench.run(2.0)
    np.testing.assert_array_equal(bench.supervisor.filter.x, commanded)
    bench.follows = True
    assert bench.supervisor.clear(bench.now) == ""
    np.testing.assert_array_equal(bench.supervisor.filter.x[:6], bench.place[:6])
    bench.run(0.5)
    assert not bench.supervisor.filter.at_rest


@pytest.mark.parametrize(("moved", "displaced"), [(0.5, True), (0.04, True), (0.02, False)])
def test_a_driver_that_comes_back_elsewhere_waits_for_the_operator(bench, moved, displaced):
    """A measured position beyond one period's reach never becomes a command by itself."""
    bench.driver = False
    bench.run(2.0)
    bench.place[0] += moved
    bench.commands.clear()
    bench.driver, bench.follows, bench.plan = True, False, False
    bench.run(1.0)
    if displaced:
        assert "displaced" in bench.supervisor.latched
        assert not bench.largest_step().any()
        assert bench.supervisor.clear(bench.now) == ""
        np.testing.assert_array_equal(bench.supervisor.filter.x[:6], bench.place[:6])
    else:
        assert not bench.supervisor.latched


def test_nothing_moves_before_the_driver_is_there():
    bench = Bench()
    bench.driver = False
    assert not speeds(bench.run(1.0)).any()
    assert not bench.commands


@pytest.mark.parametrize("fault", ["controller", "joint_sources", "commander"])
def test_nothing_is_commanded_before_the_driver_is_identified(fault):
    """A joint state publisher alone, or two of them, are no driver."""
    bench = Bench()
    bench.wires = {fault: "text"}
    bench.run(1.0)
    assert not bench.commands and not bench.supervisor.ready(bench.now)
    bench.place[0] += 1.43  # the real driver appears: another pose
    bench.wires = {}
    bench.run(1.0)
    assert bench.commands
    np.testing.assert_allclose(bench.commands[0][0], config().home[0] + 1.43, atol=1e-12)
    assert (bench.largest_step() <= config().limits.velocity * PERIOD_S).all()


def test_a_second_source_of_joint_states_stops_the_arm(bench):
    bench.wires = {"joint_sources": "two publishers"}
    bench.run(2.0)
    assert bench.supervisor.filter.at_rest and "joint_sources" in bench.supervisor.stopping
    assert not bench.supervisor.ready(bench.now)
    assert (bench.largest_step() <= config().limits.velocity * PERIOD_S).all()


def test_a_late_period_needs_a_plan_made_after_it(bench):
    before = bench.now - 0.05
    bench.now += 2.0
    bench.supervisor.update_joints(bench.place.copy(), bench.now)
    bench.supervisor.update_image("front", bench.now)
    late = bench.supervisor.step(bench.wanted, before, bench.now)
    assert late.late and bench.supervisor.stops["late"] == 1
    bench.plan = False
    for _ in range(50):
        bench.now += PERIOD_S
        bench.supervisor.update_joints(bench.place.copy(), bench.now)
        bench.supervisor.update_image("front", bench.now)
        assert "stop/plan" in bench.supervisor.step(bench.wanted, before, bench.now).why
    assert bench.supervisor.filter.at_rest


@pytest.mark.parametrize("jump_s", [-1000.0, 1000.0])
def test_a_jump_of_the_steady_clock_stops_and_breaks_nothing(bench, jump_s):
    before = bench.supervisor.filter.x.copy()
    bench.now += jump_s
    after = bench.tick().position
    assert np.abs(after - before).max() <= 0.3 * PERIOD_S + 1e-9


def test_a_lying_driver_is_not_believed(bench):
    """Joint states from two publishers: one of them is broken."""
    random = np.random.default_rng(0)
    before = bench.supervisor.filter.x.copy()
    for _ in range(200):
        bench.supervisor.update_joints(random.uniform(-3, 3, 7), bench.now)
        position = bench.tick().position
        assert np.abs(position - before).max() <= 0.3 * PERIOD_S + 1e-6
        before = position
    assert bench.supervisor.filter.interventions["implausible"] > 150
    assert not bench.supervisor.latched and not bench.supervisor.filter.at_rest


def test_a_driver_that_only_lies_stops_the_arm(bench):
    bench.driver = False
    random = np.random.default_rng(0)
    for _ in range(100):
        bench.supervisor.update_joints(random.uniform(-3, 3, 7), bench.now)
        bench.tick()
    assert "driver" in bench.supervisor.stopping and bench.supervisor.filter.at_rest


def test_a_gripper_that_reports_rarely_may_have_moved_further_than_the_arm():
    arm = config()
    for joint, believed in ((6, True), (0, False)):
        filter = SafetyFilter(arm.limits, kinematics(), PERIOD_S)
        supervisor = Supervisor(filter, arm.watch, arm.arm_joints, grace_s=arm.grace_s)
        for tick in range(20):
            supervisor.update_joints(arm.home, 100.0 + PERIOD_S * tick)
        moved = arm.home.copy()
        moved[joint] += 0.09  # in one message
        supervisor.update_joints(moved, 100.0 + PERIOD_S * 20)
        assert bool(supervisor.measured[joint] == moved[joint]) is believed


# The gripper -----------------------------------------------------------------------------------


def held(bench) -> Bench:
    """A gripper that is commanded to 0.010 m and held open by an object at 0.025 m."""
    bench.wanted = np.zeros(7)
    bench.run(1.0)
    bench.supervisor.filter.start(np.append(bench.supervisor.filter.x[:6], 0.010))
    bench.follows = False
    bench.place = np.append(bench.place[:6], 0.025)
    bench.run(1.5)
    return bench


@pytest.mark.parametrize("begins", ["clear", "activate"])
@pytest.mark.parametrize(("opening", "then"), [(0.025, 0.010), (0.002, 0.002)])
def test_a_stopped_gripper_goes_on_holding_unless_it_was_moved_by_hand(
    bench, begins, opening, then
):
    supervisor = held(bench).supervisor
    supervisor.latch("estop", "called")
    bench.run(2.0)
    bench.place = np.append(bench.place[:6] + 0.03, opening)  # the arm as well
    bench.run(1.0)
    if begins == "clear":
        assert supervisor.clear(bench.now) == ""
    else:
        supervisor.release()
        bench.run(0.5)
        supervisor.take(restart=True)
        bench.run(0.5)
    assert supervisor.filter.x[6] == pytest.approx(then)
    np.testing.assert_allclose(supervisor.filter.x[:6], bench.place[:6])


def test_the_first_command_leaves_the_gripper_where_it_is_measured():
    bench = Bench()
    bench.plan = False
    bench.supervisor.update_joints(bench.place.copy(), bench.now)
    bench.place = np.append(bench.place[:6], 0.03)
    bench.run(1.4)
    assert {command[6] for command in bench.commands} == {0.03}


@pytest.mark.parametrize(("interface", "latches"), [("position", True), ("velocity", False)])
def test_at_rest_only_an_arm_that_is_commanded_to_a_place_can_be_behind(interface, latches):
    bench = Bench(interface)
    bench.wanted = np.zeros(7)
    bench.run(2.0)
    bench.follows = False
    bench.place = bench.place + np.array([0.06, 0, 0, 0, 0, 0, 0])  # where its velocities add up
    for _ in range(3):
        bench.supervisor.update_joints(bench.place.copy(), bench.now)
    bench.run(2.0)
    assert ("tracking" in bench.supervisor.latched) == latches
