"""Watchdogs and latches: what stops the arm, how soon, and what may start it again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config, kinematics
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.supervisor import Supervisor

PERIOD_S = 0.02
BEGIN_S = max(2 * PERIOD_S, 0.05)  # within which the stop must begin


class Bench:
    """A supervisor whose arm follows exactly; each source can be switched off."""

    def __init__(self, interface: str = "position") -> None:
        arm = config()
        filter = SafetyFilter(arm.limits, kinematics(), PERIOD_S, interface)
        self.supervisor = Supervisor(filter, arm.watch, arm.arm_joints)
        self.now, self.planned_s = 100.0, 100.0
        self.position = arm.home.copy()
        self.driver = self.camera = self.plan = self.follows = True
        self.changed, self.image_age_s = True, 0.005
        self.connection_faults: dict[str, str] = {}
        self.target_velocity = np.array([0.3, 0, 0, 0, 0, 0, 0])
        self.supervisor.update_image("front", self.now)
        self.commands: list[np.ndarray] = []

    def tick(self) -> Setpoint:
        """One period."""
        self.now += PERIOD_S
        self.supervisor.update_connections(self.connection_faults)
        if self.driver:
            self.supervisor.update_joints(self.position.copy(), self.now - 0.001)
        if self.camera:
            taken_s = self.now - self.image_age_s
            self.supervisor.update_image("front", self.now - 0.005, taken_s, self.changed)
        if self.plan:
            self.planned_s = self.now - 0.05
        setpoint = self.supervisor.step(
            self.target_velocity if self.plan else None, self.planned_s, self.now
        )
        if self.supervisor.began or self.supervisor.ready(self.now):
            self.supervisor.began = True
            self.commands.append(setpoint.position)
            if self.follows:
                self.position = setpoint.position.copy()
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
def test_a_missing_source_stops_in_time_until_it_returns(bench, source, name, deadline_s):
    setattr(bench, source, False)
    setpoints = bench.run(deadline_s + 1.5)
    first = next(i for i, s in enumerate(setpoints) if f"stop/{name}" in s.why)
    assert first * PERIOD_S <= deadline_s + BEGIN_S
    assert (np.diff(speeds(setpoints[first + 3 :])) <= 1e-12).all()
    assert bench.supervisor.filter.at_rest and bench.supervisor.stops[name] == 1
    setattr(bench, source, True)
    bench.run(0.5)
    assert not bench.supervisor.filter.at_rest


def test_a_late_camera_slows_before_it_stops(bench):
    bench.camera = False
    setpoints = bench.run(0.45)
    first = next(i for i, s in enumerate(setpoints) if "slow" in s.why)
    assert 0.15 <= first * PERIOD_S + PERIOD_S <= 0.15 + BEGIN_S
    assert speeds(setpoints)[-1] < 0.7 * speeds(setpoints)[0]
    assert not bench.supervisor.filter.at_rest


@pytest.mark.parametrize(("age_s", "stops"), [(0.2, False), (0.4, False), (0.7, True), (9.9, True)])
def test_images_with_old_stamps_slow_and_then_stop(bench, age_s, stops):
    """Their rate is unchanged."""
    bench.image_age_s = age_s
    setpoints = bench.run(2.0)
    assert ("slow" in setpoints[-1].why) == (0.3 < age_s < 0.6)
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
    position = bench.supervisor.filter.x.copy()
    bench.plan, cleared_s = False, bench.now
    assert bench.supervisor.clear(bench.now) == ""
    for _ in range(100):
        bench.now += PERIOD_S
        bench.supervisor.update_joints(bench.position.copy(), bench.now)
        bench.supervisor.update_image("front", bench.now)
        setpoint = bench.supervisor.step(
            bench.target_velocity, cleared_s - 0.1, bench.now
        )  # planned before the clearing
        assert "stop/plan" in setpoint.why
    np.testing.assert_array_equal(bench.supervisor.filter.x, position)
    bench.plan = True
    bench.run(0.5)
    assert not bench.supervisor.filter.at_rest


def test_an_arm_that_does_not_follow_latches_and_its_position_counts_only_after_the_clearing(bench):
    bench.follows = False
    bench.run(3.0)
    assert "tracking" in bench.supervisor.latched and bench.supervisor.filter.at_rest
    commanded = bench.supervisor.filter.x.copy()
    assert np.abs(commanded - bench.position).max() > 0.05
    bench.run(2.0)
    np.testing.assert_array_equal(bench.supervisor.filter.x, commanded)
    bench.follows = True
    assert bench.supervisor.clear(bench.now) == ""
    np.testing.assert_array_equal(bench.supervisor.filter.x[:6], bench.position[:6])
    bench.run(0.5)
    assert not bench.supervisor.filter.at_rest


@pytest.mark.parametrize(("moved", "displaced"), [(0.5, True), (0.04, True), (0.02, False)])
def test_a_driver_that_returns_at_another_position_waits_for_the_operator(bench, moved, displaced):
    """A measured position beyond one period's reach never becomes a command by itself."""
    bench.driver = False
    bench.run(2.0)
    bench.position[0] += moved
    bench.commands.clear()
    bench.driver, bench.follows, bench.plan = True, False, False
    bench.run(1.0)
    if displaced:
        assert "displaced" in bench.supervisor.latched
        assert not bench.largest_step().any()
        assert bench.supervisor.clear(bench.now) == ""
        np.testing.assert_array_equal(bench.supervisor.filter.x[:6], bench.position[:6])
    else:
        assert not bench.supervisor.latched


