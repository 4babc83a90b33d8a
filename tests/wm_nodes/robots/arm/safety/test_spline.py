"""The spline is the uniform cubic B-spline of its control points, and its limits are theirs."""

from __future__ import annotations

import numpy as np
import pytest

from wm_nodes.robots.arm.safety.spline import continued, half_periods, weights

BASIS = np.array([[-1, 3, -3, 1], [3, -6, 3, 0], [-3, 0, 3, 0], [1, 4, 1, 0]]) / 6  # de Boor
TIMES = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0]


def powers(u: float) -> np.ndarray:
    """Powers of u, and their first two derivatives."""
    return np.array([[u**3, u**2, u, 1], [3 * u**2, 2 * u, 1, 0], [6 * u, 2, 0, 0]])


def on_spline(points: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Position and velocity on the spline of these control points; the last one lasts."""
    first = int(time)
    rows = [points[min(first + i, len(points) - 1)] for i in range(4)]
    position, speed, _ = powers(time - first) @ BASIS @ np.array(rows)
    return position, speed


@pytest.mark.parametrize("u", TIMES)
def test_the_weights_are_the_basis_of_cubic_b_splines(u):
    assert weights(u) == pytest.approx(powers(u) @ BASIS, abs=1e-15)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_half_periods_are_poses_of_the_continued_spline(count):
    points = np.random.default_rng(count).normal(size=(count, 2))
    poses = half_periods(points)
    expected = [on_spline(points, 0.5 * i)[0] for i in range(2 * count - 1)]
    assert poses == pytest.approx(np.array(expected), abs=1e-12)
    assert poses[-1] == pytest.approx(points[-1], abs=1e-12)


@pytest.mark.parametrize("u", TIMES[:-1])
@pytest.mark.parametrize("follow", [0, 1, 5])
def test_a_path_continues_to_its_rest(u, follow):
    points = np.random.default_rng(follow).normal(size=(4 + follow, 2))
    positions, speeds = continued(points[:4], points[4:], u)
    assert len(positions) == len(speeds) == follow + 3
    for i in range(follow + 2):
        position, speed = on_spline(points, i + 1 + u)
        assert positions[i] == pytest.approx(position, abs=1e-12)
        assert speeds[i] == pytest.approx(speed, abs=1e-12)
    assert (positions[-1] == points[-1]).all() and not speeds[-1].any()
