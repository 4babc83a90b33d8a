"""Promise: after a gap a command follows from the last one, as its interface demands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_nodes.checks.faults.audit.command_path import SAME, CommandPath
from wm_nodes.checks.faults.audit.path_starts import PathStarts
from wm_nodes.checks.faults.audit.record import AROUND, AuditRecord, BrokenLimit, Command
from wm_nodes.checks.safety_trial.limit_audit import HERMITE, LATE, RELATIVE, ROUNDING, hermite
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.safety.limits import Floats

CONFIRMED_S = 3.0  # an operator's confirmation allows one new path within this time
# A command that was delayed on its way out: earliest time at which it was computed, and latest time
# at which it left, in periods after the last command.
EARLIEST, HELD_UP = 0.7, 3.0


@dataclass(frozen=True)
class Trajectory:
    """A trajectory message: times (P,) [s], positions and velocities (P, n)."""

    times: Floats
    places: Floats
    velocities: Floats

    def at(self, when_s: float) -> tuple[Floats, float]:
        """Return the position (n,) at a time, and the time step that it is interpolated over."""
        index = int(np.searchsorted(self.times, when_s))
        if index in (0, len(self.times)):
            return self.places[min(index, len(self.times) - 1)], 0.0
        both = slice(index - 1, index + 1)
        step_s = float(self.times[index] - self.times[index - 1])
        share = (when_s - float(self.times[index - 1])) / step_s
        return hermite(self.places[both], self.velocities[both], step_s, share), step_s


class Continuity:
    """Checks each command against the last one of its publisher. Violation: `jump`.

    After more than LATE periods without a command: a position equals the last one; a trajectory
    begins on the last one; a velocity is zero once the driver has timed out, else within one
    period's change of the last. A command that leaves up to HELD_UP periods after the last one, and
    that continues the path like one computed within LATE periods, was delayed on its way out, in
    the operating system or the middleware: it is counted as `held_up`. Its step is no larger than
    that of a command in time. A trajectory's times count from its computation.
    """

    def __init__(
        self,
        config: ArmConfig,
        stamp_s: float,
        path: CommandPath,
        starts: PathStarts,
        record: AuditRecord,
    ) -> None:
        self._config, self._stamp_s = config, stamp_s
        self._path, self._starts, self._record = path, starts, record
        self._period_s, self._interface = 1.0 / config.rate_hz, config.command.interface
        self._jerk = config.limits.jerk[: config.arm_joints]
        self.trajectory: Trajectory | None = None  # the last one
        self.operator_s: float | None = None  # when the operator confirmed where the arm is
        self.held_up = 0

    def connect(
        self, last: Command, place: Floats, stamp_s: float, when_s: float, number: int
    ) -> tuple[bool, float]:
        """Check that a command follows from the last one.

        Returns whether a path begins with it, and how long it was delayed on its way out [s].
        """
        gap_s, slack_s = when_s - last.when_s, 2 * self._path.error_s(when_s)
        late = gap_s - LATE * self._period_s
        follows = {
            "position": self._follows_position,
            "velocity": self._follows_velocity,
            "trajectory": self._follows_trajectory,
        }[self._interface]
        if late > -slack_s and follows(last, place, stamp_s, when_s, late > slack_s):
            return False, 0.0
        confirmed = (
            self._interface != "velocity"
            and self.operator_s is not None
            and -slack_s <= when_s - self.operator_s <= CONFIRMED_S
        )
        if confirmed and (late > slack_s or not self._path.continues(place, when_s)):
            self.operator_s = None
            self._path.cut(rested=True)
            self._starts.begin(place, when_s)
            return True, 0.0
        if late > slack_s and (computed_s := self._computed_s(last, place, when_s)) is not None:
            self.held_up += 1
            self._path.cut(rested=False)
            return False, when_s - computed_s if self._interface == "trajectory" else 0.0
        if late > slack_s:
            self._record.count("jump")
            self._keep_jump(last, Command(number, when_s, place, False))
            self._path.cut(rested=self._interface != "velocity")
        elif self.trajectory is not None:
            sent_s = when_s - stamp_s + when_s - float(self.trajectory.times[0])
            self._record.count("jump", int(self._off(place, when_s, sent_s)))
        return False, 0.0

    def _computed_s(self, last: Command, place: Floats, when_s: float) -> float | None:
        """Return when a command was computed that left later than LATE periods after the last one.

        None: it does not continue the path at any time up to then.
        """
        period_s = self._period_s
        if when_s - last.when_s > HELD_UP * period_s:
            return None
        times = np.arange(EARLIEST * period_s, LATE * period_s, self._stamp_s) + last.when_s
        fitting = [time_s for time_s in times.tolist() if self._path.continues(place, time_s)]
        return fitting[len(fitting) // 2] if fitting else None

    def _follows_position(
        self, last: Command, place: Floats, stamp_s: float, when_s: float, sure: bool
    ) -> bool:
        """After a gap: the driver held the last command."""
        if (np.abs(place - last.place) > SAME).any():
            return False
        self._path.cut(rested=True)
        return True

    def _follows_velocity(
        self, last: Command, place: Floats, stamp_s: float, when_s: float, sure: bool
    ) -> bool:
        """After a gap: the driver has stopped by itself, or the last velocity was held."""
        timeout_s = self._config.command.timeout_s or np.inf
        gap_s = when_s - last.when_s + 2 * self._path.error_s(when_s)
        if gap_s >= timeout_s and not place.any():
            self._path.cut(rested=True)
            return True
        most = self._path.slope * self._period_s * (1 + RELATIVE) + SAME
        if not sure or (np.abs(place - last.place) > most).any():
            return False
        self._path.cut(rested=False)
        return True

    def _follows_trajectory(
        self, last: Command, place: Floats, stamp_s: float, when_s: float, sure: bool
    ) -> bool:
        """After a gap: the driver followed the last trajectory. Its points join the path.

        Otherwise the path consists of the first points. The commanded path differs from each by
        what `_off` allows, as the next command comes before that point is reached.
        """
        trajectory = self.trajectory
        if not sure or trajectory is None:
            return False
        if self._off(place, when_s, when_s - stamp_s):
            return False
        for due_s, point in zip(trajectory.times[1:].tolist(), trajectory.places[1:]):
            if due_s < stamp_s:
                self._path.add(Command(last.number, due_s, point, False))
        if when_s >= trajectory.times[-1]:
            self._path.cut(rested=True)
        return True

    def _off(self, place: Floats, when_s: float, since_s: float) -> bool:
        """Return whether a point is off the last trajectory, which the path left `since_s` ago.

        Both obey the jerk limit j and agree before that: they differ by at most j T³ / 3.
        """
        assert self.trajectory is not None
        error_s = 2 * self._path.error_s(when_s)
        expected, step_s = self.trajectory.at(when_s)
        allowed = self._path.slope * error_s + HERMITE * self._jerk * step_s**3
        allowed = allowed + self._jerk * (max(since_s, 0.0) + error_s) ** 3 / 3 + ROUNDING
        return bool((np.abs(place - expected) > allowed).any())

    def _keep_jump(self, last: Command, command: Command) -> None:
        """Keep the commands around a path that began elsewhere after a gap."""
        if not self._record.room:
            return
        off = np.abs(command.place - last.place)
        joint = int(off.argmax())
        note = (
            f"{1e3 * (command.when_s - last.when_s):.2f} ms after the last command, late from "
            f"{1e3 * LATE * self._period_s:.0f} ms on: {self._config.limits.joints[joint]} off by "
            f"{off[joint]:.4f}"
        )
        recent = (*self._record.recent, command)[-AROUND:]
        self._record.broken.append(BrokenLimit("jump", command.number, recent, note))
