"""Does the arm follow? Detected from commands and measurements of the last 0.3 s.

A joint does not follow when it was commanded along one way for some time and has hardly moved in
all of that time, even if the driver executes each command up to DELAY_S late. It is detected
WINDOW_S after the joint has stopped: sooner than by how far it is behind.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from wm_nodes.robots.arm.safety.limits import Floats

DELAY_S = 0.2  # a healthy driver executes a command, and reports it, at most so late
WINDOW_S = 0.06  # in which the joint should have moved
LEAST_RAD = 0.015  # commanded in each WINDOW_S: slower motion is not conclusive. rad, or m
SHARE = 0.2  # of the commanded motion: a joint that moved less stands still. 3 mrad: 4 x the noise
READINGS = 3  # joint states in the window, each with a time of its own
BEHIND_RAD = 0.04  # an arm that is nearer to its command than this may be held by friction
KEPT_S = DELAY_S + 2 * WINDOW_S


class FollowWatch:
    """Compares commanded with measured motion of the first `arm_joints` joints."""

    def __init__(self, arm_joints: int) -> None:
        self._arm = arm_joints
        self._commanded: deque[tuple[float, Floats]] = deque()
        self._measured: deque[tuple[float, Floats]] = deque()

    def forget(self) -> None:
        """What was commanded before now does not count: a new path was started."""
        self._commanded.clear()

    def commanded(self, position: Floats, now_s: float) -> None:
        """Note a command (n,) that was sent at the steady time `now_s` [s]."""
        self._commanded.append((now_s, position[: self._arm]))
        _drop_old(self._commanded, now_s)

    def measured(self, position: Floats, came_s: float) -> None:
        """Note joint states (n,) that came at `came_s` [s]."""
        self._measured.append((came_s, position[: self._arm]))
        _drop_old(self._measured, came_s)

    def lag_of_delayed(self) -> Floats:
        """Return how far each joint is from where it was commanded to be DELAY_S ago (n,) [rad].

        Where that is little, an arm that stands may be about to follow. Infinite if nothing was
        commanded.
        """
        if not self._measured or not self._commanded:
            return np.full(self._arm, np.inf)
        now_s, here = self._measured[-1]
        before = [place for when_s, place in self._commanded if when_s <= now_s - DELAY_S]
        return np.abs((before[-1] if before else self._commanded[0][1]) - here)

    def standing_joint(self) -> int | None:
        """Return a joint that was commanded to move and stands still, or None."""
        if not self._measured or not self._commanded:
            return None
        now_s, here = self._measured[-1]
        behind = np.abs(self._commanded[-1][1] - here) >= BEHIND_RAD
        if not behind.any():
            return None
        since = now_s - WINDOW_S
        recent = [place for came_s, place in self._measured if came_s >= since]
        if len(recent) < READINGS or self._measured[0][0] > since:
            return None
        times = np.array([when for when, _ in self._commanded])
        places = np.stack([place for _, place in self._commanded])
        if times[0] > since - DELAY_S or times[-1] < now_s - WINDOW_S:
            return None
        # what each joint should have moved by, for every delay that a healthy driver may have
        ends = times[(times >= now_s - DELAY_S) & (times <= now_s)]
        moves = _at(times, places, ends) - _at(times, places, ends - WINDOW_S)
        one_way = np.all(moves > 0.0, axis=0) | np.all(moves < 0.0, axis=0)
        least = np.abs(moves).min(axis=0, initial=np.inf) * one_way
        moved = np.ptp(np.array(recent), axis=0)
        stands = (least >= LEAST_RAD) & (moved < SHARE * least) & behind
        return int(stands.argmax()) if len(ends) and stands.any() else None


def _drop_old(past: deque[tuple[float, Floats]], now_s: float) -> None:
    while past[0][0] < now_s - KEPT_S:
        past.popleft()


def _at(times: Floats, places: Floats, when: Floats) -> Floats:
    """Return the positions (K, n) commanded at times (K,): the last one sent before each."""
    return places[np.clip(np.searchsorted(times, when, side="right") - 1, 0, None)]
