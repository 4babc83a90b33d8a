"""Control points of a safe path: target joint velocities in, one control point per period out.

One promise, kept by induction: after every period a whole stopping motion is available that stays
within position, velocity, acceleration and jerk limits of every joint, keeps the end effector in
its box and all links below the speed limit, and touches nothing. A step towards the target is taken
only if such a motion follows it; otherwise the available stop is followed. So the arm can stop at
any time.

Before that, the target is shaped (slowed near limits, led along walls of the box), so that the
check seldom refuses a step. Shaping is comfort, the check is safety. Nothing here knows time:
`SafetyFilter` samples the path at the true time of each command.

The speed scale lowers velocities only. The target is scaled at once; the velocities of a new step
and of its stop are bounded by a scale that falls within RAMP_S. A step beyond that bound is
refused, and the available stop is followed until one is within it. The stop itself was found
within the limits and is never refused, so the promise holds at every scale, also while it changes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.limits import ArmLimits, Floats
from wm_nodes.robots.arm.spline import KNOTS, half_periods
from wm_nodes.robots.arm.stopping import Brake, Stop

INSIDE = 1.0 - 1e-6  # share of each limit that is used: rounding must not break it
SPEED_INSIDE = (
    0.99  # share of the end effector's speed limit: between checked poses it may be faster
)
BOX_INSIDE_M = 2e-4  # the box is this much smaller: between checked poses the path may bulge
ROUNDING_M = 1e-9  # of kinematics
SHARE = 0.8  # of acceleration and jerk for following; the rest is kept for stopping
FOLLOW_PER_S = (
    30.0  # most by which the velocity error decays: it smooths targets that change in steps
)
NEARLY = 1e-3  # velocity errors below this share of one period's are removed at once
AHEAD_S = 0.17  # added to half of the longest stop: how far ahead of a limit the target is slowed
NEAR = 0.97  # share of a speed limit that is aimed at
BLENDS = (1.0, 0.5, 0.2)  # share of the target that is tried before stopping
SLOW = 0.25  # of all speeds while degraded
RAMP_S = 0.5  # in which the bound of all speeds falls from 1 to 0, when the speed scale is lowered
DAMPING = 1e-3
WALL_M = 0.008  # this near to a wall of the box, motion along it is led inwards: joints make arcs
INWARD = 0.02  # m/s at most
LONG, FAR = 16, 13  # of a stop longer than LONG, every 13th pose is checked first


class Hand(Protocol):
    """Forward kinematics, as `Kinematics` has it."""

    def positions(self, q: Floats) -> Floats: ...

    def links(self, q: Floats) -> Floats: ...

    def jacobian(self, q: Floats) -> tuple[Floats, Floats, Floats]: ...


class Obstacles(Protocol):
    """Contacts of the arm with itself and its surroundings, as `CollisionChecker` finds them."""

    def contacts_at(self, q: Floats) -> tuple[str, ...]: ...

    def first_contact(self, q: Floats, allowed: frozenset[str] = frozenset()) -> str: ...


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
        hand: Hand,
        period_s: float,
        obstacles: Obstacles | None = None,
    ) -> None:
        self.limits, self.period_s, self._hand = limits, period_s, hand
        self._obstacles = obstacles
        self._n = len(limits.joints)
        self._velocity = limits.velocity * INSIDE
        self._acceleration = limits.acceleration * INSIDE
        self._speed = limits.hand_speed * SPEED_INSIDE
        inner = replace(
            limits,
            velocity=self._velocity,
            acceleration=self._acceleration,
            jerk=limits.jerk * INSIDE,
        )
        self._brake = Brake(inner, period_s)
        self._pull = SHARE * self._acceleration
        self._jerk_step = SHARE * inner.jerk * period_s
        self._ahead_s = min(0.5 * self._brake.longest_s + AHEAD_S, 0.8)
        self._ends = np.stack([limits.low, limits.high])
        self._still = np.zeros(self._n)
        self._scale = self._bound = 1.0  # of targets; of steps
        self._scale_targets()
        self._box = np.stack([limits.box_low + BOX_INSIDE_M, limits.box_high - BOX_INSIDE_M])
        edge = np.minimum(WALL_M, 0.1 * (limits.box_high - limits.box_low))
        self._inner_box = self._box + np.stack([edge, -edge])
        self.start(np.clip(np.zeros(self._n), limits.low, limits.high))

    # State --------------------------------------------------------------------------------------

    def start(self, position: npt.ArrayLike) -> None:
        """Take the arm to stand still at `position` (n,); nothing else is assumed of the past.

        From outside its limits it may move, but never further out.
        """
        self.x: Floats = np.array(position, np.float64).reshape(self._n)
        self.v, self.a = self._still, self._still
        self.points: Floats = np.repeat(self.x[None], KNOTS, axis=0)  # the newest, (4, n)
        self._stop = Stop.none(self._n)
        self._next = 0
        self._touching: frozenset[str] = frozenset()
        if self._obstacles is not None:
            self._touching = frozenset(self._obstacles.contacts_at(self.x))
        self._bound = self._scale  # at rest there is nothing to brake
        self._fence()

    def scale_speed(self, scale: float) -> None:
        """Keep speeds of joints and links below `scale` (above 0, at most 1) x their limits.

        A higher scale counts at once; at a lower one the path brakes within its limits.
        """
        if scale == self._scale:
            return
        self._scale = scale
        self._scale_targets()
        if scale > self._bound:
            self._bound_speed(scale)

    def saved(self) -> tuple[object, ...]:
        """Return the state, for `restore`."""
        return self.x, self.v, self.a, self.points, self._stop, self._next

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to a saved state: what was added since was never commanded."""
        self.x, self.v, self.a, self.points, self._stop, self._next = state

    @property
    def longest_stop_s(self) -> float:
        """Time that the longest stopping motion takes [s]."""
        return self._brake.longest_s + KNOTS * self.period_s

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
        self._fence()

    # One period ---------------------------------------------------------------------------------

    def advance(self, target: Floats | None, why: list[str], *, slow: bool = False) -> None:
        """Add the control point of the next period.

        target: joint velocities (n,) to approach; None: stop. Interventions are added to `why`.
        """
        if self._bound > self._scale:
            self._bound_speed(max(self._scale, self._bound - self.period_s / RAMP_S))
        if target is None:
            self._follow_stop()
        else:
            self._towards(self._shape(target, slow, why), why)
        self.points = np.concatenate([self.points[1:], self.x[None]])

    # Shaping ------------------------------------------------------------------------------------

    def _shape(self, target: Floats, slow: bool, why: list[str]) -> Floats:
        """Return a velocity near `target` (n,) that is likely to be allowed."""
        if not np.count_nonzero(target):
            return target
        if slow:
            why.append("slow")
            target = target * SLOW
        room = (self._ends - self.x) / self._ahead_s
        room = _clip(room, self._slowest, self._fastest)
        v = _clip(target, room[0], room[1])
        if np.count_nonzero(np.abs(v - target) > 1e-9):
            self._tell(target, v, room, why)
        place, jacobian, _ = self._hand.jacobian(self.x)
        hand = jacobian @ v
        low, high = (self._inner_box - place) / self._ahead_s
        along = _clip(hand, np.minimum(low, INWARD), np.maximum(high, -INWARD))
        off = along - hand
        if np.count_nonzero(np.abs(off) > 1e-6):
            why.append("workspace")
            v = _clip(v + jacobian.T @ _solve(jacobian @ jacobian.T, off), room[0], room[1])
            hand = jacobian @ v
        speed = math.sqrt(hand @ hand)
        if self._scale < 1.0:
            speed = max(speed, self._link_speed(v))
        most = NEAR * self._speed * min(self._scale, SLOW if slow else 1.0)
        if speed > most:
            why.append("speed")
            v = v * (most / speed)
        return v

    def _scale_targets(self) -> None:
        self._most = NEAR * self._scale * self._brake.velocity
        self._slowest = np.stack([-self._most, self._still])  # of both ends, (2, n)
        self._fastest = np.stack([self._still, self._most])

    def _link_speed(self, v: Floats) -> float:
        """Return the speed of the fastest link [m/s] at joint velocities v (n,)."""
        dt = self.period_s
        pair = self._hand.links(np.stack([self.x - 0.5 * dt * v, self.x + 0.5 * dt * v]))
        return float(np.sqrt(((pair[1] - pair[0]) ** 2).sum(axis=-1).max())) / dt

    def _tell(self, asked: Floats, kept: Floats, room: Floats, why: list[str]) -> None:
        """Say what slowed the joints down: their velocity limits, or position limits ahead."""
        changed = np.abs(kept - asked) > 1e-9
        if (changed & (np.abs(asked) > self._most)).any():
            why.append("velocity")
        if (changed & ((room[1] < self._most) | (room[0] > -self._most))).any():
            why.append("position")

    # The promise --------------------------------------------------------------------------------

    def _towards(self, v: Floats, why: list[str]) -> None:
        """Take the largest tried part of the step towards velocity `v`, or the next of stopping."""
        meant = self._meant(v - self.v)
        moves = np.count_nonzero(meant) or np.count_nonzero(self.v)
        if not moves and (self.points == self.x).all():  # the arm stands and is to stand
            self._stop, self._next = Stop.none(self._n), 0
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
            fall = _clip(change, -step, step)
            return self.a + np.where(falls, fall, _scaled(np.where(falls, 0.0, change), step))
        return self.a + _scaled(change, step)

    def _try(self, a: Floats) -> str:
        """Take the step with acceleration `a` (n,) if a stop follows it; else return the limit."""
        dt = self.period_s
        v = self.v + dt * a
        x = self.x + dt * v
        way = self._brake.stop(x, v, a)
        if way is None:
            return "velocity" if (np.abs(v) > self._high[1]).any() else "acceleration"
        if self._out:
            self._fence()
        ways = way[:2]
        if np.count_nonzero(ways < self._low) or np.count_nonzero(ways > self._high):
            return "velocity" if (np.abs(way[1]) > self._high[1]).any() else "position"
        if way.shape[1] > LONG and self._leaves_box(self._hand.positions(way[0, ::-FAR])):
            return "workspace"  # seen at once: most refused steps end beyond a wall
        refused = self._check(half_periods(np.concatenate([self.points[1:], way[0]])))
        if not refused:
            self.x, self.v, self.a = x, v, a
            self._stop, self._next = Stop(way[0, 1:], way[1, 1:], way[2, 1:]), 0
        return refused

    def _check(self, path: Floats) -> str:
        """Return the limit that poses (N, n), half a period apart, break, or ""."""
        links = self._hand.links(path)
        if self._leaves_box(links[:, -1]):
            return "workspace"
        moves = np.diff(links, axis=0)
        moves *= moves
        most = 0.5 * self._bound * self._speed * self.period_s
        if np.count_nonzero(moves.sum(axis=-1) > most**2):
            return "speed"
        if self._obstacles is not None and self._obstacles.first_contact(path, self._touching):
            return "collision"
        return ""

    def _leaves_box(self, hands: Floats) -> bool:
        low, high = self._corners
        return bool(np.count_nonzero(hands < low) or np.count_nonzero(hands > high))

    def _fence(self) -> None:
        """Set what no motion may leave: the limits; from outside, only inwards."""
        low, high = np.minimum(self._ends[0], self.x), np.maximum(self._ends[1], self.x)
        most = self._bound * self._velocity
        self._low = np.stack([low, -most])[:, None]  # of positions and velocities, (2, 1, n)
        self._high = np.stack([high, most])[:, None]
        hands = self._hand.positions(self.points)
        least = np.minimum(self._box[0], hands.min(axis=0))
        most = np.maximum(self._box[1], hands.max(axis=0))
        self._corners = np.stack([least - ROUNDING_M, most + ROUNDING_M])
        wrong = (self.x < self._ends[0]) | (self.x > self._ends[1])
        self._out = bool(wrong.any() or (least < self._box[0]).any() or (most > self._box[1]).any())

    def _bound_speed(self, bound: float) -> None:
        self._bound = bound
        self._low[1], self._high[1] = -bound * self._velocity, bound * self._velocity

    def _follow_stop(self) -> None:
        if self._next < len(self._stop):
            at = self._next
            self.x, self.v, self.a = self._stop.x[at], self._stop.v[at], self._stop.a[at]
            self._next += 1
        else:
            self.v, self.a = self._still, self._still


def _clip(value: Floats, low: Floats, high: Floats) -> Floats:
    """Do what np.clip does, in a third of its time for a few numbers."""
    return np.minimum(np.maximum(value, low), high)


def _scaled(value: Floats, most: Floats) -> Floats:
    """Return the value (n,), shortened as a whole until no part is beyond its bound."""
    over = float(np.maximum.reduce(np.abs(value) / most))
    return value / over if over > 1.0 else value


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
