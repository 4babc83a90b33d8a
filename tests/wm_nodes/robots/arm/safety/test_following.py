"""An arm that stands while it should move is detected early; one that follows late never is."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from wm_nodes.robots.arm.safety.following import DELAY_S, FollowWatch
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

NOISE_RAD = 0.0005
RATE_HZ = 100.0


def detection_time(delay_s: float, lag_s: float, seed: int, *, stops_s: float = np.inf) -> float:
    """Return when a standing joint was detected [s]; inf: never.

    The arm executes commands delay_s late with a first-order lag_s; it stands from stops_s on.
    """
    random, following, period = np.random.default_rng(seed), FollowWatch(2), 1 / RATE_HZ
    speed, change_s = np.zeros(2), 0.3
    command, position, commands = np.zeros(2), np.zeros(2), []
    for now in np.arange(0.0, 8.0, period):
        if now >= change_s:
            speed = random.uniform(0.3, 1.5, 2) * random.choice([-1, 1], 2)
            change_s = now + (random.uniform(0.1, 1.0) if stops_s > now + 3 else 9.0)
        command = command + period * speed
        following.commanded(command, now)
        commands.append(command)
        if now < stops_s:
            delayed = commands[max(len(commands) - 1 - round(delay_s * RATE_HZ), 0)]
            position = position + (delayed - position) * (1 - np.exp(-period / lag_s))
        following.measured(position + random.normal(0, NOISE_RAD, 2), now)
        if following.standing_joint() is not None:
            return float(now)
    return np.inf


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lag_s", [0.005, 0.05])
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.1])
def test_an_arm_that_follows_late_is_never_detected_as_standing(delay_s, lag_s, seed):
    assert detection_time(delay_s, lag_s, seed) == np.inf


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delay_s", [0.0, 0.1])
def test_an_arm_that_stops_in_motion_is_detected_within_a_tenth_of_a_second(delay_s, seed):
    detected_s = detection_time(delay_s, 0.02, seed, stops_s=5.0)
    assert 5.0 < detected_s <= 5.12


def test_no_standing_is_detected_without_commands_or_after_the_path_restarted():
    following = FollowWatch(1)
    for step in range(50):
        following.measured(np.zeros(1), 0.01 * step)
        assert following.standing_joint() is None
    for step in range(50):
        following.commanded(np.array([0.02 * step]), 0.01 * step)
    following.forget()
    assert following.standing_joint() is None


def stop_briefly(seconds: float, speed: float) -> tuple[float, bool]:
    """Return the largest step of the driver's target when a protective stop ends by itself."""
    arm = SimulatedArm("goal", render="none")
    motion, driver, target = arm.motion, arm.motion.driver, np.eye(7)[0] * speed

    def run(duration: float) -> None:
        for _ in range(round(duration / motion.period_s)):
            motion.sense()
            motion.command(target, driver.now_s())
            driver.wait(motion.period_s)

    run(1.0)
    arm.switches.protective_stop = True
    run(seconds)
    arm.switches.protective_stop = False
    position = driver.world.positions()
    run(0.02)
    return float(
        np.abs(driver.world.positions() - position).max()
    ), "tracking" in motion.supervisor.latched


@pytest.mark.parametrize("seconds", [0.1, 0.14, 0.2])
@pytest.mark.parametrize("speed", [0.3, 0.5, 0.8])
def test_a_driver_that_resumes_by_itself_has_no_command_to_step_to(speed, seconds):
    step, latched = stop_briefly(seconds, speed)
    assert latched and step < 0.005


def test_an_arm_with_a_delay_of_a_tenth_of_a_second_starts_at_full_acceleration():
    """Its driver takes commands late: it stands while its command is 0.05 rad ahead already."""
    arm = SimulatedArm("goal", render="none")
    arm.switches.actuation_delay_s = 0.5 * DELAY_S
    motion, driver = arm.motion, arm.motion.driver
    for step in range(40):
        motion.sense()
        target = np.array([1.2, 0, 0, 1.5, 0, 1.5, 0]) if step >= 25 else None
        motion.command(target, driver.now_s())
        driver.wait(motion.period_s)
    supervisor = motion.supervisor
    assert supervisor.path.offset(supervisor.measured) > 0.05
    assert not motion.supervisor.latched
