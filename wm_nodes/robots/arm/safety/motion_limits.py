"""Limits that no motion of a path may leave: of joints, links, the end effector, and contacts."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.safety.interfaces import Contacts, ForwardKinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.spline import half_periods

INSIDE = 1.0 - 1e-6  # share of each limit that is used: rounding must not break it
SPEED_INSIDE = 0.99  # of the end effector's speed limit: between checked poses it may be faster
BOX_INSIDE_M = 2e-4  # the box is this much smaller: between checked poses the path may bulge
ROUNDING_M = 1e-9  # of kinematics
LONG, FAR = 16, 13  # of a stop longer than LONG, every 13th pose is checked first


class MotionLimits:
    """Checks whole motions. `enclose` sets the limits; from outside, a motion may only go inwards.

    `velocity` (n,), `speed` [m/s]: limits of joints and of links. `box` (2, 3): corners [m].
    `bound`: share of velocity and speed that is allowed now. `outside`: the path is outside its
    limits, so that they move with it.
    """

    def __init__(
        self,
        limits: ArmLimits,
        kinematics: ForwardKinematics,
        period_s: float,
        contacts: Contacts | None,
    ) -> None:
        self._kinematics, self._period_s, self._contacts = kinematics, period_s, contacts
        self.velocity = limits.velocity * INSIDE
        self.speed = limits.hand_speed * SPEED_INSIDE
        self.box = np.stack([limits.box_low + BOX_INSIDE_M, limits.box_high - BOX_INSIDE_M])
        self._ends = np.stack([limits.low, limits.high])
        self._touching: frozenset[str] = frozenset()
        self.bound = 1.0
        self.outside = False

    def start(self, x: Floats) -> None:
        """A path starts at x (n,): contacts there are allowed while they last."""
        self._touching = frozenset()
        if self._contacts is not None:
            self._touching = frozenset(self._contacts.contacts_at(x))

    def enclose(self, x: Floats, points: Floats) -> None:
        """Set what no motion may leave from x (n,) and the newest control points (4, n) on."""
        low, high = np.minimum(self._ends[0], x), np.maximum(self._ends[1], x)
        most = self.bound * self.velocity
        self._low = np.stack([low, -most])[:, None]  # of positions and velocities, (2, 1, n)
        self._high = np.stack([high, most])[:, None]
        places = self._kinematics.positions(points)
        least = np.minimum(self.box[0], places.min(axis=0))
        most = np.maximum(self.box[1], places.max(axis=0))
        self._corners = np.stack([least - ROUNDING_M, most + ROUNDING_M])
        wrong = (x < self._ends[0]) | (x > self._ends[1])
        self.outside = bool(
            wrong.any() or (least < self.box[0]).any() or (most > self.box[1]).any()
        )

    def set_bound(self, bound: float) -> None:
        self.bound = bound
        self._low[1], self._high[1] = -bound * self.velocity, bound * self.velocity

    def too_fast(self, v: Floats) -> bool:
        """Is a joint velocity (n,) beyond its limit?"""
        return bool((np.abs(v) > self._high[1]).any())

    def refusal(self, motion: Floats, points: Floats) -> str:
        """Return the limit that a stopping motion (2 or 3, N + 1, n) breaks, or "".

        points (3, n): control points before it.
        """
        ways = motion[:2]
        if np.count_nonzero(ways < self._low) or np.count_nonzero(ways > self._high):
            return "velocity" if self.too_fast(motion[1]) else "position"
        far = motion.shape[1] > LONG
        if far and self._leaves_box(self._kinematics.positions(motion[0, ::-FAR])):
            return "workspace"  # found at once: most refused steps end beyond a wall
        return self._broken(half_periods(np.concatenate([points, motion[0]])))

    def _broken(self, path: Floats) -> str:
        """Return the limit that poses (N, n), half a period apart, break, or ""."""
        links = self._kinematics.links(path)
        if self._leaves_box(links[:, -1]):
            return "workspace"
        moves = np.diff(links, axis=0)
        moves *= moves
        most = 0.5 * self.bound * self.speed * self._period_s
        if np.count_nonzero(moves.sum(axis=-1) > most**2):
            return "speed"
        if self._contacts is not None and self._contacts.first_contact(path, self._touching):
            return "collision"
        return ""

    def _leaves_box(self, places: Floats) -> bool:
        low, high = self._corners
        return bool(np.count_nonzero(places < low) or np.count_nonzero(places > high))
