"""Which joint states are believed: what the arm can have done, or several that agree."""

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
HERE = np.array([0.5, -0.5])


@pytest.fixture
def watch() -> JointWatch:
    """Believes HERE since 10 s."""
    made = JointWatch(LIMITS, arm_joints=1, silent_s=0.25)
    for _ in range(AGREE):
        made.take(HERE, 10.0)
    return made


def test_the_first_positions_are_believed_when_enough_agree():
    watch = JointWatch(LIMITS, 1, 0.25)
    assert watch.measured is None and watch.silent(0.0)
    assert [watch.take(HERE, 10.0 + i / 100) for i in range(AGREE)] == [False] * 4 + [True]
    assert watch.measured is HERE and watch.measured_s == 10.04


@pytest.mark.parametrize("joint", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("since_s", [0.0, 0.05, SINCE_S, 3.0])
def test_a_position_is_believed_within_reach_of_the_last_one(watch, joint, sign, since_s):
    reach = 2.0 * LIMITS.velocity[joint] * min(since_s, SINCE_S) + STEP
    for share, believed in ((1.01, False), (0.99, True)):
        place = HERE.copy()
        place[joint] += sign * share * reach
        assert watch.take(place, 10.0 + since_s) == believed
        assert (watch.measured is place) == believed


def test_a_position_from_before_the_last_one_may_only_be_near(watch):
    assert not watch.take(HERE + 1.1 * STEP, 9.0)
    assert watch.take(HERE + 0.9 * STEP, 9.0)


def test_grace_lets_a_joint_have_moved_further():
    watch = JointWatch(LIMITS, 1, 0.25, grace_s=[0.0, 0.5])
    for _ in range(AGREE):
        watch.take(HERE, 10.0)
    reach = 2.0 * LIMITS.velocity[1] * 0.5 + STEP
    assert not watch.take(HERE + np.array([0.0, 1.01 * reach]), 10.0)
    assert not watch.take(HERE + np.array([1.01 * STEP, 0.0]), 10.0)
    assert watch.take(HERE + np.array([0.0, 0.99 * reach]), 10.0)


def test_positions_that_jump_are_believed_when_enough_agree_with_each_other(watch):
    there = HERE + 1.0
    believed = [watch.take(there + 0.9 * STEP * (i % 2), 10.1) for i in range(AGREE)]
    assert believed == [False] * (AGREE - 1) + [True]
    for i in range(3 * AGREE):  # each is far from the one before
        assert not watch.take(there + 1.0 + i, 10.2)


def test_claims_agree_if_the_arm_can_have_moved_from_one_to_the_next(watch):
    step = np.array([0.99, 0.99]) * (2.0 * LIMITS.velocity * 0.05 + STEP)
    places = [HERE + 1.0 + i * step for i in range(AGREE)]
    assert [watch.take(x, 11.0 + 0.05 * i) for i, x in enumerate(places)][-1]
    places = [places[-1] + 1.0 + 1.02 * i * step for i in range(2 * AGREE)]
    assert not any(watch.take(x, 12.0 + 0.05 * i) for i, x in enumerate(places))


def test_a_believed_position_ends_a_claim(watch):
    there = HERE + 1.0
    for _ in range(AGREE - 1):
        assert not watch.take(there, 10.1)
    assert watch.take(HERE, 10.1)
    assert not watch.take(there, 10.1)


@pytest.mark.parametrize("sign", [-1, 1])
def test_no_joint_is_farther_than_the_farthest(sign):
    for place, believed in ((FARTHEST, False), (0.99 * FARTHEST, True)):
        watch = JointWatch(LIMITS, 1, 0.25)
        assert [watch.take(np.array([0.0, sign * place]), 10.0) for _ in range(AGREE)][
            -1
        ] == believed
    watch = JointWatch(LIMITS, 1, 0.25)
    assert not any(watch.take(np.array([0.0, np.nan]), 10.0) for _ in range(AGREE))


def test_silence_is_a_last_position_that_is_too_old_or_of_the_future(watch):
    assert not watch.silent(10.0) and not watch.silent(10.25)
    assert watch.silent(10.2501) and watch.silent(9.999)
    never = JointWatch(LIMITS, 1, 0.0)
    for _ in range(AGREE):
        never.take(HERE, 10.0)
    assert not never.silent(1e9)


def test_an_arm_stands_that_stayed_near_one_position_for_long_enough(watch):
    assert not watch.stands(10.0 + 0.99 * STILL_S) and watch.stands(10.0 + 1.01 * STILL_S)
    for i in range(20):  # to and fro about the first position, by less than STILL_RAD
        watch.take(HERE + np.array([0.9 * STILL_RAD * (-1) ** i, 0.0]), 10.0 + i / 100)
    assert watch.stands(10.21)
    watch.take(HERE + np.array([1.1 * STILL_RAD, 0.0]), 10.21)
    assert not watch.stands(10.4) and watch.stands(10.42)


def test_a_gripper_that_moves_does_not_keep_an_arm_from_standing(watch):
    for i in range(5):
        watch.take(HERE + np.array([0.0, 0.05 * i]), 10.0 + i / 20)
    assert watch.stands(10.21)


def test_after_silence_or_doubt_the_arm_must_stand_for_a_while_again(watch):
    watch.take(HERE, 10.26)  # later than silent_s
    assert not watch.stands(10.45) and watch.stands(10.47)
    watch.take(HERE + 1.0, 10.47)  # not believed
    assert not watch.stands(99.0)
    watch.take(HERE, 10.5)
    assert not watch.stands(10.69) and watch.stands(10.71)
    watch.forget_rest()
    assert not watch.stands(99.0)
