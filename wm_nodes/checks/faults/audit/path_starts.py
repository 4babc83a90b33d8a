"""Promise: a path begins where the resting arm is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wm_nodes.checks.faults.audit.command_path import SAME
from wm_nodes.checks.faults.audit.measured_motion import MeasuredMotion
from wm_nodes.checks.faults.audit.record import AuditRecord
from wm_nodes.robots.arm.safety.limits import Floats

NEAR_RAD = 0.03  # largest distance of a path's start from the measured arm
FRESH_S = 0.2  # age of a measurement that a path may begin at
RESTING_RAD = 0.02  # a resting arm moves less within FRESH_S


@dataclass(frozen=True)
class _Claim:
    """A path began: it must be within `room` (n,) of the arm as measured at `when_s`."""

    when_s: float
    place: Floats
    room: Floats
    first: bool  # False: an unknown number of commands was missed, so the arm may move already


class PathStarts:
    """Checks the starts of paths once all measurements up to them have been received.

    Violation `jump`: the path began elsewhere. positions: the commands are positions, else
    velocities, which must begin at zero. `count`: paths that began.
    """

    def __init__(
        self,
        positions: bool,
        measured: MeasuredMotion,
        error_s: Callable[[float], float],
        record: AuditRecord,
    ) -> None:
        self._positions, self._measured = positions, measured
        self._error_s, self._record = error_s, record
        self._claims: list[_Claim] = []
        self.count = 0

    def begin(self, place: Floats, when_s: float) -> None:
        """Record the start of a path; it is checked once the measurements have arrived."""
        if self._positions:
            self._claims.append(_Claim(when_s, place, np.full(len(place), NEAR_RAD), first=True))
        else:
            self._record.count("jump", int((np.abs(place) > SAME).any()))
        self.count += 1

    def join(self, place: Floats, when_s: float, room: Floats) -> None:
        """Record a path joined after missed commands, during which the arm moved by `room`."""
        self._claims.append(_Claim(when_s, place, NEAR_RAD + room, first=False))

    def check(self, measured_until_s: float) -> None:
        """Check the starts up to a time until which all measurements have been received."""
        claims = [claim for claim in self._claims if claim.when_s <= measured_until_s]
        self._claims = [claim for claim in self._claims if claim.when_s > measured_until_s]
        for claim in claims:
            self._record.count("jump", int(not self._confirmed(claim)))

    def _confirmed(self, claim: _Claim) -> bool:
        """Return whether fresh measurements of one source agree with the start of a path."""
        until_s = claim.when_s + 2 * self._error_s(claim.when_s)
        fresh = list(self._measured.between(claim.when_s - FRESH_S, until_s))
        if not claim.first and not fresh:
            return True
        if len(fresh) != 1:
            return False
        measured = np.array(fresh[0])
        if claim.first:
            moved = np.ptp(measured, axis=0)
            if len(measured) < 2 or (moved > RESTING_RAD + self._measured.noise()).any():
                return False
        near = np.abs(measured.mean(axis=0) - claim.place) <= claim.room
        return bool(near.all())
