"""Shaping of target velocities: slowed near limits, led along walls of the box.

It is no safety measure: it makes refusals by the check of the path rare.
"""

from __future__ import annotations

import math

import numpy as np

from wm_nodes.robots.arm.safety.interfaces import ForwardKinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.motion_limits import MotionLimits
from wm_nodes.robots.arm.safety.stopping import StoppingMotions

AHEAD_S = 0.17  # added to half of the longest stop: how far ahead of a limit the target is slowed
NEAR = 0.97  # share of a speed limit that is aimed at
SLOW = 0.25  # of all speeds while degraded
DAMPING = 1e-3
WALL_M = 0.008  # this near to a wall of the box, motion along it is led inwards: joints make arcs
INWARD = 0.02  # m/s at most


class TargetShaper:
    """Shapes target joint velocities (n,) of one arm. `set_scale` before the first target."""

    def __init__(
        self,
        limits: ArmLimits,
        kinematics: ForwardKinematics,
        period_s: float,
        allowed: MotionLimits,
        stopping: StoppingMotions,
    ) -> None:
        self._kinematics, self._period_s = kinematics, period_s
        self._speed, self._velocity = allowed.speed, stopping.velocity
        self._ahead_s = min(0.5 * stopping.longest_s + AHEAD_S, 0.8)
        self._ends = np.stack([limits.low, limits.high])
        self._still = np.zeros(len(limits.joints))
        edge = np.minimum(WALL_M, 0.1 * (limits.box_high - limits.box_low))
        self._inner_box = allowed.box + np.stack([edge, -edge])

    def shape(self, x: Floats, target: Floats, slow: bool, why: list[str]) -> Floats:
        """Return a velocity near `target` (n,) that is likely to be allowed at joints x (n,).

        slow: while degraded. Interventions are added to `why`.
        """
        if not np.count_nonzero(target):
            return target
        if slow:
            why.append("slow")
            target = target * SLOW
        room = (self._ends - x) / self._ahead_s
        room = clipped(room, self._slowest, self._fastest)
        v = clipped(target, room[0], room[1])
        if np.count_nonzero(np.abs(v - target) > 1e-9):
            self._add_reasons(target, v, room, why)
        place, jacobian, _ = self._kinematics.jacobian(x)
        velocity = jacobian @ v
        low, high = (self._inner_box - place) / self._ahead_s
        along = clipped(velocity, np.minimum(low, INWARD), np.maximum(high, -INWARD))
        off = along - velocity
        if np.count_nonzero(np.abs(off) > 1e-6):
            why.append("workspace")
            v = clipped(v + jacobian.T @ _solve(jacobian @ jacobian.T, off), room[0], room[1])
            velocity = jacobian @ v
        speed = math.sqrt(velocity @ velocity)
        if self._scale < 1.0:
            speed = max(speed, self._link_speed(x, v))
        most = NEAR * self._speed * min(self._scale, SLOW if slow else 1.0)
        if speed > most:
            why.append("speed")
            v = v * (most / speed)
        return v

    def set_scale(self, scale: float) -> None:
        """Keep targets below `scale` x the limits."""
        self._scale = scale
        self._most = NEAR * self._scale * self._velocity
        self._slowest = np.stack([-self._most, self._still])  # of both ends, (2, n)
        self._fastest = np.stack([self._still, self._most])

    def _link_speed(self, x: Floats, v: Floats) -> float:
        """Return the speed of the fastest link [m/s] at joint velocities v (n,)."""
        dt = self._period_s
        pair = self._kinematics.links(np.stack([x - 0.5 * dt * v, x + 0.5 * dt * v]))
        return float(np.sqrt(((pair[1] - pair[0]) ** 2).sum(axis=-1).max())) / dt

    def _add_reasons(self, asked: Floats, kept: Floats, room: Floats, why: list[str]) -> None:
        """Add what slowed the joints down: their velocity limits, or position limits ahead."""
        changed = np.abs(kept - asked) > 1e-9
        if (changed & (np.abs(asked) > self._most)).any():
            why.append("velocity")
        if (changed & ((room[1] < self._most) | (room[0] > -self._most))).any():
            why.append("position")


def clipped(value: Floats, low: Floats, high: Floats) -> Floats:
    """Do what np.clip does, in a third of its time for a few numbers."""
    inside: Floats = np.minimum(np.maximum(value, low), high)
    return inside


def _solve(square: Floats, right: Floats) -> Floats:
    """Solve (square + DAMPING) y = right, 3 by 3 and symmetric: numpy's solver takes 8 µs."""
    (a, b, c), (_, d, e), (_, _, f) = square.tolist()
    x, y, z = right.tolist()
    a, d, f = a + DAMPING, d + DAMPING, f + DAMPING
    aa, bb, cc = d * f - e * e, c * e - b * f, b * e - c * d  # cofactors
    dd, ee, ff = a * f - c * c, b * c - a * e, a * d - b * b
    part = 1.0 / (a * aa + b * bb + c * cc)
    return np.array([
        part * (aa * x + bb * y + cc * z),
        part * (bb * x + dd * y + ee * z),
        part * (cc * x + ee * y + ff * z),
    ])  # fmt: skip
