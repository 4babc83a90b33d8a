"""Which joint states are accepted: those that the arm can have reached, or several that agree."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_nodes.robots.arm.safety.test_limits import GOOD
from wm_nodes.robots.arm.safety.joint_watch import (
    AGREE,
    FARTHEST,
    SINCE_S,
    STEP,
    STILL_RAD,
    STILL_S,
    JointWatch,
)
from wm_nodes.robots.arm.safety.limits import ArmLimits

LIMITS = ArmLimits(**GOOD)  # velocities of 1 and 2 rad/s: measured ones may be twice as high
START = np.array([0.5, -0.5])


@pytest.fixture
def watch() -> JointWatch:
    """A watch that accepted START at 10 s."""
    joint_watch = JointWatch(LIMITS, arm_joints=1, silent_s=0.25)
    for _ in range(AGREE):
        joint_watch.take(START, 10.0)
    return joint_watch


def test_the_first_positions_are_accepted_when_enough_agree():
    watch = JointWatch(LIMITS, 1, 0.25)
    assert watch.measured is None and watch.silent(0.0)
    assert [watch.take(START, 10.0 + i / 100) for i in range(AGREE)] == [False] * 4 + [True]
    assert watch.measured is START and watch.measured_s == 10.04


@pytest.mark.parametrize("joint", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("since_s", [0.0, 0.05, SINCE_S, 3.0])
def test_a_position_is_accepted_within_reach_of_the_last_one(watch, joint, sign, since_s):
    reach = 2.0 * LIMITS.velocity[joint] * min(since_s, SINCE_S) + STEP
    for fraction, accepted in ((1.01, False), (0.99, True)):
        position = START.copy()
        position[joint] += sign * fraction * reach
        assert watch.take(position, 10.0 + since_s) == accepted
        assert (watch.measured is position) == accepted


def test_a_position_from_before_the_last_one_may_only_be_near(watch):
    assert not watch.take(START + 1.1 * STEP, 9.0)
    assert watch.take(START + 0.9 * STEP, 9.0)


def test_grace_allows_a_joint_to_have_moved_further():
    watch = JointWatch(LIMITS, 1, 0.25, grace_s=[0.0, 0.5])
    for _ in range(AGREE):
        watch.take(START, 10.0)
    reach = 2.0 * LIMITS.velocity[1] * 0.5 + STEP
    assert not watch.take(START + np.array([0.0, 1.01 * reach]), 10.0)
    assert not watch.take(START + np.array([1.01 * STEP, 0.0]), 10.0)
    assert watch.take(START + np.array([0.0, 0.99 * reach]), 10.0)


def test_positions_that_jump_are_accepted_when_enough_agree_with_each_other(watch):
    jumped = START + 1.0
    accepted = [watch.take(jumped + 0.9 * STEP * (i % 2), 10.1) for i in range(AGREE)]
    assert accepted == [False] * (AGREE - 1) + [True]
    for i in range(3 * AGREE):  # each is far from the one before
        assert not watch.take(jumped + 1.0 + i, 10.2)


def test_positions_agree_if_the_arm_can_have_moved_from_one_to_the_next(watch):
    step = np.array([0.99, 0.99]) * (2.0 * LIMITS.velocity * 0.05 + STEP)
    positions = [START + 1.0 + i * step for i in range(AGREE)]
    assert [watch.take(x, 11.0 + 0.05 * i) for i, x in enumerate(positions)][-1]
    positions = [positions[-1] + 1.0 + 1.02 * i * step for i in range(2 * AGREE)]
    assert not any(watch.take(x, 12.0 + 0.05 * i) for i, x in enumerate(positions))


def test_an_accepted_position_resets_the_count_of_jumped_ones(watch):
    jumped = START + 1.0
    for _ in range(AGREE - 1):
        assert not watch.take(jumped, 10.1)
    assert watch.take(START, 10.1)
    assert not watch.take(jumped, 10.1)


@pytest.mark.parametrize("sign", [-1, 1])
def test_no_joint_is_beyond_the_farthest_position(sign):
    for position, accepted in ((FARTHEST, False), (0.99 * FARTHEST, True)):
        watch = JointWatch(LIMITS, 1, 0.25)
        assert [watch.take(np.array([0.0, sign * position]), 10.0) for _ in range(AGREE)][
            -1
        ] == accepted
    watch = JointWatch(LIMITS, 1, 0.25)
    assert not any(watch.take(np.array([0.0, np.nan]), 10.0) for _ in range(AGREE))


def test_it_is_silent_when_the_last_position_is_too_old_or_of_the_future(watch):
    assert not watch.silent(10.0) and not watch.silent(10.25)
    assert watch.silent(10.2501) and watch.silent(9.999)
    never = JointWatch(LIMITS, 1, 0.0)
    for _ in range(AGREE):
        never.take(START, 10.0)
    assert not never.silent(1e9)


def test_an_arm_stands_after_staying_near_one_position_for_long_enough(watch):
    assert not watch.stands(10.0 + 0.99 * STILL_S) and watch.stands(10.0 + 1.01 * STILL_S)
    for i in range(20):  # alternating about the first position, by less than STILL_RAD
        watch.take(START + np.array([0.9 * STILL_RAD * (-1) ** i, 0.0]), 10.0 + i / 100)
    assert watch.stands(10.21)
    watch.take(START + np.array([1.1 * STILL_RAD, 0.0]), 10.21)
    assert not watch.stands(10.4) and watch.stands(10.42)


def test_a_moving_gripper_does_not_count_as_motion_of_the_arm(watch):
    for i in range(5):
        watch.take(START + np.array([0.0, 0.05 * i]), 10.0 + i / 20)
    assert watch.stands(10.21)


def test_after_silence_or_a_rejected_position_the_arm_must_stand_again(watch):
    watch.take(START, 10.26)  # later than silent_s
    assert not watch.stands(10.45) and watch.stands(10.47)
    watch.take(START + 1.0, 10.47)  # rejected
    assert not watch.stands(99.0)
    watch.take(START, 10.5)
    assert not watch.stands(10.69) and watch.stands(10.71)
    watch.forget_rest()
    assert not watch.stands(99.0)
