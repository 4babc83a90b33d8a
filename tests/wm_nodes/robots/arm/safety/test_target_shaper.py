"""Shaped targets: unchanged inside all limits, and just below each limit that they would break.

The arm here moves its end effector along x, y and z, one joint for each: all values are exact.
"""

from __future__ import annotations

import numpy as np
import pytest

from wm_nodes.robots.arm.safety.limits import ArmLimits
from wm_nodes.robots.arm.safety.motion_limits import MotionLimits
from wm_nodes.robots.arm.safety.target_shaper import (
    AHEAD_S,
    DAMPING,
    INWARD,
    NEAR,
    SLOW,
    WALL_M,
    TargetShaper,
    _solve,
    clipped,
)

PERIOD_S = 0.01


class Gantry:
    """Three joints that are the end effector's position; a link moves three times as far."""

    def positions(self, x):
        return np.asarray(x)

    def jacobian(self, x):
        return np.asarray(x, float), np.eye(3), None

    def links(self, x):
        return np.stack([x, 3.0 * x], axis=1)


class Stopping:
    velocity = np.array([0.5, 1.0, 1.0])
    longest_s = 0.2


def limits(**changes):
    defaults = {
        "joints": ("x", "y", "z"),
        "low": [-10.0] * 3,
        "high": [10.0] * 3,
        "velocity": [0.5, 1.0, 1.0],
        "acceleration": [1.0] * 3,
        "jerk": [1.0] * 3,
        "target_change": [1.0] * 3,
        "box_low": [-20.0] * 3,
        "box_high": [20.0] * 3,
        "hand_speed": 2.0,
    }
    return ArmLimits(**defaults | changes)


def make_shaper(longest_s=0.2, scale=1.0, **changes):
    arm_limits, stopping = limits(**changes), Stopping()
    stopping.longest_s = longest_s
    allowed = MotionLimits(arm_limits, Gantry(), PERIOD_S, None)
    shaper = TargetShaper(arm_limits, Gantry(), PERIOD_S, allowed, stopping)
    shaper.set_scale(scale)
    return shaper


def shape(shaper, x, target, slow=False):
    why: list[str] = []
    return shaper.shape(np.array(x, float), np.array(target, float), slow, why), why


def test_a_target_within_all_limits_is_unchanged():
    for target in ([0.1, -0.2, 0.3], [0.0, 0.0, 0.0], [-0.4, 0.9, 0.0]):
        v, why = shape(make_shaper(), [0, 0, 0], target)
        assert v.tolist() == target and why == []


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_joint_is_slowed_to_just_below_its_velocity_limit(sign):
    v, why = shape(make_shaper(), [0, 0, 0], [sign * 0.6, 0.1, 0.0])
    assert v == pytest.approx([sign * NEAR * 0.5, 0.1, 0.0]) and why == ["velocity"]


