"""Joint states from partial, wrapped, incomplete and contradictory messages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.sensors.joint_readings import (
    RECENT_S,
    SMOOTHING_S,
    JointReadings,
    JointSources,
)

NAMES = ("a", "b", "grip")
HOME = np.array([0.0, 1.0, 0.0])
NAN = math.nan


def readings(continuous=(False,) * 3, home=HOME) -> JointReadings:
    return JointReadings(NAMES, home, continuous)


def test_joints_of_separate_messages_make_one_reading_with_the_age_of_the_oldest():
    merged = readings()
    assert merged.take(["a", "b"], [0.1, 0.2], [1.0, 2.0], 5.0, 0.0) is None
    assert merged.missing == ("grip",)
    first = merged.take(["grip"], [0.3], [3.0], 6.0, 0.0)
    assert first is not None and merged.missing == ()
    assert first.position.tolist() == [0.1, 0.2, 0.3]
    assert first.velocity.tolist() == [1.0, 2.0, 3.0]
    assert first.came_s == 5.0
    second = merged.take(["b", "a"], [0.5, 0.4], [0.0, 0.0], 7.0, 0.0)
    assert second is not None and second.number > first.number
    assert second.position.tolist() == [0.4, 0.5, 0.3]
    assert second.came_s == 6.0  # of the gripper
    assert first.position.tolist() == [0.1, 0.2, 0.3]  # readings do not change


def test_one_missing_joint_keeps_the_reading_old():
    merged = readings()
    merged.take(NAMES, [0.0] * 3, [], 1.0, 0.0)
    for step in range(100):
        newest = merged.take(["a", "b"], [0.0] * 2, [], 1.0 + step, 0.0)
    assert newest is not None and newest.came_s == 1.0


def test_order_and_other_joints_of_a_message_do_not_matter():
    reading = readings().take(["x", "grip", "b", "a"], [9.0, 3.0, 2.0, 1.0], [], 0.0, 0.0)
    assert reading is not None and reading.position.tolist() == [1.0, 2.0, 3.0]


def test_messages_of_other_devices_are_ignored():
    merged = readings()
    before = merged.take(NAMES, [0.1] * 3, [], 0.0, 0.0)
    assert merged.take(["x", "x"], [NAN], [1.0] * 7, 1.0, 0.0) is None
    after = merged.take(NAMES, [0.1] * 3, [], 2.0, 0.0)
    assert before is not None and after is not None and after.number == before.number + 1


@pytest.mark.parametrize(
    ("names", "position", "velocity", "reason"),
    [
        (["a", "a", "b"], [0.0] * 3, [], "names"),
        (["a", "b"], [0.0], [], "size"),
        (["a", "b"], [0.0] * 3, [], "size"),
        (["a", "b"], [], [], "size"),
        (["a", "b"], [0.0] * 2, [0.0], "size"),
        (["a", "b"], [0.0, NAN], [], "non-finite"),
        (["a", "b"], [0.0, math.inf], [], "non-finite"),
        (["a", "b"], [0.0, 1e300], [], "non-finite"),
    ],
)
def test_a_wrong_message_is_refused_as_a_whole(names, position, velocity, reason):
    merged = readings()
    before = merged.take(NAMES, [0.1] * 3, [0.0] * 3, 0.0, 0.0)
    with pytest.raises(MessageError) as error:
        merged.take(names, position, velocity, 1.0, 0.0)
    assert error.value.reason == reason and "expected" in str(error.value)
    after = merged.take(["grip"], [0.1], [0.0], 2.0, 0.0)
    assert before is not None and after is not None
    assert after.position.tolist() == before.position.tolist() and after.came_s == 0.0


def test_nan_of_another_joint_is_no_fault():
    assert readings().take([*NAMES, "x"], [0.0, 0.0, 0.0, NAN], [], 0.0, 0.0) is not None


@pytest.mark.parametrize("velocity", [[], [NAN] * 3, [NAN, 0.5, math.inf]])
@pytest.mark.parametrize("stamped", [True, False])
def test_missing_and_nan_velocities_are_computed_from_positions(velocity, stamped):
    merged, period = readings(), 0.01
    for step in range(200):
        position = [0.5 * step * period] * 3
        # arrival times jitter, stamps do not
        received_s = step * period + (0.009 * (step % 2) if stamped else 0.0)
        stamp = 1e9 + step * period if stamped else 0.0
        reading = merged.take(NAMES, position, velocity, received_s, stamp)
    assert reading is not None
    np.testing.assert_allclose(reading.velocity, 0.5, rtol=1e-3)


def test_computed_velocities_of_a_resting_arm_are_far_below_the_noise_differentiated():
    merged, random = readings(), np.random.default_rng(0)
    speeds = []
    for step in range(1000):
        reading = merged.take(NAMES, random.normal(0.0, 5e-4, 3), [], 0.01 * step, 0.0)
        assert reading is not None
        speeds.append(reading.velocity)
    raw = 5e-4 * math.sqrt(2) / 0.01
    assert np.abs(speeds).max() < raw < 4 * raw * 0.01 / SMOOTHING_S * 5
    assert np.std(speeds[100:]) < raw / 3


def test_a_repeated_message_and_a_burst_do_not_change_computed_velocities_much():
    merged = readings()
    for step in range(100):
        merged.take(NAMES, [0.01 * step] * 3, [], 0.01 * step, 0.0)
    repeated = merged.take(NAMES, [0.99] * 3, [], 0.99, 0.0)
    burst = merged.take(NAMES, [0.9901] * 3, [], 0.99 + 1e-6, 0.0)
    assert repeated is not None and burst is not None
    np.testing.assert_allclose(repeated.velocity, 1.0, rtol=1e-3)
    np.testing.assert_allclose(burst.velocity, 1.0, rtol=1e-2)


def test_wrapped_angles_of_continuous_joints_are_unwrapped():
    merged = readings(continuous=(True, False, False))
    angles = np.linspace(0.0, 20.0, 400)
    for step, angle in enumerate(angles):
        wrapped = math.remainder(angle, 2 * math.pi)
        reading = merged.take(NAMES, [wrapped, wrapped, 0.0], [], 0.01 * step, 0.0)
        assert reading is not None
        assert reading.position[0] == pytest.approx(angle, abs=1e-9)
        assert reading.position[1] == wrapped  # not continuous: as reported
        assert abs(reading.velocity[0]) < 10.0


@pytest.mark.parametrize(
    ("home", "reported", "expected"),
    [
        (0.0, 3.0, 3.0),
        (3.0, -3.0, -3.0 + 2 * math.pi),
        (-3.0, 3.0, 3.0 - 2 * math.pi),
        (6.0, 0.1, 0.1 + 2 * math.pi),
        (0.0, 7.0, 7.0),  # beyond one turn: the driver counts turns itself
    ],
)
def test_the_first_angle_is_on_the_turn_nearest_to_home(home, reported, expected):
    merged = readings((True, False, False), np.array([home, 0.0, 0.0]))
    reading = merged.take(NAMES, [reported, 0.0, 0.0], [], 0.0, 0.0)
    assert reading is not None and reading.position[0] == pytest.approx(expected)


ARM = ("a", "b")


@pytest.mark.parametrize("identified", [True, False])
def test_devices_of_disjoint_joints_may_share_a_topic(identified):
    sources = JointSources(NAMES)
    for step in range(10):
        sources.note(b"1" if identified else b"", ARM, 0.1 * step)
        sources.note(b"2" if identified else b"", ["grip"], 0.1 * step)
        sources.note(b"3" if identified else b"", ["other"], 0.1 * step)
    assert sources.shared(3, 1.0) == ()
    assert sources.senders(1.0) == (frozenset({b"1", b"2"}) if identified else frozenset())


def test_two_identified_publishers_of_one_joint_are_detected_until_one_ends():
    sources = JointSources(NAMES)
    sources.note(b"1", NAMES, 0.0)
    sources.note(b"2", ["b"], 0.1)
    sources.note(b"1", NAMES, 0.2)
    assert sources.shared(2, 0.2) == ("b",)
    for step in range(40):
        sources.note(b"1", NAMES, 0.3 + 0.1 * step)
    assert sources.shared(2, 0.1 + RECENT_S + 0.1) == ()


def test_a_publisher_that_takes_over_from_one_that_ended_is_no_second_one():
    sources = JointSources(NAMES)
    for step in range(10):
        sources.note(b"1", NAMES, 0.1 * step)
    for step in range(10):
        sources.note(b"2", NAMES, 1.0 + 0.1 * step)
    assert sources.shared(2, 1.9) == ()


@pytest.mark.parametrize(
    ("name_sets", "publishers", "valid"),
    [
        ([NAMES], 1, True),
        ([NAMES], 2, False),
        ([ARM, ("grip",)], 2, True),
        ([ARM, ("grip",)], 3, False),
        ([NAMES, ("grip",)], 2, False),
        ([], 2, False),
    ],
)
def test_unidentified_publishers_are_distinguished_by_their_joint_names(
    name_sets, publishers, valid
):
    sources = JointSources(NAMES)
    for names in name_sets:
        sources.note(b"", names, 0.0)
    assert (sources.shared(publishers, 0.1) == ()) == valid


def test_any_number_of_name_sets_is_kept_in_bounded_memory():
    sources = JointSources(NAMES)
    for number in range(10_000):
        sources.note(b"", [f"x{number}"], 0.0)
    assert len(sources._sent) < 1000
