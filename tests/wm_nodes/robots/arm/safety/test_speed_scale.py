"""The speed scale: lowering it brakes within the limits, and then all speeds are below it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import NAMES, config, kinematics
from wm_nodes.checks.safety_trial.limit_audit import audit
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter
from wm_nodes.robots.arm.safety.speed_scale import LEAST, Slowdown, SpeedScale
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

BRAKED_S = 0.8  # after the last change all speeds are below the scale (docs/arm.md)
ROUNDING = 1e-6


def drive(name: str, rate_hz: float, seed: int, seconds: float):
    """Return (times, path, scale, time since its last change) of random targets and scales."""
    random, arm = np.random.default_rng(seed), config(name)
    filter = SafetyFilter(arm.limits, kinematics(name), 1 / rate_hz)
    filter.start(arm.home)
    times = np.cumsum(random.uniform(0.7, 1.3, round(seconds * rate_hz))) / rate_hz
    path, scales, since = [], [], []
    scale, changed_s, change_s, target_s = 1.0, 0.0, random.uniform(0.3, 2.0), 0.0
    target = np.zeros(len(arm.home))
    for now in times:
        if now >= change_s:
            scale, changed_s = float(random.choice([0.05, 0.2, 0.5, 1.0])), now
            filter.scale_speed(scale)
            change_s = now + float(random.choice([0.04, 0.2, 1.5, 2.5]))
        if now >= target_s:
            target = random.uniform(-1.5, 1.5, len(target)) * arm.limits.velocity
            target_s = now + random.uniform(0.1, 1.5)
        path.append(filter.step(target, now).position)
        scales.append(scale)
        since.append(now - changed_s)
    return times, np.array(path), np.array(scales), np.array(since)


def shares(name: str, times, path) -> np.ndarray:
    """Return (T - 1,) the largest share of a joint's or a link's speed limit."""
    limits, steps = config(name).limits, np.diff(times)
    joints = np.abs(np.diff(path, axis=0)) / steps[:, None] / limits.velocity
    links = np.linalg.norm(np.diff(kinematics(name).links(path), axis=0), axis=-1)
    return np.maximum(joints.max(axis=1), links.max(axis=1) / steps / limits.hand_speed)


@pytest.mark.parametrize("rate_hz", [50.0, 200.0])
@pytest.mark.parametrize("name", NAMES)
def test_no_change_of_the_scale_breaks_a_limit_and_speeds_fall_below_it_in_time(name, rate_hz):
    times, path, scales, since = drive(name, rate_hz, 3, 8.0)
    report = audit(config(name).limits, kinematics(name), times, path)
    assert not +report.violations, (report.violations, report.worst)
    used, settled = shares(name, times, path), since[1:] > BRAKED_S + 2 / rate_hz
    assert settled.any()
    assert (used[settled] <= scales[1:][settled] * (1 + ROUNDING)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_random_scales_at_random_times_break_no_limit(seed):
    times, path, scales, since = drive("arm_sim", 50.0, seed, 3.0)
    report = audit(config().limits, kinematics(), times, path)
    assert not +report.violations, (report.violations, report.worst)
    settled = since[1:] > BRAKED_S + 0.04
    assert (shares("arm_sim", times, path)[settled] <= scales[1:][settled] * (1 + ROUNDING)).all()


def moving_filter(name: str = "ur5e") -> tuple[SafetyFilter, float]:
    """Return a filter whose arm turns about its base at its speed limit, and the time."""
    arm = config(name)
    filter = SafetyFilter(arm.limits, kinematics(name), 1 / arm.rate_hz)
    filter.start(arm.home)
    now = 0.0
    while now < 1.0:
        now += filter.period_s
        filter.step(full_speed(filter), now)
    return filter, now


def full_speed(filter: SafetyFilter) -> np.ndarray:
    return np.eye(len(filter.x))[0] * filter.limits.velocity


def test_a_higher_scale_takes_effect_at_once_and_a_lower_one_without_a_step():
    filter, now = moving_filter()
    fast = filter.v[0]
    filter.scale_speed(0.1)
    before = fast
    for _ in range(round(1.0 / filter.period_s)):
        now += filter.period_s
        speed = filter.step(full_speed(filter), now).velocity[0]
        bound = filter.limits.acceleration[0] * filter.period_s
        assert abs(before - speed) <= bound * (1 + ROUNDING)
        before = speed
    assert 0.05 * fast < before < 0.2 * fast
    filter.scale_speed(1.0)
    now += filter.period_s
    filter.step(full_speed(filter), now)
    now += filter.period_s
    assert filter.step(full_speed(filter), now).velocity[0] > before


def test_stopping_is_as_strong_at_a_low_scale():
    """The scale lowers velocities only: an emergency stop from a speed takes the same time."""

    def braking_s(scale: float) -> float:
        filter, now = moving_filter()
        filter.scale_speed(scale)
        steps = 0
        while not filter.at_rest:
            now, steps = now + filter.period_s, steps + 1
            filter.step(None, now)
        return steps * filter.period_s

    assert braking_s(0.05) == braking_s(1.0)


def test_the_smaller_scale_counts_and_an_unknown_one_forbids_motion():
    speed = SpeedScale(0.5)
    assert speed.now(0.0) == (0.5, "")  # without a watch, no report of the driver is needed
    speed.watch(0.5)
    assert speed.now(0.0) == (0.5, "driver_speed")
    assert speed.take(0.3, 1.0) == "" and speed.now(1.2) == (0.3, "")
    assert speed.take(0.8, 1.3) == "" and speed.now(1.4) == (0.5, "")
    assert speed.now(1.81) == (0.5, "driver_speed")
    assert speed.take(0.0, 2.0) == "" and speed.now(2.1) == (0.5, "driver_paused")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -0.01, 1.01, 100.0])
def test_a_wrong_scale_is_dropped_and_counted_and_does_not_renew_the_last(wrong):
    speed = SpeedScale()
    speed.watch(0.5)
    speed.take(0.4, 1.0)
    reason = speed.take(wrong, 1.4)
    assert reason and speed.dropped == {reason: 1}
    assert speed.now(1.4) == (0.4, "") and speed.now(1.6)[1] == "driver_speed"
    assert speed.set_operator(wrong) and speed.operator == 1.0


@pytest.mark.parametrize("scale", [LEAST, 1.0])
def test_the_operators_range_is_5_to_100_percent(scale):
    assert SpeedScale().set_operator(scale) == ""


class SlowedArm:
    """The simulated arm, whose driver reports its speed scale; joint 1 moves back and forth."""

    def __init__(self) -> None:
        self.arm = SimulatedArm("goal", render="none")
        self.motion, self.driver = self.arm.motion, self.arm.motion.driver
        self.motion.speed.watch(0.5)
        self.reports = True

    def run(self, seconds: float, scale: float, speed: float = 0.4, joint: int = 0) -> None:
        self.arm.switches.driver_speed_scale = scale
        for _ in range(round(seconds / self.motion.period_s)):
            now = self.driver.now_s()
            if self.reports:
                self.motion.speed.take(scale, now)
            self.motion.sense()
            velocity = speed if math.sin(2.0 * now) >= 0 else -speed
            self.motion.command(np.eye(7)[joint] * velocity, now)
            self.driver.wait(self.motion.period_s)

    def moves(self, scale: float) -> bool:
        before = self.driver.world.positions()[0]
        self.run(0.4, scale)
        return abs(self.driver.world.positions()[0] - before) > 0.01


def test_a_slow_driver_is_followed_at_its_speed_and_nothing_latches():
    slowed = SlowedArm()
    slowed.run(2.0, 1.0)
    slowed.run(8.0, 0.1, speed=1.5)
    assert not slowed.motion.supervisor.latched
    assert slowed.moves(0.1)


def test_without_its_reports_a_slow_driver_latches():
    slowed = SlowedArm()
    slowed.motion.speed = SpeedScale()
    slowed.reports = False
    slowed.run(1.0, 1.0)
    slowed.run(8.0, 0.05, speed=1.5)
    assert "tracking" in slowed.motion.supervisor.latched


def test_the_arm_rests_before_the_driver_reports_its_speed():
    slowed = SlowedArm()
    slowed.reports = False
    assert not slowed.moves(1.0) and "driver_speed" in slowed.motion.supervisor.stopping
    slowed.reports = True
    slowed.run(0.5, 1.0)
    assert slowed.moves(1.0)
    slowed.reports = False
    slowed.run(2.0, 1.0)
    assert slowed.motion.at_rest and not slowed.motion.supervisor.latched


def test_a_paused_driver_stops_the_arm_without_a_latch_and_resumes_without_a_step():
    slowed = SlowedArm()
    slowed.run(1.3, 1.0)
    slowed.run(2.0, 0.0)
    supervisor = slowed.motion.supervisor
    assert (
        "driver_paused" in supervisor.stopping and not supervisor.latched and slowed.motion.at_rest
    )
    position = slowed.driver.world.positions()
    assert np.abs(slowed.motion.filter.x - position)[:6].max() <= 0.012
    slowed.run(0.02, 1.0)
    assert np.abs(slowed.driver.world.positions() - position)[:6].max() < 0.012
    assert slowed.moves(1.0) and not supervisor.latched


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_a_driver_that_slows_down_in_fast_motion_causes_neither_latch_nor_step(scale):
    slowed = SlowedArm()
    slowed.run(2.0, 1.0)
    motion, world = slowed.motion, slowed.driver.world
    for _ in range(200):
        slowed.run(motion.period_s, 1.0, speed=1.9, joint=3)
        if motion.filter.v[3] > 1.8:
            break
    slowed.run(3.0, scale, speed=1.9, joint=3)
    assert not motion.supervisor.latched
    if scale == 0.0:
        position = world.positions()
        assert motion.at_rest and np.abs(motion.filter.x - position)[:6].max() <= 0.012
        slowed.run(0.04, 1.0)
        assert np.abs(world.positions() - position)[:6].max() < 0.02
    slowed.run(3.0, 1.0)
    assert slowed.moves(1.0) and not motion.supervisor.latched


def test_a_paused_arm_that_is_latched_resumes_without_a_step_and_stays_latched():
    slowed = SlowedArm()
    slowed.run(1.3, 1.0)
    slowed.motion.supervisor.latch("tracking", "before the pause was reported")
    slowed.run(3.0, 0.0)
    position = slowed.driver.world.positions()
    slowed.run(1.0, 1.0)
    assert np.abs(slowed.driver.world.positions() - position)[:6].max() < 0.012
    assert set(slowed.motion.supervisor.latched) == {"tracking"}


def test_a_scale_that_falls_repeatedly_does_not_excuse_every_lag():
    slowdown = Slowdown(2.0)
    times = np.arange(0.0, 60.0, 0.02)
    excused = 0
    for now_s in times:
        slowdown.update(1.0 if now_s % 1.0 < 0.5 else 0.4, now_s)
        excused += slowdown.lasts(now_s)
    assert excused <= 0.55 * len(times)
    noise = Slowdown(2.0)
    for now_s in times:
        noise.update(0.9 + 0.1 * math.sin(now_s), now_s)
        assert not noise.lasts(now_s)