@pytest.mark.parametrize(("longest_s", "ahead_s"), [(0.2, 0.1 + AHEAD_S), (3.0, 0.8)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_joint_is_slowed_ahead_of_its_end(longest_s, ahead_s, sign):
    shaper = make_shaper(longest_s, low=[-1.0] * 3, high=[1.0] * 3)
    v, why = shape(shaper, [0, sign * 0.95, 0], [0.1, sign * 0.9, 0.0])
    assert v == pytest.approx([0.1, sign * 0.05 / ahead_s, 0.0]) and why == ["position"]
    reverse, why = shape(shaper, [0, sign * 0.95, 0], [0.1, sign * -0.9, 0.0])
    assert reverse.tolist() == [0.1, sign * -0.9, 0.0] and why == []
    v, why = shape(shaper, [0, sign * 1.05, 0], [0.0, sign * 0.9, 0.0])
    assert v.tolist() == [0.0, 0.0, 0.0] and why == ["position"]  # beyond its end


def test_when_degraded_all_speeds_are_scaled():
    v, why = shape(make_shaper(), [0, 0, 0], [0.4, -0.8, 0.0], slow=True)
    assert v == pytest.approx([0.4 * SLOW, -0.8 * SLOW, 0.0]) and why[0] == "slow"
    shaper = make_shaper(hand_speed=0.25)
    v, why = shape(shaper, [0, 0, 0], [0.4, 0.8, 0.8], slow=True)
    assert np.linalg.norm(v) == pytest.approx(NEAR * SLOW * shaper._speed)
    assert why == ["slow", "speed"]


def test_the_end_effector_is_slowed_in_its_direction():
    shaper = make_shaper(hand_speed=0.25)
    v, why = shape(shaper, [0, 0, 0], [0.3, 0.4, 0.0])
    assert v == pytest.approx(np.array([0.6, 0.8, 0.0]) * NEAR * 0.25 * 0.99)
    assert why == ["speed"]
    v, why = shape(shaper, [0, 0, 0], [0.12, 0.16, 0.1])
    assert v.tolist() == [0.12, 0.16, 0.1] and why == []


def test_a_scale_lowers_all_limits_and_counts_links():
    shaper = make_shaper(scale=0.5)
    v, why = shape(shaper, [0, 0, 0], [0.3, 0.0, 0.0])
    assert v == pytest.approx([NEAR * 0.25, 0.0, 0.0]) and why == ["velocity"]
    shaper = make_shaper(scale=0.5, hand_speed=0.5)
    v, why = shape(shaper, [0, 0, 0], [0.0, 0.2, 0.0])  # a link: 0.6 m/s
    assert v == pytest.approx([0.0, NEAR * 0.5 * 0.5 * 0.99 / 3.0, 0.0]) and why == ["speed"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_motion_into_a_wall_of_the_box_is_redirected_along_it(sign):
    """The wall is a little inside: BOX_INSIDE_M of the limits and WALL_M of the shaper."""
    shaper = make_shaper(box_low=[-1.0] * 3, box_high=[1.0] * 3)
    wall = float(shaper._inner_box[1, 0])
    assert wall == pytest.approx(1.0 - 2e-4 - WALL_M) and shaper._inner_box[0] == pytest.approx(
        -wall
    )
    ahead_s = 0.1 + AHEAD_S
    for inside in (0.05, 0.01, 0.0):
        v, why = shape(shaper, [0, sign * (wall - inside), 0], [0.1, sign * 0.5, 0.0])
        change = sign * (inside / ahead_s - 0.5)
        assert v == pytest.approx([0.1, sign * 0.5 + change / (1 + DAMPING), 0.0])
        assert why == ["workspace"]
    for beyond in (1e-3, 0.1):  # redirected inwards, by INWARD at most
        v, _ = shape(shaper, [0, sign * (wall + beyond), 0], [0.0, sign * 0.5, 0.0])
        target_speed = -sign * min(beyond / ahead_s, INWARD)
        assert v[1] == pytest.approx(sign * 0.5 + (target_speed - sign * 0.5) / (1 + DAMPING))


def test_walls_of_a_small_box_are_nearer():
    shaper = make_shaper(box_low=[-0.02] * 3, box_high=[0.02] * 3)
    assert shaper._inner_box[1] == pytest.approx([0.02 - 2e-4 - 0.1 * 0.04] * 3)


@pytest.mark.parametrize("seed", range(10))
def test_the_small_solver_equals_numpys(seed):
    random = np.random.default_rng(seed)
    jacobian, vector = random.normal(size=(3, 6)), random.normal(size=3)
    square = jacobian @ jacobian.T
    expected = np.linalg.solve(square + DAMPING * np.eye(3), vector)
    assert _solve(square, vector) == pytest.approx(expected, rel=1e-9)


def test_clipped_equals_numpys():
    value = np.linspace(-2, 2, 9)
    low, high = np.full(9, -1.0), np.full(9, 0.5)
    assert clipped(value, low, high).tolist() == np.clip(value, low, high).tolist()