def test_no_command_is_sent_before_the_driver_exists():
    bench = Bench()
    bench.driver = False
    assert not speeds(bench.run(1.0)).any()
    assert not bench.commands


@pytest.mark.parametrize("fault", ["controller", "joint_sources", "commander"])
def test_nothing_is_commanded_before_the_driver_is_identified(fault):
    """A joint state publisher alone, or two of them, are no driver."""
    bench = Bench()
    bench.connection_faults = {fault: "text"}
    bench.run(1.0)
    assert not bench.commands and not bench.supervisor.ready(bench.now)
    bench.position[0] += 1.43  # the real driver appears: another pose
    bench.connection_faults = {}
    bench.run(1.0)
    assert bench.commands
    np.testing.assert_allclose(bench.commands[0][0], config().home[0] + 1.43, atol=1e-12)
    assert (bench.largest_step() <= config().limits.velocity * PERIOD_S).all()


def test_a_second_source_of_joint_states_stops_the_arm(bench):
    bench.connection_faults = {"joint_sources": "two publishers"}
    bench.run(2.0)
    assert bench.supervisor.filter.at_rest and "joint_sources" in bench.supervisor.stopping
    assert not bench.supervisor.ready(bench.now)
    assert (bench.largest_step() <= config().limits.velocity * PERIOD_S).all()


def test_a_late_period_needs_a_plan_made_after_it(bench):
    before = bench.now - 0.05
    bench.now += 2.0
    bench.supervisor.update_joints(bench.position.copy(), bench.now)
    bench.supervisor.update_image("front", bench.now)
    late = bench.supervisor.step(bench.target_velocity, before, bench.now)
    assert late.late and bench.supervisor.stops["late"] == 1
    bench.plan = False
    for _ in range(50):
        bench.now += PERIOD_S
        bench.supervisor.update_joints(bench.position.copy(), bench.now)
        bench.supervisor.update_image("front", bench.now)
        assert "stop/plan" in bench.supervisor.step(bench.target_velocity, before, bench.now).why
    assert bench.supervisor.filter.at_rest


@pytest.mark.parametrize("jump_s", [-1000.0, 1000.0])
def test_a_jump_of_the_steady_clock_breaks_no_limit(bench, jump_s):
    before = bench.supervisor.filter.x.copy()
    bench.now += jump_s
    after = bench.tick().position
    assert np.abs(after - before).max() <= 0.3 * PERIOD_S + 1e-9


