"""Stopping: a family of finite, linear stopping motions in discrete time.

A command is a position per control period; velocity, acceleration and jerk are its backward
differences: v_k = (x_k - x_{k-1}) / dt, and so on. From the state (x, v, a) a motion of the family
stops in N periods: the acceleration a is led to zero along a linear ramp r of m periods, and the
velocity that is then left, v* = v + a dt sum(r), is taken away along a trapezoid t of area one,
which begins after d periods:

    a_k = a r_k - v* t_k,   r_0 = 1, r_m = 0,   dt sum(t) = 1,   t_d = t_{N+1} = 0

Everything about it is linear in v and a, so a whole motion of all joints is one product; all joints
stop together, so the end effector stays near its path. The family holds many lengths of the
trapezoid, each with several ramps. The shortest motion within the limits of acceleration and jerk
is taken.

Both r and t are piecewise linear, so the largest acceleration and jerk of a motion occur at a few
known periods. Their values there are compared with the limits, which is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.robot import SpecError

SHORTEST = 2
GROWTH = 1.1  # of the trapezoid's periods, from one length to the next
LONGEST_S = 2.0
SHARE = 0.5  # of acceleration and jerk with which full speed must be stopped within LONGEST_S


@dataclass(frozen=True)
class Motion:
    """One member of the family: N periods; what v and a contribute at the end of each."""

    periods: int
    pulls: Floats  # (2, 2): largest accelerations, each as shares of (v, a)
    edges: Floats  # (3, 2): largest changes of acceleration per period, likewise
    shares: Floats  # (3 (N + 1), 2): of v and of a in x - x_0, v, a; now and after each period


@dataclass(frozen=True)
class Stop:
    """A stopping motion of all joints: state at the end of each of N periods, all (N, n)."""

    x: Floats
    v: Floats
    a: Floats

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def none(cls, joints: int) -> Stop:
        """Return the stop of an arm that stands: no periods."""
        empty = np.zeros((0, joints))
        return cls(empty, empty, empty)


class StoppingMotions:
    """The family for one arm and control period dt [s].

    velocity (n,): velocity limits [rad/s], lowered to what is stopped within LONGEST_S.
    longest_s: time that the longest motion takes [s].
    """

    def __init__(self, limits: ArmLimits, dt: float) -> None:
        self.dt, self._limits = dt, limits
        # Periods in which jerk builds up full acceleration, of the joint that needs most.
        self._rise = max(1, math.ceil(float((limits.acceleration / limits.jerk).max()) / dt - 1e-9))
        lengths = self._lengths()
        # A joint that cannot stop from its own limit within LONGEST_S may not go so fast.
        self.velocity = np.minimum(limits.velocity, self._stoppable(lengths[-1]))
        if not (self.velocity > 0).all():
            raise SpecError(
                f"limits: jerk: got one too low to stop within {LONGEST_S} s, expected a higher "
                "limit. Raise jerk."
            )
        self._motions = self._family(lengths)
        self.longest_s = self._motions[-1].periods * dt
        # (2, 2 M) and (2, 3 M) of M motions: shares of v and a in acceleration and its changes
        self._pulls = _side_by_side([motion.pulls for motion in self._motions])
        self._edges = _side_by_side([motion.edges for motion in self._motions])
        n, count = len(limits.joints), len(self._motions)
        self._per_pull = 1.0 / limits.acceleration[:, None]
        self._per_edge = 1.0 / (dt * limits.jerk[:, None])
        self._state = np.empty((2, n))
        self._used = np.empty((5 * n, count))  # shares of the limits, and views of its two parts
        self._used_pulls = self._used[: 2 * n].reshape(n, -1)
        self._used_edges = self._used[2 * n :].reshape(n, -1)

    def stop(self, x: Floats, v: Floats, a: Floats) -> Floats | None:
        """Return the shortest motion that stops from here within acceleration and jerk.

        (3, N + 1, n): positions, velocities, accelerations, now and at the end of each period.
        """
        self._state[0], self._state[1] = v, a
        np.dot(self._state.T * self._per_pull, self._pulls, out=self._used_pulls)
        np.dot(self._state.T * self._per_edge, self._edges, out=self._used_edges)
        most = np.maximum.reduce(np.abs(self._used, out=self._used))
        index = int((most <= 1.0).argmax())
        if not most[index] <= 1.0:
            return None
        motion = self._motions[index]
        way: Floats = np.dot(motion.shares, self._state).reshape(3, motion.periods + 1, -1)
        way[0] += x
        return way

    def _lengths(self) -> list[int]:
        """Return lengths of the trapezoid, up to the first that stops every joint at full speed."""
        lengths = [SHORTEST]
        while not (self._stoppable(lengths[-1]) >= self._limits.velocity).all():
            longer = max(lengths[-1] + 1, round(lengths[-1] * GROWTH))
            longer = min(longer, math.floor(LONGEST_S / self.dt + 1e-9))
            if longer <= lengths[-1]:
                break
            lengths.append(longer)
        return lengths

    def _family(self, lengths: list[int]) -> list[Motion]:
        """Return the motions of all lengths with all ramps, the shortest first."""
        full, half = self._rise, (self._rise + 1) // 2
        ramps = {(full, 0), (full, full), (half, 0), (half, half), (full + half, half)}
        motions = []
        for length in lengths:
            rise = min(self._rise, (length + 1) // 2)
            for ramp, begin in sorted(ramps):
                if ramp <= begin + length + 1 - rise:
                    motions.append(_motion(length, rise, ramp, begin, self.dt))
        return sorted(motions, key=lambda motion: motion.periods)

    def _stoppable(self, length: int) -> Floats:
        """Return the velocities (n,) that this length stops with SHARE of the limits."""
        rise = min(self._rise, (length + 1) // 2)
        area = (length + 1 - rise) * self.dt
        pull = np.minimum(self._limits.acceleration, rise * self.dt * self._limits.jerk)
        return np.asarray(SHARE * area * pull)


def _side_by_side(shares: list[Floats]) -> Floats:
    """Return (2, K M) of M arrays (K, 2), the K ones of a motion M apart."""
    return np.ascontiguousarray(np.stack(shares, axis=-1).transpose(1, 0, 2).reshape(2, -1))


def _motion(length: int, rise: int, ramp: int, begin: int, dt: float) -> Motion:
    """Return the motion with a trapezoid of `length` periods that begins after `begin` periods.

    rise: periods of each flank of the trapezoid; ramp: periods in which a is led to zero, at
    most until the second flank begins.
    """
    periods = begin + length
    k = np.arange(1, periods + 1)
    bump = np.minimum(np.minimum(k - begin, periods + 1 - k), rise).clip(0).astype(np.float64)
    bump /= bump.sum() * dt
    slope = np.maximum(0.0, 1.0 - k / ramp)
    drop = float(slope.sum() * dt)
    a_v, a_a = -bump, slope - drop * bump
    v_v, v_a = 1.0 + dt * np.cumsum(a_v), dt * np.cumsum(a_a)
    v_v[-1] = v_a[-1] = 0.0  # but for rounding they are
    x_v, x_a = dt * np.cumsum(v_v), dt * np.cumsum(v_a)
    shares = np.zeros((3, periods + 1, 2))
    shares[0, 1:], shares[1, 1:] = np.stack([x_v, x_a], 1), np.stack([v_v, v_a], 1)
    shares[2, 1:] = np.stack([a_v, a_a], 1)
    shares[1, 0, 0] = shares[2, 0, 1] = 1.0
    left = np.array([1.0, drop])  # v*
    peak, edge = float(bump.max()), float(bump.max()) / rise
    ramped = np.array([0.0, 1.0 / ramp])
    pulls = np.stack([-peak * left, shares[2, begin + rise]])
    edges = np.stack([edge * left, ramped, edge * left + ramped * (begin < ramp)])
    return Motion(periods, pulls, edges, shares.reshape(-1, 2))
