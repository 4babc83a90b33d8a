"""Joint states of one arm, put together from messages that each hold some of its joints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.driver import Reading
from wm_nodes.robots.arm.safety.limits import Floats

TURN = 2.0 * math.pi
WRAPPED = math.pi + 0.01  # rad: a larger angle counts turns itself
LARGEST = 1e6  # rad (m)
SMOOTHING_S = 0.05  # time constant of velocities that are computed from positions
RECENT_S = 2.0  # a publisher counts for so long after its last message
MOST_SOURCES = 256


class JointReadings:
    """Merges joint states by name. A reading exists once every joint has been received.

    names: the n joints, in the order of the readings. home: (n,) [rad; m where a joint slides].
    continuous: n flags; such a joint turns without end, and its angles are unwrapped: the first
    one onto the turn nearest to home, each later one onto the turn nearest to the one before.
    A first angle beyond (-pi, pi] is taken as it is: that driver counts turns itself.
    grace_s: how much older than the others each joint may be, (n,) or one number [s].
    """

    def __init__(
        self,
        names: Sequence[str],
        home: npt.ArrayLike,
        continuous: npt.ArrayLike,
        grace_s: npt.ArrayLike = 0.0,
    ) -> None:
        n = len(names)
        self._at = {name: index for index, name in enumerate(names)}
        self._home = np.asarray(home, np.float64)
        self._continuous = np.array(continuous, bool)
        self._position = np.full(n, np.nan)
        self._velocity = np.zeros(n)
        self._came = np.full(n, -np.inf)
        self._stamp = np.zeros(n)
        self._grace_s = np.broadcast_to(np.asarray(grace_s, np.float64), n)
        self._count = 0

    def take(
        self,
        names: Sequence[str],
        position: npt.ArrayLike,
        velocity: npt.ArrayLike,
        came_s: float,
        stamp_s: float,
    ) -> Reading | None:
        """Return the reading after this message; None if it changed nothing or joints are missing.

        position: one number for each name; velocity: the same, or empty. Velocities that are
        missing or NaN are computed from positions, by the stamps [s] where these advance, else by
        arrival times [s, steady clock]. Raises MessageError for repeated names, wrong lengths and
        positions that are not finite; nothing of such a message is used.
        """
        here = [index for index, name in enumerate(names) if name in self._at]
        if not here:
            return None
        if len(set(names)) != len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise MessageError(
                "names",
                f"joint states: got {twice!r} more than once, expected each name once. "
                "Correct the driver's list of joints.",
            )
        joints = [self._at[names[index]] for index in here]
        place = _numbers(position, len(names), "positions")[here]
        if not (np.abs(place) < LARGEST).all():
            raise MessageError(
                "non-finite",
                f"joint states: got positions {place.tolist()}, expected finite numbers below "
                f"{LARGEST:.0e}. Check the driver's state interfaces.",
            )
        speed = np.asarray(velocity, np.float64)
        if speed.size:
            speed = _numbers(speed, len(names), "velocities")[here]
        else:
            speed = np.full(len(here), np.nan)
        place = self._unwrapped(place, joints)
        known = np.isfinite(speed)
        if not known.all():
            speed = np.where(known, speed, self._computed(place, joints, came_s, stamp_s))
        self._position[joints], self._velocity[joints] = place, speed
        self._came[joints], self._stamp[joints] = came_s, stamp_s
        self._count += 1
        oldest = min(float((self._came + self._grace_s).min()), came_s)
        if oldest == -math.inf:
            return None
        return Reading(self._position.copy(), self._velocity.copy(), oldest, self._count, came_s)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of joints that no message has had yet."""
        return tuple(name for name, index in self._at.items() if np.isnan(self._position[index]))

    def _unwrapped(self, place: Floats, joints: list[int]) -> Floats:
        before = self._position[joints]
        first = np.isnan(before)
        near = np.where(first, self._home[joints], before)
        wrapped = self._continuous[joints] & ~(first & (np.abs(place) > WRAPPED))
        turns = np.round((near - place) / TURN)
        unwrapped: Floats = place + np.where(wrapped, TURN * turns, 0.0)
        return unwrapped

    def _computed(self, place: Floats, joints: list[int], came_s: float, stamp_s: float) -> Floats:
        """Return low-pass filtered differences of positions; zero for a joint's first one."""
        since = stamp_s - self._stamp[joints]
        since = np.where((since > 0) & (since < RECENT_S), since, came_s - self._came[joints])
        before, speed = self._position[joints], self._velocity[joints]
        usable = np.isfinite(before) & (since > 0)
        raw = np.divide(place - before, since, out=np.zeros(len(joints)), where=usable)
        share = np.where(usable, -np.expm1(-np.maximum(since, 0.0) / SMOOTHING_S), 0.0)
        filtered: Floats = speed + share * (raw - speed)
        return filtered


class JointSources:
    """Which publishers send which joints. Times are of the steady clock [s].

    source: the publisher's identifier, empty where the middleware does not give it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._ours = frozenset(names)
        self._sent: dict[tuple[bytes, frozenset[str]], tuple[float, float]] = {}

    def note(self, source: bytes, names: Sequence[str], now_s: float) -> None:
        """Note a message."""
        joints = frozenset(names)
        key = (source, joints & self._ours if source else joints)
        first, last = self._sent.get(key, (now_s, now_s))
        if now_s - last > RECENT_S:
            first = now_s
        self._sent[key] = first, now_s
        if len(self._sent) > MOST_SOURCES:
            del self._sent[next(iter(self._sent))]

    def senders(self, now_s: float) -> frozenset[bytes]:
        """Return the identified publishers that have just sent joints of ours."""
        return frozenset(source for source, names in self._recent(now_s) if source and names)

    def shared(self, publishers: int, now_s: float) -> tuple[str, ...]:
        """Return the joints that more than one publisher sends, sorted.

        publishers: how many there are on the topic. Where they are not identified, several are
        allowed only if the sets of names received are disjoint and at least as many as the
        publishers; else all joints of ours count as shared.
        """
        recent = self._recent(now_s)
        joints: set[str] = set()
        for (one, of_one), (other, of_other) in combinations(recent, 2):
            apart = recent[one, of_one][1] < recent[other, of_other][0]
            apart = apart or recent[other, of_other][1] < recent[one, of_one][0]
            if one and other and one != other and not apart:  # not one that took over
                joints |= of_one & of_other
        if publishers > 1 and not any(source for source, _ in recent):
            sets = [names for _, names in recent]
            disjoint = sum(map(len, sets)) == len(frozenset().union(*sets))
            if not disjoint or len(sets) < publishers:
                joints |= self._ours
        return tuple(sorted(joints))

    def _recent(self, now_s: float) -> dict[tuple[bytes, frozenset[str]], tuple[float, float]]:
        return {key: at for key, at in self._sent.copy().items() if now_s - at[1] <= RECENT_S}


def _numbers(values: npt.ArrayLike, size: int, what: str) -> Floats:
    array: Floats = np.asarray(values, np.float64)
    if array.shape != (size,):
        raise MessageError(
            "size",
            f"joint states: got {array.size} {what} for {size} names, expected one for each. "
            "Check the driver's state interfaces.",
        )
    return array