def test_implausible_joint_states_are_not_used(bench):
    """Joint states from two publishers, one of which sends random positions."""
    random = np.random.default_rng(0)
    before = bench.supervisor.filter.x.copy()
    for _ in range(200):
        bench.supervisor.update_joints(random.uniform(-3, 3, 7), bench.now)
        position = bench.tick().position
        assert np.abs(position - before).max() <= 0.3 * PERIOD_S + 1e-6
        before = position
    assert bench.supervisor.filter.interventions["implausible"] > 150
    assert not bench.supervisor.latched and not bench.supervisor.filter.at_rest


def test_only_implausible_joint_states_stop_the_arm(bench):
    bench.driver = False
    random = np.random.default_rng(0)
    for _ in range(100):
        bench.supervisor.update_joints(random.uniform(-3, 3, 7), bench.now)
        bench.tick()
    assert "driver" in bench.supervisor.stopping and bench.supervisor.filter.at_rest


def test_a_gripper_that_reports_rarely_may_have_moved_further_than_the_arm():
    arm = config()
    for joint, accepted in ((6, True), (0, False)):
        filter = SafetyFilter(arm.limits, kinematics(), PERIOD_S)
        supervisor = Supervisor(filter, arm.watch, arm.arm_joints, grace_s=arm.grace_s)
        for tick in range(20):
            supervisor.update_joints(arm.home, 100.0 + PERIOD_S * tick)
        position = arm.home.copy()
        position[joint] += 0.09  # in one message
        supervisor.update_joints(position, 100.0 + PERIOD_S * 20)
        assert bool(supervisor.measured[joint] == position[joint]) is accepted


# The gripper -----------------------------------------------------------------------------------


def holding(bench) -> Bench:
    """A gripper that is commanded to 0.010 m and held open by an object at 0.025 m."""
    bench.target_velocity = np.zeros(7)
    bench.run(1.0)
    bench.supervisor.filter.start(np.append(bench.supervisor.filter.x[:6], 0.010))
    bench.follows = False
    bench.position = np.append(bench.position[:6], 0.025)
    bench.run(1.5)
    return bench


@pytest.mark.parametrize("restart_by", ["clear", "activate"])
@pytest.mark.parametrize(("opening", "expected"), [(0.025, 0.010), (0.002, 0.002)])
def test_a_stopped_gripper_continues_to_hold_unless_it_was_moved_by_hand(
    bench, restart_by, opening, expected
):
    supervisor = holding(bench).supervisor
    supervisor.latch("estop", "called")
    bench.run(2.0)
    bench.position = np.append(bench.position[:6] + 0.03, opening)  # the arm as well
    bench.run(1.0)
    if restart_by == "clear":
        assert supervisor.clear(bench.now) == ""
    else:
        supervisor.release()
        bench.run(0.5)
        supervisor.take(restart=True)
        bench.run(0.5)
    assert supervisor.filter.x[6] == pytest.approx(expected)
    np.testing.assert_allclose(supervisor.filter.x[:6], bench.position[:6])


def test_the_first_command_keeps_the_measured_position_of_the_gripper():
    bench = Bench()
    bench.plan = False
    bench.supervisor.update_joints(bench.position.copy(), bench.now)
    bench.position = np.append(bench.position[:6], 0.03)
    bench.run(1.4)
    assert {command[6] for command in bench.commands} == {0.03}


@pytest.mark.parametrize(("interface", "latches"), [("position", True), ("velocity", False)])
def test_at_rest_only_position_commands_can_have_a_tracking_error(interface, latches):
    bench = Bench(interface)
    bench.target_velocity = np.zeros(7)
    bench.run(2.0)
    bench.follows = False
    bench.position = bench.position + np.array(
        [0.06, 0, 0, 0, 0, 0, 0]
    )  # the sum of its velocities differs
    for _ in range(3):
        bench.supervisor.update_joints(bench.position.copy(), bench.now)
    bench.run(2.0)
    assert ("tracking" in bench.supervisor.latched) == latches
