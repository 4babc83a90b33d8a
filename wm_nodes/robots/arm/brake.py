"""Stopping: a family of finite, linear stopping motions in discrete time.

A command is a position per control period; velocity, acceleration and jerk are its backward
differences: v_k = (x_k - x_{k-1}) / dt, and so on. From the state (x, v, a) a motion of the family
stops in N periods: the acceleration a is led to zero along a ramp r, and the velocity that is then
left, v* = v + a dt sum(r), is taken away along a bump t of area one:

    a_k = a r_k - v* t_k,   r_0 = 1, r_N = 0,   dt sum(t) = 1,   t_0 = t_{N+1} = 0

Everything about it is linear in v and a, so a whole motion of all joints is two products; all
joints stop together, hence the hand stays near its path. A short motion suits a slow arm, a long
one a fast arm: the shortest that keeps acceleration and jerk within their limits is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_nodes.robots.arm.limits import ArmLimits, Floats
from wm_nodes.robots.base import SpecError

SHORTEST = 2
GROWTH = 1.35  # of the number of periods, from one motion of the family to the next
LONGEST_S = 2.0
SHARE = 0.5  # of acceleration and jerk that stopping from full speed may need: the rest is for `a`


@dataclass(frozen=True)
class Motion:
    """One member of the family: N periods; what v and a contribute at the end of each."""

    periods: int
    drop: float  # v* = v + drop * a
    peak: float  # largest |t|  [1/s]
    edge: float  # largest change of t per period [1/s]
    ramp_edge: float  # largest change of r per period
    shares: Floats  # (3 (N + 1), 2): of v and of a in x - x_0, v, a; now and after each period


@dataclass(frozen=True)
class Stop:
    """A stopping motion of all joints: state at the end of each of N periods, all (N, n)."""

    x: Floats
    v: Floats
    a: Floats

    def __len__(self) -> int:
        return len(self.x)


class Brake:
    """The family for one arm and control period dt [s]."""

    def __init__(self, limits: ArmLimits, dt: float) -> None:
        self.dt, self._limits = dt, limits
        self._motions = self._family()
        self._drop = np.array([m.drop for m in self._motions])[:, None]
        # What one unit of v* and of a uses of a joint's jerk and acceleration: (motions, 2, n)
        self._of_v = np.stack([
            [m.edge / dt / limits.jerk, m.peak / limits.acceleration] for m in self._motions
        ])  # fmt: skip
        self._of_a = np.stack([
            [m.ramp_edge / dt / limits.jerk, 1.0 / limits.acceleration] for m in self._motions
        ])  # fmt: skip
        self._state = np.empty((2, len(limits.joints)))
        self.longest_s = self._motions[-1].periods * dt
        # A joint that cannot stop from its own limit within LONGEST_S may not go so fast.
        self.velocity = np.minimum(limits.velocity, self._stoppable(self._motions[-1]))
        if not (self.velocity > 0).all():
            raise SpecError(
                f"limits: jerk is too low to stop within {LONGEST_S} s. Right: more jerk."
            )

    def stop(self, x: Floats, v: Floats, a: Floats) -> Floats | None:
        """Return the shortest motion that stops from here within acceleration and jerk.

        (3, N + 1, n): positions, velocities, accelerations, now and at the end of each period.
        """
        used = np.abs(v + self._drop * a)[:, None] * self._of_v
        used += np.abs(a) * self._of_a
        most = np.maximum.reduce(used.reshape(len(used), -1), axis=1)
        index = int((most <= 1.0).argmax())
        if not most[index] <= 1.0:
            return None
        self._state[0], self._state[1] = v, a
        motion = self._motions[index]
        way: Floats = np.dot(motion.shares, self._state).reshape(3, motion.periods + 1, -1)
        way[0] += x
        return way

    def _family(self) -> list[Motion]:
        """Return motions from the shortest to the first that stops every joint at full speed."""
        motions: list[Motion] = []
        periods = SHORTEST
        while not motions or (periods * self.dt <= LONGEST_S and not self._suffices(motions[-1])):
            motions.append(_motion(periods, self.dt))
            periods = max(periods + 1, round(periods * GROWTH))
        return motions

    def _suffices(self, motion: Motion) -> bool:
        return bool((self._stoppable(motion) >= self._limits.velocity).all())

    def _stoppable(self, motion: Motion) -> Floats:
        """Return the velocities (n,) that this motion stops with the usual acceleration left."""
        limits, dt = self._limits, self.dt
        pull = SHARE * limits.acceleration
        jerk = np.maximum(limits.jerk - pull * motion.ramp_edge / dt, 0.0)
        return np.minimum(pull / motion.peak, jerk * dt / motion.edge)


def _motion(periods: int, dt: float) -> Motion:
    """Return the motion of N periods: a trapezoid bump, and a ramp over half of them."""
    k = np.arange(1, periods + 1)
    rise = max(1, (periods + 1) // 3)
    bump = np.minimum(np.minimum(k, periods + 1 - k), rise).astype(np.float64)
    bump /= bump.sum() * dt
    half = max(1, periods // 2)
    ramp = np.maximum(0.0, 1.0 - k / half)
    drop = float(ramp.sum() * dt)
    a_v, a_a = -bump, ramp - drop * bump
    v_v, v_a = 1.0 + dt * np.cumsum(a_v), dt * np.cumsum(a_a)
    v_v[-1] = v_a[-1] = 0.0  # but for rounding they are
    x_v, x_a = dt * np.cumsum(v_v), dt * np.cumsum(v_a)
    edges = np.abs(np.diff(np.concatenate([[0.0], bump, [0.0]])))
    shares = np.zeros((3, periods + 1, 2))
    shares[0, 1:], shares[1, 1:] = np.stack([x_v, x_a], 1), np.stack([v_v, v_a], 1)
    shares[2, 1:] = np.stack([a_v, a_a], 1)
    shares[1, 0, 0] = shares[2, 0, 1] = 1.0
    return Motion(
        periods, drop, float(bump.max()), float(edges.max()), 1.0 / half, shares.reshape(-1, 2)
    )
