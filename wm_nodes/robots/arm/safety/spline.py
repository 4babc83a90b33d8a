"""Uniform cubic B-splines: a path in continuous time from one control point per period.

Segment i runs from knot i to knot i+1 and is a weighted mean of control points i..i+3. The weights
are positive and sum to one, and the derivatives are weighted means of the first, second and third
differences of the control points. So a limit that all differences obey holds at any time (de Boor,
A Practical Guide to Splines, chapter X: the derivative of a B-spline).
"""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.safety.limits import Floats

KNOTS = 4  # control points of one segment
AT_KNOT = np.array([1.0, 4.0, 1.0]) / 6.0
AT_MIDDLE = np.array([1.0, 23.0, 23.0, 1.0]) / 48.0


def weights(u: float) -> Floats:
    """Return the weights (3, 4) of four control points in position, velocity and acceleration.

    u: time since the segment began, in periods, 0 to 1. Velocities are per period.
    """
    rest = 1.0 - u
    return np.array([
        [
            rest**3 / 6.0,
            (3.0 * u**3 - 6.0 * u**2 + 4.0) / 6.0,
            (-3.0 * u**3 + 3.0 * u**2 + 3.0 * u + 1.0) / 6.0,
            u**3 / 6.0,
        ],
        [-(rest**2) / 2.0, (3.0 * u**2 - 4.0 * u) / 2.0, (1.0 + 2.0 * u - 3.0 * u**2) / 2.0, u * u /
        2.0], [rest, 3.0 * u - 2.0, 1.0 - 3.0 * u, u],
    ])  # fmt: skip


def half_periods(points: Floats) -> Floats:
    """Return poses of the spline that goes on from its newest three control points to a rest.

    points (N, n): the newest three, then those to come, at rest at the last. The poses (2N - 1, n)
    begin at the end of the segment that is known already, are half a period apart, and end at rest.
    """
    padded = np.concatenate([points, points[-1:], points[-1:]])
    knots = AT_KNOT[0] * (padded[:-2] + padded[2:]) + AT_KNOT[1] * padded[1:-1]
    outer, inner = padded[:-3] + padded[3:], padded[1:-2] + padded[2:-1]
    poses = np.empty((len(knots) + len(inner), points.shape[1]))
    poses[::2] = knots
    poses[1::2] = AT_MIDDLE[0] * outer + AT_MIDDLE[1] * inner
    return poses


def continued(points: Floats, stop: Floats, u: float) -> tuple[Floats, Floats]:
    """Return positions and velocities per period (N, n) at 1..N periods from now, until rest.

    points (4, n): control points of the present segment; stop (M, n): those that follow.
    u: time since the segment began, in periods.
    """
    way = np.concatenate([points, stop, np.repeat((stop if len(stop) else points)[-1:], 3, axis=0)])
    at = weights(u)[:2]
    count = len(way) - KNOTS
    parts = np.stack([way[i + 1 : i + 1 + count] for i in range(KNOTS)])  # (4, N, n)
    place, speed = np.tensordot(at, parts, axes=1)
    place[-1], speed[-1] = way[-1], 0.0
    return place, speed
