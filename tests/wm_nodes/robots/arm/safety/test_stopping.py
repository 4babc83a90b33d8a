"""Following and braking use the limits: gain of a sine, no overshoot, stops near the optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("ruckig", reason="needs the [test] extra")

import ruckig

from tests.wm_nodes.robots.arm.arms import NAMES, config, kinematics
from wm_nodes.robots.arm.safety.limits import MAX_HAND_SPEED_M_S
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter
from wm_nodes.robots.arm.safety.stopping import StoppingMotions

TWO_PI = 2 * np.pi  # of 1 Hz [1/s]


def free_filter(name: str) -> SafetyFilter:
    """Return a filter at home whose position limits and workspace are out of reach."""
    arm = config(name)
    limits = replace(
        arm.limits,
        low=arm.limits.low - 100,
        high=arm.limits.high + 100,
        target_change=2 * arm.limits.velocity,
        box_low=np.full(3, -100.0),
        box_high=np.full(3, 100.0),
        hand_speed=MAX_HAND_SPEED_M_S,
    )
    filter = SafetyFilter(limits, kinematics(name), 1 / arm.rate_hz)
    filter.start(arm.home)
    return filter


def follow(name: str, targets: np.ndarray) -> np.ndarray:
    filter = free_filter(name)
    period = filter.period_s
    return np.array([filter.step(v, i * period).velocity for i, v in enumerate(targets)])


def optimal_stop_s(limits, v, a) -> float:
    parameters = ruckig.InputParameter(len(v))
    parameters.control_interface = ruckig.ControlInterface.Velocity
    parameters.synchronization = ruckig.Synchronization.Time
    parameters.current_position = np.zeros(len(v)).tolist()
    parameters.current_velocity, parameters.current_acceleration = v.tolist(), a.tolist()
    parameters.target_velocity = parameters.target_acceleration = np.zeros(len(v)).tolist()
    parameters.max_acceleration, parameters.max_jerk = (
        limits.acceleration.tolist(),
        limits.jerk.tolist(),
    )
    trajectory = ruckig.Trajectory(len(v))
    ruckig.Ruckig(len(v)).calculate(parameters, trajectory)
    return trajectory.duration


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_from_full_speed_takes_at_most_a_fifth_longer_than_ruckigs(name):
    limits, period = config(name).limits, 1 / config(name).rate_hz
    brake, n = StoppingMotions(limits, period), len(limits.joints)
    for joints in (np.ones(n), *np.eye(n)):
        v = brake.velocity * joints
        motion = brake.stop(np.zeros(n), v, np.zeros(n))
        duration_s = (motion.shape[1] - 1) * period
        assert duration_s <= 1.2 * optimal_stop_s(limits, v, np.zeros(n))


@pytest.mark.parametrize("rate_hz", [50.0, 200.0])
@pytest.mark.parametrize("name", NAMES)
def test_every_stop_obeys_the_limits_from_its_first_to_its_last_period(name, rate_hz):
    limits, random = config(name).limits, np.random.default_rng(1)
    brake, n, dt = StoppingMotions(limits, 1 / rate_hz), len(limits.joints), 1 / rate_hz
    for _ in range(300):
        v = random.uniform(-1, 1, n) * brake.velocity
        a = random.uniform(-0.9, 0.9, n) * limits.acceleration
        motion = brake.stop(np.zeros(n), v, a)
        assert motion is not None
        x, speed, acceleration = motion
        assert not speed[-1].any()
        np.testing.assert_allclose(np.diff(x, axis=0), dt * speed[1:], atol=1e-12)
        np.testing.assert_allclose(np.diff(speed, axis=0), dt * acceleration[1:], atol=1e-12)
        changes = np.diff(np.vstack([acceleration, np.zeros(n)]), axis=0)
        assert (np.abs(acceleration) <= limits.acceleration * (1 + 1e-9)).all()
        assert (np.abs(changes) <= dt * limits.jerk * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", NAMES)
def test_half_of_a_feasible_sine_of_1_hz_is_followed(name):
    limits = config(name).limits
    feasible = np.minimum(limits.acceleration / TWO_PI, limits.jerk / TWO_PI**2)
    amplitude = 0.5 * np.minimum(limits.velocity, feasible)
    times = np.arange(round(3 * config(name).rate_hz)) / config(name).rate_hz
    velocities = follow(name, np.sin(TWO_PI * times)[:, None] * amplitude)
    settled = times >= 1
    waves = np.stack([np.sin(TWO_PI * times[settled]), np.cos(TWO_PI * times[settled])], axis=1)
    coefficients = np.linalg.lstsq(waves, velocities[settled], rcond=None)[0]
    assert (np.hypot(*coefficients) >= 0.9 * amplitude).all()
    assert (np.degrees(-np.arctan2(coefficients[1], coefficients[0])) < 20).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_reached_without_overshoot_and_all_joints_arrive_together(name):
    limits, rate_hz = config(name).limits, config(name).rate_hz
    first = np.random.default_rng(2).uniform(-0.2, 0.2, len(limits.joints)) * limits.velocity
    targets = np.repeat([first, 2 * first], round(2 * rate_hz), axis=0)
    velocities = follow(name, targets)
    assert ((velocities - targets) * np.sign(first) <= 1e-9).all()
    np.testing.assert_allclose(velocities[-1], targets[-1], rtol=0, atol=1e-9)
    shares = velocities / first
    np.testing.assert_allclose(shares, np.broadcast_to(shares[:, :1], shares.shape), atol=0.05)


def test_a_target_of_zero_ends_at_rest():
    filter = free_filter("ur5e")
    for index in range(150):
        target = 0.3 if index < 50 else 0.0
        filter.step(np.full(6, target), index * filter.period_s)
    assert filter.at_rest
    position = filter.x.copy()
    for index in range(150, 160):
        setpoint = filter.step(np.zeros(6), index * filter.period_s)
        np.testing.assert_array_equal(setpoint.position, position)


def test_the_acceleration_does_not_oscillate_about_a_constant_target():
    filter = free_filter("fr3")
    target = np.array([0.4, -0.1, 0.2, 0.3, -0.5, 0.2, 0.1])
    accelerations = np.array(
        [filter.step(target, i * filter.period_s).acceleration for i in range(150)]
    )
    assert (accelerations * np.sign(target) >= -1e-9).all()
    assert (np.abs(accelerations[100:]) <= 1e-9).all()
