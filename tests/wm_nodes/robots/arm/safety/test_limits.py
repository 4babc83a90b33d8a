"""Inconsistent limits are refused, and the error states the expected values."""

from __future__ import annotations

import numpy as np
import pytest

from wm_nodes.robots.arm.safety.limits import HAND_SPEED_M_S, MAX_HAND_SPEED_M_S, ArmLimits
from wm_nodes.robots.robot import SpecError

GOOD = {
    "joints": ("a", "b"),
    "low": [-1.0, -2.0],
    "high": [1.0, 2.0],
    "velocity": [1.0, 2.0],
    "acceleration": [3.0, 4.0],
    "jerk": [5.0, 6.0],
    "target_change": [0.1, 0.2],
    "box_low": [-1.0, -1.0, 0.0],
    "box_high": [1.0, 1.0, 1.0],
}
PAIRS = [("low", "high", "joints"), ("box_low", "box_high", "workspace")]
POSITIVE = ("velocity", "acceleration", "jerk", "target_change")


def test_good_limits_are_kept_as_arrays():
    limits = ArmLimits(**GOOD)
    for name, value in GOOD.items():
        if name != "joints":
            assert getattr(limits, name).tolist() == value
            assert getattr(limits, name).dtype == np.float64
    assert limits.hand_speed == HAND_SPEED_M_S and limits.continuous.tolist() == [False, False]
    with_continuous = ArmLimits(**GOOD, continuous=np.array([True, False]))
    assert with_continuous.continuous.tolist() == [True, False]


@pytest.mark.parametrize("name", [name for name in GOOD if name != "joints"])
@pytest.mark.parametrize("wrong", ["short", "long", "nan", "inf", "text", "nested"])
def test_each_field_needs_its_count_of_finite_numbers(name, wrong):
    value = list(GOOD[name])
    value = {
        "short": value[:-1],
        "long": [*value, 9.0],
        "nan": [*value[:-1], np.nan],
        "inf": [*value[:-1], np.inf],
        "text": ["x"] * len(value),
        "nested": [value],
    }[wrong]
    count, names = (3, "x, y, z") if name.startswith("box") else (2, "a, b")
    with pytest.raises(SpecError, match=rf"limits: {name}: .*{count} finite numbers \({names}\)"):
        ArmLimits(**GOOD | {name: value})


@pytest.mark.parametrize(("low", "high", "section"), PAIRS)
@pytest.mark.parametrize("index", [0, -1])
def test_each_low_is_below_its_high(low, high, section, index):
    value = list(GOOD[low])
    for bound in (GOOD[high][index], GOOD[high][index] + 0.5):
        value[index] = bound
        with pytest.raises(SpecError, match=f"limits: {section}: got a {low} not below its {high}"):
            ArmLimits(**GOOD | {low: value})
    value[index] = np.nextafter(GOOD[high][index], -9.0)
    ArmLimits(**GOOD | {low: value})


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("index", [0, 1])
def test_rates_are_above_zero(name, index):
    value = list(GOOD[name])
    for wrong in (0.0, -1.0):
        value[index] = wrong
        with pytest.raises(SpecError, match=f"limits: {name}: .* expected numbers above 0"):
            ArmLimits(**GOOD | {name: value})
    value[index] = 1e-9
    ArmLimits(**GOOD | {name: value})


def test_the_end_effectors_speed_has_a_range():
    for speed in (1e-9, MAX_HAND_SPEED_M_S):
        assert ArmLimits(**GOOD, hand_speed=speed).hand_speed == speed
    for speed in (0.0, -0.1, np.nextafter(MAX_HAND_SPEED_M_S, 9.0), np.nan):
        with pytest.raises(SpecError, match=r"hand_speed: .* expected above 0 to 2"):
            ArmLimits(**GOOD, hand_speed=speed)


def test_continuous_has_one_flag_per_joint():
    for flags in ([True], [True] * 3):
        with pytest.raises(SpecError, match=f"continuous: got {len(flags)}, expected 2 bools"):
            ArmLimits(**GOOD, continuous=np.array(flags))
