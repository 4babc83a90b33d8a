"""Promise: the commanded motion obeys velocity, acceleration, jerk, position and workspace limits.

The times are stamps of commands, which may be wrong by up to `stamp_s`. Within a time error D a
position changes by at most v D, and a velocity by at most a D. So a command with a wrong stamp
equals one with the right stamp and an error of that size. `audit` of `safety_trial`
allows for the effect of such errors on each divided difference: the error times the sum of the
samples' absolute weights. For the first difference that is |dx| <= v (dt + 2 D). The allowance of
the m-th difference falls with the m-th power of the time between samples, so differences over 1, 2,
4 and 8 commands are checked: short ones detect jumps, long ones detect small but lasting excesses.
A publisher that obeys the limits never causes a violation.
"""

from __future__ import annotations

import numpy as np

from wm_nodes.checks.faults.audit.record import AROUND, AT_ONCE, AuditRecord, BrokenLimit, Command
from wm_nodes.checks.safety_trial.limit_audit import REACH, RELATIVE, Audit, audit, audit_velocities
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import Floats

SAME = 1e-9  # rad, rad/s: the same command
POINT_S = 1e-9  # resolution of the times in a trajectory


class CommandPath:
    """The commands of one path at a time; `cut` ends it. Violations: names of limits, `stamp`,
    `no_stop`.

    stamp_s: bound of the error of a stamp [s]. `slope` (n,): most by which commands change in a
    second. `ahead_s`: from a trajectory's stamp to its first point.
    """

    def __init__(self, config: ArmConfig, stamp_s: float, record: AuditRecord) -> None:
        self._limits, self._record, self._stamp_s = config.limits, record, stamp_s
        self._kinematics = Kinematics(config.model, config.limits.joints, config.hand)
        self._arm, self._interface = config.arm_joints, config.command.interface
        places = self._interface != "velocity"
        still = np.zeros(len(config.limits.joints))
        self._gripper = (config.home if places else still)[self._arm :]
        limits = config.limits
        self.slope = (limits.velocity if places else limits.acceleration)[: self._arm]
        self.ahead_s = 0.0
        self.commands: list[Command] = []
        self._after = 0  # commands of the path that are audited already
        self.rested = False  # the arm stood still before the first of them

    def error_s(self, when_s: float) -> float:
        """Return the bound of the error of a stamp, with that of a float of its size [s]."""
        return self._stamp_s + float(np.spacing(abs(when_s)))

    def add(self, command: Command) -> None:
        """Append to the path; only compare a command that is too close in time to the last one."""
        if self.commands:
            before = self.commands[-1]
            gap_s = command.when_s - before.when_s
            if gap_s <= 2 * self.error_s(command.when_s):
                if gap_s < -2 * self.error_s(command.when_s):
                    self._record.count("stamp")
                    self.cut(rested=False)
                else:
                    self.check_step(before, command.place, command.when_s)
                    return
        self.commands.append(command)

    def check_step(self, before: Command, place: Floats, when_s: float) -> None:
        """Check the change of the command alone, against the first limit."""
        time_s = max(when_s - before.when_s, 0.0) + 2 * self.error_s(when_s)
        name = "acceleration" if self._interface == "velocity" else "velocity"
        step = np.abs(place - before.place)
        self._record.count(name, int((step > self.slope * time_s + SAME).sum()))

    def check_trajectory(self, dues: Floats, places: Floats, velocities: Floats) -> None:
        """Check that a trajectory obeys the limits by itself and ends at rest."""
        self._record.count("no_stop", int((np.abs(velocities[-1]) > SAME).any()))
        most = self._limits.velocity[: self._arm] * (1 + RELATIVE)
        self._record.count("velocity", int((np.abs(velocities) > most).sum()))
        path = [Command(0, due, place, False) for due, place in zip(dues.tolist(), places)]
        self._count(self._audit(path, False, 0, POINT_S))

    def continues(self, place: Floats, when_s: float) -> bool:
        """Return whether the path continues with this command within the limits."""
        path = [*self.commands[-REACH:], Command(0, when_s, place, False)]
        if len(path) > 1 and when_s - path[-2].when_s <= 2 * self.error_s(when_s):
            return bool((np.abs(place - path[-2].place) <= SAME).all())
        rested = self.rested and len(self.commands) <= REACH
        return not +self._audit(path, rested, len(path) - 1).violations

    def cut(self, *, rested: bool) -> None:
        """End the path; the next one begins at rest or not."""
        self.finish()
        self.commands, self._after, self.rested = [], 0, rested

    def finish_long(self) -> None:
        """Audit the new part once it is long enough."""
        if len(self.commands) >= REACH + AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Audit the new part of the path, and keep the commands that later differences need."""
        path, after, record = self.commands, self._after, self._record
        if len(path) == after:
            return
        result = self._audit(path, self.rested, after)
        self._count(result)
        for name, index in result.where[: record.room]:
            before = tuple(old for old in record.recent if old.number < path[0].number)
            until = (*before, *path[: index + 1])[-AROUND:]
            record.broken.append(BrokenLimit(name, path[index].number, until))
        if len(path) > REACH:
            self.rested = False
        self.commands = path[-REACH:]
        self._after = len(self.commands)

    def _count(self, result: Audit) -> None:
        for name, count in (+result.violations).items():
            self._record.count(name, count)

    def _audit(
        self, path: list[Command], rested: bool, after: int, stamp_s: float | None = None
    ) -> Audit:
        """Audit commands with a resting gripper. stamp_s: of one trajectory, else None."""
        times = np.array([command.when_s - path[0].when_s for command in path])
        places = np.array([np.concatenate([command.place, self._gripper]) for command in path])
        error_s = self.error_s(path[-1].when_s) if stamp_s is None else stamp_s
        limits = self._limits
        if self._interface == "velocity":
            return audit_velocities(
                limits, times, places, rested=rested, stamp_s=error_s, after=after
            )
        error: Floats | None = None
        if self._interface == "trajectory" and stamp_s is None:
            error = limits.jerk * self.ahead_s**3 / 3  # as in `Continuity`
        return audit(
            limits, self._kinematics, times, places,
            rested=rested, stamp_s=error_s, error=error, after=after,
        )  # fmt: skip
