"""The safety filter: wanted joint velocities in, positions out that break no limit, ever.

It keeps one promise by induction: after every period a whole stopping motion is at hand that stays
within position, velocity, acceleration and jerk limits of every joint, within the hand's box and
below its speed. A step towards what is wanted is taken only if after it there is such a motion
again; else the one at hand is followed. So the filter can stop at any time and never has to hope.

Before that, what is wanted is shaped (slowed near limits, led along walls), so that the promise is
seldom tested. Shaping is comfort, the check is safety. It knows no model, no ROS and no clock but
the `now_s` it is given, which must be steady.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.brake import Brake, Stop
from wm_nodes.robots.arm.limits import ArmLimits, Floats

INSIDE = 1.0 - 1e-6  # share of each limit that is used: rounding must not break it
SHARE = 0.5  # of acceleration and jerk for following; the rest is kept for stopping
FOLLOW_PER_S = 12.0  # how fast velocity follows what is wanted
NEAR = 0.97  # share of a speed limit that is aimed at
HUGE = 10.0  # wanted velocities beyond so many times the limit come from a broken sender
EARLY = 0.5  # a call within so much of a period after the last moves nothing
BLENDS = (1.0, 0.5, 0.2)  # how much of what is wanted is tried before stopping
SLOW = 0.25  # of all speeds while degraded
DAMPING = 1e-3
WALL_M = 0.008  # this near to a wall of the box, motion along it is led inwards: joints make arcs
INWARD = 0.02  # m/s at most
ONES = np.ones(3)
LONG, FAR = 16, 13  # of a stop longer than LONG, every so manieth place is looked at first


class Hand(Protocol):
    """Forward kinematics, as `Kinematics` has it."""

    def positions(self, q: Floats) -> Floats: ...

    def jacobian(self, q: Floats) -> tuple[Floats, Floats, Floats]: ...


@dataclass(frozen=True)
class Setpoint:
    """What to command now: joint positions, velocities, accelerations (n,); `why`: interventions.

    `moved`: a period has passed. `stop`: positions and velocities (N, n) of the stopping motion
    that follows if nothing else comes.
    """

    position: Floats
    velocity: Floats
    acceleration: Floats
    why: tuple[str, ...]
    moved: bool
    stop: Stop


class SafetyFilter:
    """One arm's filter. Call `start` with where the arm stands still, then `step` each period."""

    def __init__(self, limits: ArmLimits, hand: Hand, period_s: float) -> None:
        self.limits, self.period_s, self._hand = limits, period_s, hand
        self._n = len(limits.joints)
        self._velocity = limits.velocity * INSIDE
        self._acceleration = limits.acceleration * INSIDE
        self._speed = limits.hand_speed * INSIDE
        inner = ArmLimits(
            limits.joints, limits.low, limits.high, self._velocity, self._acceleration,
            limits.jerk * INSIDE, limits.target_change, limits.box_low, limits.box_high,
            limits.hand_speed,
        )  # fmt: skip
        self._brake = Brake(inner, period_s)
        self._huge = HUGE * limits.velocity
        self._jerk_step = SHARE * inner.jerk * period_s
        self._ahead_s = min(0.5 * self._brake.longest_s + 2.0 / FOLLOW_PER_S, 0.8)
        self._ends = np.stack([limits.low, limits.high])
        self._most = NEAR * self._brake.velocity
        self._slowest = np.stack([-self._most, np.zeros(self._n)])  # of both ends, (2, n)
        self._fastest = np.stack([np.zeros(self._n), self._most])
        self._still = np.zeros(self._n)
        self._box = np.stack([limits.box_low, limits.box_high])
        edge = np.minimum(WALL_M, 0.1 * (limits.box_high - limits.box_low))
        self._inner_box = self._box + np.stack([edge, -edge])
        self.interventions: Counter[str] = Counter()
        self.start(np.clip(np.zeros(self._n), limits.low, limits.high))

    # State --------------------------------------------------------------------------------------

    def start(self, position: npt.ArrayLike) -> None:
        """Take the arm to stand still at `position` (n,); nothing else is assumed of the past.

        That very place is what the first period commands: motion begins from a command to stand.
        From outside its limits it may move, but never further out.
        """
        self.x: Floats = np.array(position, np.float64).reshape(self._n)
        self.v, self.a = np.zeros(self._n), np.zeros(self._n)
        self._wanted = np.zeros(self._n)
        self.hand = self._hand.positions(self.x[None])[0]
        self._stop, self._hands = self._rest(), np.zeros((0, 3))
        self._next = 0
        self._fence()
        self._last_s: float | None = None
        self._said = False  # has the place that it was started at been commanded?

    @property
    def at_rest(self) -> bool:
        """Is nothing commanded to move any more?"""
        return self._next >= len(self._stop) and not self.v.any()

    @property
    def outside(self) -> tuple[str, ...]:
        """Names of joints beyond their limits, and `hand` beyond its box."""
        limits = self.limits
        wrong = (self.x < limits.low) | (self.x > limits.high)
        names = [limits.joints[index] for index in np.flatnonzero(wrong)]
        hand = (self.hand < self._box[0]).any() or (self.hand > self._box[1]).any()
        return (*names, *(["hand"] if hand else []))

    def correct(self, shift: Floats) -> None:
        """Move the idea of where the arm is by a little (n,), as measured; velocity stays."""
        self.x = self.x + shift
        self._stop = Stop(self._stop.x + shift, self._stop.v, self._stop.a)
        self._hands = self._hand.positions(self._stop.x)
        self.hand = self._hand.positions(self.x[None])[0]
        self._fence()

    # One period ---------------------------------------------------------------------------------

    def step(self, wanted: npt.ArrayLike | None, now_s: float, *, slow: bool = False) -> Setpoint:
        """Return what to command at the steady time `now_s` [s].

        wanted: joint velocities (n,); None: stop. What cannot be right (shape, not finite, huge) is
        refused, and the last good one is no longer followed either: the arm stops. A call that
        comes too early after the last moves nothing.
        """
        why: list[str] = []
        if not self._due(now_s, why):
            return self._setpoint(why, moved=False)
        target = None if wanted is None else self._accept(wanted, why)
        said, self._said = self._said, True
        if target is None or not said:
            self._wanted = self._still
            self._follow_stop()
        else:
            self._towards(self._shape(target, slow, why), why)
        return self._setpoint(why, moved=True)

    def _due(self, now_s: float, why: list[str]) -> bool:
        """Has a period passed? A clock that goes back or stands moves nothing and is believed."""
        last, self._last_s = self._last_s, now_s
        if last is None:
            return True
        if not np.isfinite(now_s) or now_s < last:
            why.append("clock")
            self._last_s = now_s if np.isfinite(now_s) else last
            return False
        if now_s - last < EARLY * self.period_s:
            why.append("early")
            self._last_s = last
            return False
        return True

    def _accept(self, wanted: npt.ArrayLike, why: list[str]) -> Floats | None:
        try:
            target = np.asarray(wanted, np.float64)
        except (TypeError, ValueError, OverflowError):
            why.append("shape")
            return None
        if target.shape != (self._n,):
            why.append("shape")
            return None
        if np.count_nonzero(np.abs(target) <= self._huge) < self._n:
            why.append("huge" if np.isfinite(target).all() else "non-finite")
            return None
        change = self.limits.target_change
        near = _clip(target, self._wanted - change, self._wanted + change)
        if np.count_nonzero(near != target):
            why.append("target-change")
        self._wanted = near
        return near

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
        _, jacobian, _ = self._hand.jacobian(self.x)
        hand = jacobian @ v
        low, high = (self._inner_box - self.hand) / self._ahead_s
        along = _clip(hand, np.minimum(low, INWARD), np.maximum(high, -INWARD))
        off = along - hand
        if np.count_nonzero(np.abs(off) > 1e-6):
            why.append("workspace")
            v = _clip(v + jacobian.T @ _solve(jacobian @ jacobian.T, off), room[0], room[1])
            hand = jacobian @ v
        speed = math.sqrt(hand @ hand)
        most = NEAR * self._speed * (SLOW if slow else 1.0)
        if speed > most:
            why.append("speed")
            v = v * (most / speed)
        return v

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
        meant = _scaled(FOLLOW_PER_S * (v - self.v), SHARE * self._acceleration)
        meant = self.a + _scaled(meant - self.a, self._jerk_step)
        if not np.count_nonzero(meant) and self.at_rest:
            self._follow_stop()
            return
        stop = self._stop.a[self._next] if self._next < len(self._stop) else self._still
        for blend in BLENDS:
            refused = self._try(stop + blend * (meant - stop))
            if not refused:
                return
            why.append(f"{refused}-stop")
        self._follow_stop()

    def _try(self, a: Floats) -> str:
        """Take the step with acceleration `a` (n,) if a stop follows it; else say what forbids."""
        dt = self.period_s
        v = self.v + dt * a
        x = self.x + dt * v
        way = self._brake.stop(x, v, a)
        if way is None:
            return "velocity" if (np.abs(v) > self._velocity).any() else "acceleration"
        if self._out:
            self._fence()
        ways = way[:2]
        if np.count_nonzero(ways < self._low) or np.count_nonzero(ways > self._high):
            return "velocity" if (np.abs(way[1]) > self._velocity).any() else "position"
        if way.shape[1] > LONG and self._leaves_box(self._hand.positions(way[0, ::-FAR])):
            return "workspace"  # seen at once: most that is refused ends beyond a wall
        path = np.empty((way.shape[1] + 1, 3))
        hands = path[1:]
        path[0], hands[:] = self.hand, self._hand.positions(way[0])
        if self._leaves_box(hands):
            return "workspace"
        moves = hands - path[:-1]
        moves *= moves
        if np.count_nonzero(moves @ ONES > (self._speed * dt) ** 2):
            return "speed"
        self.x, self.v, self.a, self.hand = x, v, a, hands[0]
        self._stop, self._next = Stop(way[0, 1:], way[1, 1:], way[2, 1:]), 0
        self._hands = hands[1:]
        return ""

    def _leaves_box(self, hands: Floats) -> bool:
        low, high = self._corners
        return bool(np.count_nonzero(hands < low) or np.count_nonzero(hands > high))

    def _fence(self) -> None:
        """Set what no motion may leave: the limits; from outside, only inwards."""
        low, high = np.minimum(self._ends[0], self.x), np.maximum(self._ends[1], self.x)
        self._low = np.stack([low, -self._velocity])[:, None]  # of positions and velocities
        self._high = np.stack([high, self._velocity])[:, None]
        least, most = np.minimum(self._box[0], self.hand), np.maximum(self._box[1], self.hand)
        self._corners = np.stack([least, most])
        self._out = bool(self.outside)

    def _follow_stop(self) -> None:
        if self._next < len(self._stop):
            at = self._next
            self.x, self.v, self.a = self._stop.x[at], self._stop.v[at], self._stop.a[at]
            self.hand = self._hands[at]
            self._next += 1
        else:
            self.v, self.a = self._still, self._still

    def _rest(self) -> Stop:
        empty = np.zeros((0, self._n))
        return Stop(empty, empty, empty)

    def _setpoint(self, why: list[str], *, moved: bool) -> Setpoint:
        names = tuple(dict.fromkeys(why))
        if names:
            self.interventions.update(names)
        left = slice(self._next, None)
        stop = Stop(self._stop.x[left], self._stop.v[left], self._stop.a[left])
        return Setpoint(self.x.copy(), self.v.copy(), self.a.copy(), names, moved, stop)


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
