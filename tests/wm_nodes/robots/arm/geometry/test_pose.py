"""Frames compose and invert; rotation matrices, quaternions and angles say the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wm_nodes.robots.arm.geometry.pose import SMALL, Pose, angles, matrix, text

TURNS = [*itertools.product((-2.5, -0.4, 0.0, 1.1, 3.0), (-1.5, -0.6, 0.0, 0.7, 1.5), (-3, 0.2, 2))]


def about(axis: int, angle: float) -> np.ndarray:
    """The rotation by an angle about x, y or z."""
    turn = np.eye(3)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn[[one, two], [one, two]] = np.cos(angle)
    turn[two, one], turn[one, two] = np.sin(angle), -np.sin(angle)
    return turn


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


@pytest.mark.parametrize(("roll", "pitch", "yaw"), TURNS)
def test_angles_are_those_that_the_matrix_was_made_of(roll, pitch, yaw):
    assert angles(of_angles(roll, pitch, yaw)) == pytest.approx([roll, pitch, yaw], abs=1e-9)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
@pytest.mark.parametrize("roll", [-2.0, 0.0, 0.5, 3.0])
def test_straight_up_and_down_the_angles_give_the_same_matrix(pitch, roll):
    turn = of_angles(roll, pitch, 0.8)
    found = angles(turn)
    assert found[2] == 0.0 and of_angles(*found) == pytest.approx(turn, abs=1e-9)


@pytest.mark.parametrize("off", [5e-6, 1e-4])
def test_near_straight_up_yaw_is_still_known(off):
    given = [0.3, np.pi / 2 - off, -0.7]
    assert angles(of_angles(*given)) == pytest.approx(given, abs=1e-6)


def test_frames_compose_and_their_inverses_undo_them():
    one = Pose(np.array([1.0, -2.0, 3.0]), of_angles(0.3, -0.4, 2.0))
    two = Pose(np.array([-0.5, 0.7, 0.1]), of_angles(-1.0, 0.2, 0.6))
    point = np.array([0.2, 0.4, -0.9])
    both = one @ two
    in_two = two.place + two.turn @ point
    assert both.place + both.turn @ point == pytest.approx(one.place + one.turn @ in_two)
    for undone in (one @ one.inverse(), one.inverse() @ one):
        assert undone.place == pytest.approx(np.zeros(3), abs=1e-12)
        assert undone.turn == pytest.approx(np.eye(3), abs=1e-12)
        assert undone.zero
    assert not one.zero


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_frame_is_zero_below_what_is_small(sign):
    for axis in range(3):
        place = np.zeros(3)
        place[axis] = sign * 0.9 * SMALL
        assert Pose(place, np.eye(3)).zero
        place[axis] = sign * 1.1 * SMALL
        assert not Pose(place, np.eye(3)).zero
    turn = np.eye(3)
    turn[0, 1] = sign * 0.9 * SMALL
    assert Pose(np.zeros(3), turn).zero
    turn[0, 1] = sign * 1.1 * SMALL
    assert not Pose(np.zeros(3), turn).zero


def test_numbers_are_written_as_urdf_has_them():
    assert text([-0.0, 1, 0.1, 1e-20, 1 / 3]) == "0 1 0.1 1e-20 0.333333333333333"
