"""Frames compose and invert; rotation matrices, quaternions and angles agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wm_nodes.robots.arm.geometry.pose import SMALL, Pose, angles, matrix, text

ANGLES = [
    *itertools.product((-2.5, -0.4, 0.0, 1.1, 3.0), (-1.5, -0.6, 0.0, 0.7, 1.5), (-3, 0.2, 2))
]


def about(axis: int, angle: float) -> np.ndarray:
    """The rotation by an angle about x, y or z."""
    rotation = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation[[first, second], [first, second]] = np.cos(angle)
    rotation[second, first], rotation[first, second] = np.sin(angle), -np.sin(angle)
    return rotation


def of_angles(roll: float, pitch: float, yaw: float) -> np.ndarray:
    return about(2, yaw) @ about(1, pitch) @ about(0, roll)


@pytest.mark.parametrize("seed", range(8))
def test_a_quaternion_turns_vectors_by_its_angle_about_its_axis(seed):
    random = np.random.default_rng(seed)
    axis, angle = random.normal(size=3), random.uniform(-3, 3)
    axis /= np.linalg.norm(axis)
    v = random.normal(size=3)
    turned = matrix(np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)])) @ v
    rodrigues = v * np.cos(angle) + np.cross(axis, v) * np.sin(angle)
    rodrigues = rodrigues + axis * (axis @ v) * (1 - np.cos(angle))
    assert turned == pytest.approx(rodrigues, abs=1e-12)


@pytest.mark.parametrize(("roll", "pitch", "yaw"), ANGLES)
def test_angles_are_recovered_from_their_matrix(roll, pitch, yaw):
    assert angles(of_angles(roll, pitch, yaw)) == pytest.approx([roll, pitch, yaw], abs=1e-9)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
@pytest.mark.parametrize("roll", [-2.0, 0.0, 0.5, 3.0])
def test_straight_up_and_down_the_angles_give_the_same_matrix(pitch, roll):
    rotation = of_angles(roll, pitch, 0.8)
    result = angles(rotation)
    assert result[2] == 0.0 and of_angles(*result) == pytest.approx(rotation, abs=1e-9)


@pytest.mark.parametrize("offset", [5e-6, 1e-4])
def test_near_straight_up_yaw_is_still_determined(offset):
    expected = [0.3, np.pi / 2 - offset, -0.7]
    assert angles(of_angles(*expected)) == pytest.approx(expected, abs=1e-6)


def test_frames_compose_and_their_inverses_undo_them():
    first = Pose(np.array([1.0, -2.0, 3.0]), of_angles(0.3, -0.4, 2.0))
    second = Pose(np.array([-0.5, 0.7, 0.1]), of_angles(-1.0, 0.2, 0.6))
    point = np.array([0.2, 0.4, -0.9])
    composed = first @ second
    in_second = second.place + second.turn @ point
    assert composed.place + composed.turn @ point == pytest.approx(
        first.place + first.turn @ in_second
    )
    for identity in (first @ first.inverse(), first.inverse() @ first):
        assert identity.place == pytest.approx(np.zeros(3), abs=1e-12)
        assert identity.turn == pytest.approx(np.eye(3), abs=1e-12)
        assert identity.zero
    assert not first.zero


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_frame_is_zero_below_what_is_small(sign):
    for axis in range(3):
        translation = np.zeros(3)
        translation[axis] = sign * 0.9 * SMALL
        assert Pose(translation, np.eye(3)).zero
        translation[axis] = sign * 1.1 * SMALL
        assert not Pose(translation, np.eye(3)).zero
    rotation = np.eye(3)
    rotation[0, 1] = sign * 0.9 * SMALL
    assert Pose(np.zeros(3), rotation).zero
    rotation[0, 1] = sign * 1.1 * SMALL
    assert not Pose(np.zeros(3), rotation).zero


def test_numbers_are_written_in_the_format_of_urdf():
    assert text([-0.0, 1, 0.1, 1e-20, 1 / 3]) == "0 1 0.1 1e-20 0.333333333333333"
