"""Control points of a safe path: target joint velocities in, one control point per period out.

One invariant, kept by induction: after every period a whole stopping motion is available that stays
within position, velocity, acceleration and jerk limits of every joint, keeps the end effector in
its box and all links below the speed limit, and touches nothing. A step towards the target is taken
only if such a motion follows it; otherwise the available stop is followed. So the arm can stop at
any time.

Before that, `TargetShaper` shapes the target (slowed near limits, led along walls of the box), so
that the check by `MotionLimits` seldom refuses a step. Shaping makes motion even; the check keeps
it safe. Nothing here depends on time: `SafetyFilter` samples the path at the true time of each
command.

The speed scale lowers velocities only. The target is scaled at once; the velocities of a new step
and of its stop are bounded by a scale that falls within RAMP_S. A step beyond that bound is
refused, and the available stop is followed until one is within it. The stop itself was checked
before and is never refused, so the invariant holds at every scale, also while it changes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.safety.interfaces import Contacts, ForwardKinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.motion_limits import INSIDE, MotionLimits
from wm_nodes.robots.arm.safety.spline import KNOTS
from wm_nodes.robots.arm.safety.stopping import Stop, StoppingMotions
from wm_nodes.robots.arm.safety.target_shaper import TargetShaper, clipped

SHARE = 0.8  # of acceleration and jerk for following; the rest is kept for stopping
FOLLOW_PER_S = 30.0  # most by which the velocity error decays: it smooths targets that jump
NEARLY = 1e-3  # velocity errors below this share of one period's are removed at once
BLENDS = (1.0, 0.5, 0.2)  # share of the target that is tried before stopping
RAMP_S = 0.5  # in which the bound of all speeds falls from 1 to 0, when the speed scale is lowered


class SafePath:
    """Control points of one arm's path, one per control period. `start`, then `advance`.

    The path is the uniform cubic B-spline of its control points (`spline.py`). Its velocity,
    acceleration and jerk at any time are weighted means of those of the control points, and its
    positions are weighted means of theirs: what holds for all control points holds at any time.
    The end effector is checked on the spline itself, every half period.
    """

    def __init__(
        self,
        limits: ArmLimits,
        kinematics: ForwardKinematics,
        period_s: float,
        contacts: Contacts | None = None,
    ) -> None:
        self.period_s = period_s
        self._allowed = MotionLimits(limits, kinematics, period_s, contacts)
        acceleration, jerk = limits.acceleration * INSIDE, limits.jerk * INSIDE
        inner = replace(
            limits, velocity=self._allowed.velocity, acceleration=acceleration, jerk=jerk
        )
        self._stopping = StoppingMotions(inner, period_s)
        self._shaper = TargetShaper(limits, kinematics, period_s, self._allowed, self._stopping)
        self._pull = SHARE * acceleration
        self._jerk_step = SHARE * jerk * period_s
        self._still = np.zeros(len(limits.joints))
        self._scale = 1.0  # of targets
        self._shaper.set_scale(1.0)
        self.start(np.clip(self._still, limits.low, limits.high))

    # State --------------------------------------------------------------------------------------

    def start(self, position: npt.ArrayLike) -> None:
        """Take the arm to stand still at `position` (n,); nothing else is assumed of the past.

        From outside its limits it may move, but never further out.
        """
        self.x: Floats = np.array(position, np.float64).reshape(len(self._still))
        self.v, self.a = self._still, self._still
        self.points: Floats = np.repeat(self.x[None], KNOTS, axis=0)  # the newest, (4, n)
        self._stop = Stop.none(len(self._still))
        self._next = 0
        self._allowed.start(self.x)
        self._allowed.bound = self._scale  # at rest there is nothing to slow down
        self._allowed.enclose(self.x, self.points)

    def scale_speed(self, scale: float) -> None:
        """Keep speeds of joints and links below `scale` (above 0, at most 1) x their limits.

        A higher scale counts at once; at a lower one the path slows down within its limits.
        """
        if scale == self._scale:
            return
        self._scale = scale
        self._shaper.set_scale(scale)
        if scale > self._allowed.bound:
            self._allowed.set_bound(scale)

    def saved(self) -> tuple[Any, ...]:
        """Return the state, for `restore`."""
        return self.x, self.v, self.a, self.points, self._stop, self._next

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to a saved state: what was added since was never commanded."""
        self.x, self.v, self.a, self.points, self._stop, self._next = state

    @property
    def longest_stop_s(self) -> float:
        """Time that the longest stopping motion takes [s]."""
        return self._stopping.longest_s + KNOTS * self.period_s

    @property
    def at_rest(self) -> bool:
        """Does the path end at the newest control point, with all four equal?"""
        ended = self._next >= len(self._stop) and not self.v.any()
        return bool(ended and (self.points == self.x).all())

    @property
    def stop_points(self) -> Floats:
        """Control points (N, n) of the stopping motion that follows from here."""
        return self._stop.x[self._next :]

    def correct(self, shift: Floats) -> None:
        """Shift the whole path by a little (n,), as measured; velocities stay."""
        self.x = self.x + shift
        self.points = self.points + shift
        self._stop = Stop(self._stop.x + shift, self._stop.v, self._stop.a)
        self._allowed.enclose(self.x, self.points)

    # One period ---------------------------------------------------------------------------------

    def advance(self, target: Floats | None, why: list[str], *, slow: bool = False) -> None:
        """Add the control point of the next period.

        target: joint velocities (n,) to approach; None: stop. Interventions are added to `why`.
        """
        if self._allowed.bound > self._scale:
            lower = self._allowed.bound - self.period_s / RAMP_S
            self._allowed.set_bound(max(self._scale, lower))
        if target is None:
            self._follow_stop()
        else:
            self._towards(self._shaper.shape(self.x, target, slow, why), why)
        self.points = np.concatenate([self.points[1:], self.x[None]])

    # The invariant ------------------------------------------------------------------------------

    def _towards(self, v: Floats, why: list[str]) -> None:
        """Take the largest tried part of the step towards velocity `v`, or the next of stopping."""
        meant = self._meant(v - self.v)
        moves = np.count_nonzero(meant) or np.count_nonzero(self.v)
        if not moves and (self.points == self.x).all():  # the arm stands and is to stand
            self._stop, self._next = Stop.none(len(self._still)), 0
            self._follow_stop()
            return
        stop = self._stop.a[self._next] if self._next < len(self._stop) else self._still
        for blend in BLENDS:
            refused = self._try(stop + blend * (meant - stop))
            if not refused:
                return
            why.append(f"{refused}-stop")
        self._follow_stop()

    def _meant(self, error: Floats) -> Floats:
        """Return the next acceleration (n,), which removes a velocity error (n,) soonest.

        From acceleration k j, falling by j = jerk * dt per period, velocity still changes by
        dt j k (k + 1) / 2. The joint with the largest error in units of dt j sets k; the others
        remove the same share of their errors, so that all arrive nearly together. No joint
        overshoots: other bounds only lower accelerations, and each may fall by j per period.
        """
        step, dt = self._jerk_step, self.period_s
        far = float(np.maximum.reduce(np.abs(error) / step)) / dt
        rate = 1.0 / dt
        if far > 1.0:
            k = math.ceil(0.5 * math.sqrt(1.0 + 8.0 * far) - 0.5)
            rate *= (1.0 + 0.5 * k * (k - 1.0) / far) / k
        if far > NEARLY:
            rate = min(rate, FOLLOW_PER_S)
        change = _scaled(rate * error, self._pull) - self.a
        falls = change * self.a < 0.0
        if np.count_nonzero(falls):
            fall = clipped(change, -step, step)
            rises = _scaled(np.where(falls, 0.0, change), step)
            meant: Floats = self.a + np.where(falls, fall, rises)
            return meant
        return self.a + _scaled(change, step)

    def _try(self, a: Floats) -> str:
        """Take the step with acceleration `a` (n,) if a stop follows it; else return the limit."""
        dt = self.period_s
        v = self.v + dt * a
        x = self.x + dt * v
        motion = self._stopping.stop(x, v, a)
        if motion is None:
            return "velocity" if self._allowed.too_fast(v) else "acceleration"
        if self._allowed.outside:
            self._allowed.enclose(self.x, self.points)
        refused = self._allowed.refusal(motion, self.points[1:])
        if not refused:
            self.x, self.v, self.a = x, v, a
            self._stop, self._next = Stop(motion[0, 1:], motion[1, 1:], motion[2, 1:]), 0
        return refused

    def _follow_stop(self) -> None:
        if self._next < len(self._stop):
            at = self._next
            self.x, self.v, self.a = self._stop.x[at], self._stop.v[at], self._stop.a[at]
            self._next += 1
        else:
            self.v, self.a = self._still, self._still


def _scaled(value: Floats, most: Floats) -> Floats:
    """Return the value (n,), shortened as a whole until no part is beyond its bound."""
    over = float(np.maximum.reduce(np.abs(value) / most))
    return value / over if over > 1.0 else value
