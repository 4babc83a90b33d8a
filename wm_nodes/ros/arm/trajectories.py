"""Trajectory messages as joint_trajectory_controller requires them."""

from __future__ import annotations

import numpy as np
from trajectory_msgs.msg import JointTrajectoryPoint

from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.ros import messages

POINTS = 21  # of a message


def trajectory_points(
    setpoint: Setpoint, joints: slice, rate_hz: float
) -> list[JointTrajectoryPoint]:
    """Return the points of a setpoint's stop for some of its joints, at most POINTS.

    Times are whole control periods from now and strictly increase; the last velocity is exactly
    zero, as joint_trajectory_controller requires. Without a stop the one point is the position.
    """
    count, rest = len(setpoint.stop), np.zeros_like(setpoint.position[joints])
    if not count:
        return [_point(setpoint.position[joints], rest, 1, rate_hz)]
    kept = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)).tolist()
    last = kept.pop()
    points = [
        _point(setpoint.stop.x[at, joints], setpoint.stop.v[at, joints], at + 1, rate_hz)
        for at in kept
    ]
    return [*points, _point(setpoint.stop.x[last, joints], rest, last + 1, rate_hz)]


def _point(position: Floats, velocity: Floats, period: int, rate_hz: float) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint(positions=position.tolist(), velocities=velocity.tolist())
    due = round(period * messages.SECOND_NS / rate_hz)
    start = point.time_from_start
    start.sec, start.nanosec = divmod(due, messages.SECOND_NS)
    return point
