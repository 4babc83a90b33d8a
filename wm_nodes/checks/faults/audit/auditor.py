"""The auditor: checks each command to an arm, and the arm's motion, by their true times.

It uses no ROS and no code of the filter. The times are stamps: commands have the publisher's source
timestamp, joint states their header's. A stamp may be wrong by up to `stamp_s`.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from wm_nodes.checks.faults.audit.command_path import CommandPath
from wm_nodes.checks.faults.audit.continuity import Continuity, Trajectory
from wm_nodes.checks.faults.audit.measured_motion import MeasuredMotion
from wm_nodes.checks.faults.audit.path_starts import PathStarts
from wm_nodes.checks.faults.audit.publishers import FIRST, MISSED, NEXT, PublisherOrder
from wm_nodes.checks.faults.audit.record import AuditRecord, BrokenLimit, Command
from wm_nodes.checks.safety_trial.limit_audit import LATE
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.safety.limits import Floats

STAMP_S = 0.0005  # bound of the error of a stamp
NOISE_RAD = 0.0005  # standard deviation of measured joint positions
LATEST_S = 1.0  # measurements of a path's start may arrive this much later
MOVING_S, MOVING = 0.15, 2e-4  # span [s], rad per period


class Auditor:
    """Counts violations over the whole run; `broken` holds the first ones with their commands.

    stamp_s: bound of the error of a stamp [s]. noise_rad: standard deviation of measured positions.

    Commands are one path as long as each follows from the last one. A new path may begin only with
    the first command of a publisher or after `operator_confirmed`, where a resting arm is measured
    (`PathStarts`), and after a gap, as the interface demands (`Continuity`). Violations:

    - velocity, acceleration, jerk, position, workspace, hand_speed: limits of the commanded motion
    - jump: a path began elsewhere
    - publishers: commands of two publishers at once (`PublisherOrder`)
    - malformed: wrong size, not finite, times that do not increase
    - stamp: a stamp before that of the last command
    - no_stop: a trajectory that does not end at rest
    - true_speed, uncaused: motion of the measured arm (`MeasuredMotion`)

    ValueError: commands of interface twist, which cannot be audited.
    """

    def __init__(
        self, config: ArmConfig, stamp_s: float = STAMP_S, noise_rad: float = NOISE_RAD
    ) -> None:
        if config.command.interface == "twist":
            raise ValueError(
                "auditor: got commands of interface twist, expected position, velocity or "
                "trajectory. Use another `command: interface:`."
            )
        self._arm, self._period_s = config.arm_joints, 1.0 / config.rate_hz
        self._positions = config.command.interface != "velocity"
        self._record = AuditRecord()
        self._order = PublisherOrder(self._record)
        self._path = CommandPath(config, stamp_s, self._record)
        error_s = self._path.error_s
        self._motion = MeasuredMotion(config, noise_rad, error_s, self._record)
        self._starts = PathStarts(self._positions, self._motion, error_s, self._record)
        self._continuity = Continuity(config, stamp_s, self._path, self._starts, self._record)
        self._last: Command | None = None
        self.commands = 0
        self._lock = threading.Lock()  # `finish` and others are called from another thread

    # Inputs -------------------------------------------------------------------------------------

    def take_command(
        self, place: Floats, stamp_s: float, sent: int = 0, publisher: str = ""
    ) -> None:
        """Take in a command (arm joints,) [rad], or [rad/s] of a velocity interface.

        stamp_s: its source timestamp [s]; sent: its number as its publisher counts, from 1, 0 where
        that is unknown; publisher: an identity, "" where that is unknown.
        """
        with self._lock:
            self.commands += 1
            if place.shape != (self._arm,) or not np.isfinite(place).all():
                self._order.take(stamp_s, sent, publisher, self._last_s)
                self._record.count("malformed")
                return
            self._take(place, stamp_s, stamp_s, sent, publisher, None)

    def take_trajectory(
        self,
        dues: Floats,
        places: Floats,
        velocities: Floats,
        stamp_s: float,
        sent: int = 0,
        publisher: str = "",
    ) -> None:
        """Take in a trajectory: times from its stamp (P,) [s], positions, velocities (P, n)."""
        with self._lock:
            self.commands += 1
            shape = (len(dues), self._arm)
            if not (
                len(dues)
                and places.shape == velocities.shape == shape
                and np.isfinite(np.column_stack([dues, places, velocities])).all()
                and dues[0] >= 0
                and (np.diff(dues) > 0).all()
            ):
                self._order.take(stamp_s, sent, publisher, self._last_s)
                self._record.count("malformed")
                return
            self._path.check_trajectory(dues, places, velocities)
            trajectory = Trajectory(stamp_s + dues, places, velocities)
            self._path.ahead_s = max(self._path.ahead_s, float(dues[0]))
            when_s = float(trajectory.times[0])
            self._take(places[0], stamp_s, when_s, sent, publisher, trajectory)

    def take_measurement(self, place: Floats, stamp_s: float, source: str = "") -> None:
        """Take in measured positions (n,), arm joints first, with their stamp [s].

        source: identity of their publisher.
        """
        with self._lock:
            if self._motion.take(place[: self._arm], stamp_s, source):
                self._starts.check(stamp_s)

    def operator_confirmed(self, now_s: float) -> None:
        """Record that an operator has confirmed the arm's pose; now_s [s]: clock of the stamps."""
        with self._lock:
            self._continuity.operator_s = now_s

    def expect_rest(self, now_s: float) -> None:
        """Forbid motion of the arm from now on, except for coming to rest."""
        with self._lock:
            self._motion.expect_rest(now_s)

    def may_move(self, now_s: float) -> None:
        """Allow motion of the arm again."""
        with self._lock:
            self._motion.may_move(now_s)

    def set_noise(self, noise_rad: float) -> None:
        """Change the standard deviation of measured positions [rad]."""
        self._motion.noise_rad = noise_rad

    # Results ------------------------------------------------------------------------------------

    @property
    def violations(self) -> dict[str, int]:
        return self._record.violations

    @property
    def broken(self) -> list[BrokenLimit]:
        return self._record.broken

    @property
    def starts(self) -> int:
        """Paths that began where the arm was measured."""
        return self._starts.count

    @property
    def not_received(self) -> int:
        """Commands that were sent and not received here."""
        return self._order.not_received

    @property
    def held_up(self) -> int:
        """Commands that left late."""
        return self._continuity.held_up

    def moving(self, now_s: float) -> bool:
        """Return whether the arm was commanded to move within the last MOVING_S."""
        newest = tuple(self._record.recent)
        recent = [command.place for command in newest if now_s - command.when_s < MOVING_S]
        if len(recent) < 3:
            return False
        if not self._positions:
            return float(np.abs(recent).max()) * self._period_s > MOVING
        return float(np.abs(np.diff(recent, axis=0)).max()) > MOVING

    def finish(self) -> None:
        """Audit all commands so far; `violations` is complete then."""
        with self._lock:
            self._path.finish()
            self._starts.check(np.inf)

    # One command --------------------------------------------------------------------------------

    @property
    def _last_s(self) -> float | None:
        return None if self._last is None else self._last.when_s

    def _take(
        self,
        place: Floats,
        stamp_s: float,
        when_s: float,
        sent: int,
        publisher: str,
        trajectory: Trajectory | None,
    ) -> None:
        order = self._order.take(when_s, sent, publisher, self._last_s)
        last, starts, held_s = self._last, False, 0.0
        if order == NEXT and last is not None:
            starts, held_s = self._continuity.connect(last, place, stamp_s, when_s, self.commands)
        else:
            if order == MISSED and last is not None and self._positions:
                self._path.check_step(last, place, when_s)
            elif order == FIRST:
                self._starts.begin(place, when_s)
                starts = True
            elif self._positions and sent > 1:
                room = self._path.slope * LATE * self._period_s * (sent - 1)
                self._starts.join(place, when_s, room)
            self._path.cut(rested=order == FIRST)
        if held_s:
            when_s -= held_s
            trajectory = trajectory and replace(trajectory, times=trajectory.times - held_s)
        command = Command(self.commands, when_s, place, starts)
        self._path.add(command)
        self._record.recent.append(command)
        self._last, self._continuity.trajectory = command, trajectory
        self._starts.check(when_s - LATEST_S)
        self._path.finish_long()
