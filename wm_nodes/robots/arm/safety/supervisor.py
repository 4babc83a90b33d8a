"""May the arm move now? Watchdogs and latches in front of the safety filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.config.sections import Watch
from wm_nodes.robots.arm.safety.image_watch import ImageWatch
from wm_nodes.robots.arm.safety.joint_watch import STILL_RAD, JointWatch
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.path_alignment import PathAlignment
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.speed_scale import PAUSE
from wm_nodes.robots.arm.safety.tracking import TrackingWatch
from wm_nodes.robots.arm.sensors.wrench import LATCH, STOP, ForceWatch

UNSENT = ("tracking", "gate")  # latches under which the last setpoints were not sent
GRIPPER_S = 1.0  # until a gripper has come to rest after a stop


class Supervisor:
    """Decides each control period whether the target may be followed, or the arm must stop.

    Steady time only: every `now_s` comes from a clock that is never set. Latches (`latched`) last
    until the operator calls `clear`. Other stops last as long as their cause; after each, only a
    plan from an observation made since then counts.

    What is measured never becomes a command that is further than one period's reach from the last
    command: where it would, the arm is latched as `displaced`, and `clear` accepts the measurement.

    forces: the force-torque sensor's, if there is one. grace_s: how much longer than the others
    each joint may be silent, (n,) or one number [s]; so much further it may have moved.

    Its parts watch one source each: `joints`, `images`, `tracking`, `forces`; `path` is where the
    path begins. What is left here is the state that the decision is made of, one attribute per
    cause: more than 15, because each cause starts and ends by itself.
    """

    def __init__(
        self,
        filter: SafetyFilter,
        watch: Watch,
        arm_joints: int,
        *,
        forces: ForceWatch | None = None,
        grace_s: npt.ArrayLike = 0.0,
    ) -> None:
        self.filter, self.forces = filter, forces
        self._arm = arm_joints
        self.joints = JointWatch(filter.limits, arm_joints, watch.driver_s, grace_s)
        self.images = ImageWatch(watch)
        self.path = PathAlignment(filter, arm_joints)
        self.tracking = TrackingWatch(filter, self.path, arm_joints, watch.tracking_rad)
        self.latched: dict[str, str] = {}
        self.stops: Counter[str] = Counter()
        self.stopping: tuple[str, ...] = ("driver",)
        self.connection_faults: dict[str, str] = {}
        self._free_s = -np.inf  # since when nothing forbids motion
        self._stopped_s = -np.inf  # when the present stop began
        self._away = True  # the driver was silent, and its position is not checked yet
        self.began = False  # has a command been sent?
        self.dry_run = False  # nothing is commanded: the arm cannot follow
        self.released = False  # the driver's controller is being switched, or is not active
        self.driver_speed = ""  # why the driver's own speed forbids motion: unknown, or paused
        self.begins_paused = False  # the path was started where the paused arm stands

    # Inputs -------------------------------------------------------------------------------------

    def update_joints(self, position: Floats, now_s: float) -> None:
        """Take in joint states: position (n,) [rad, m]."""
        silent = self.joints.silent(now_s)
        if not self.joints.take(position, now_s):
            self.filter.interventions["implausible"] += 1
            return
        self.tracking.following.measured(position, now_s)
        if not self.began:
            if (self.path.place(position) != self.filter.x).any():
                self._start_path(position)
        elif (silent or self._away) and self.filter.at_rest:
            self._check_return(position, now_s)
        elif self._paused_elsewhere(position, now_s):
            self._start_path(position)
            self.begins_paused = True

    def update_image(
        self, name: str, came_s: float, taken_s: float | None = None, changed: bool = True
    ) -> None:
        """Take in that an image arrived; `changed`: it differs from the one before.

        taken_s: steady time at which it was taken, by its stamp; None: when it arrived.
        """
        self.images.take(name, came_s, taken_s, changed)

    def update_connections(self, faults: Mapping[str, str], must_yield: bool = False) -> None:
        """Take in the faults of the driver's connections; must_yield: another has precedence."""
        if self.connection_faults or faults:  # what happens meanwhile is unknown
            self._away = True
            self.joints.forget_rest()
        self.connection_faults = dict(faults)
        if must_yield and self.began:
            self.latch("commander", faults.get("commander", "another node commands this arm"))

    def update_sent(self, position: Floats, now_s: float) -> None:
        """Take in the command (n,) that was sent at `now_s`."""
        self.tracking.following.commanded(position, now_s)

    def _paused_elsewhere(self, position: Floats, now_s: float) -> bool:
        """Does a paused arm stand away from its last command, to which it must not go later?"""
        if self.driver_speed != PAUSE or not self.path.positions or self.released:
            return False
        if self.latched.keys() - {"tracking"}:
            return False
        stands = self.filter.at_rest and self.joints.stands(now_s)
        return stands and self.path.offset(position) > STILL_RAD

    def _check_return(self, position: Floats, now_s: float) -> None:
        """The driver is back: is the arm where it was commanded to be?"""
        stands = self.joints.stands(now_s)
        if (self.dry_run or not self.path.positions) and stands:
            self._start_path(position)
            self._away = False
        elif self.path.within_reach(position) and not self.path.unsent:
            self._away = False
        elif stands:
            off = f"{self.path.offset(position):.2f} rad from the last command"
            self.latch("displaced", f"{self.path.farthest(position)} is {off}")

    # The operator -------------------------------------------------------------------------------

    def latch(self, name: str, why: str) -> None:
        """Stop, and stay stopped until the operator calls `clear`."""
        if name not in self.latched:
            self.stops[name] += 1
            self.latched[name] = why

    def clear(self, now_s: float) -> str:
        """The operator confirms that the cause is gone and that the arm is where it is measured.

        Returns "" or why it is refused: the arm must be at rest, and a driver that is known must be
        free of faults of its connections.
        """
        if not self.filter.at_rest:
            return "the arm is still stopping: clear again when it stands"
        lasting = [text for name, text in self.connection_faults.items() if name != "controller"]
        if lasting:
            return f"the cause is still there: {lasting[0]}"
        if self.forces is not None and (excess := self.forces.excess()):
            return f"the cause is still there: {excess}: free the arm, then clear again"
        fresh = not self.joints.silent(now_s)
        if fresh and not self.joints.stands(now_s):
            return "the measured arm moves: clear again when it stands"
        self.path.unsent = self.path.unsent or not self.latched.keys().isdisjoint(UNSENT)
        self.latched.clear()
        self._free_s = now_s
        self.tracking.forget_lag()
        measured = self.joints.measured if fresh else None
        if measured is not None and (self.path.unsent or not self.path.within_reach(measured)):
            self._start_path(measured)
        self._away = not fresh
        return ""

    def release(self) -> None:
        """Command nothing before `take`: the driver's controller is being switched."""
        self.released = True

    def take(self, restart: bool) -> None:
        """Command again. restart: the path starts where the arm is measured, as the first one."""
        self.released = False
        self.joints.forget_rest()
        self._away = True  # it may have been moved meanwhile
        if restart:
            self.began = self.path.unsent = False
            self.tracking.forget_lag()
            self.path.starts += 1
            if self.joints.measured is not None:
                self._start_path(self.joints.measured)

    def invalidate_plans(self, now_s: float) -> None:
        """Plans of observations made before now do not count any more."""
        self._free_s = max(self._free_s, now_s)

    # State --------------------------------------------------------------------------------------

    @property
    def measured(self) -> Floats | None:
        """Where the arm is (n,), by accepted joint states."""
        return self.joints.measured

    def ready(self, now_s: float) -> bool:
        """Is the driver there: one source, fresh, commandable, and at rest for a while?

        Once commands are being sent the arm need not be at rest.
        """
        if self.released or self.joints.silent(now_s) or self.connection_faults:
            return False
        return not self._away if self.began else self.joints.stands(now_s)

    def image_age_s(self, now_s: float) -> float:
        """Return the age of the cameras' newest images, the oldest's, by stamp, at most 1 h [s]."""
        return self.images.age_s(now_s)

    # One period ---------------------------------------------------------------------------------

    def step(self, target: npt.ArrayLike | None, observed_s: float, now_s: float) -> Setpoint:
        """Return what to command.

        target: joint velocities (n,) [rad/s] of a plan; None: stop. observed_s: steady time of the
        observation that the plan answers.
        """
        self._latch_excess(now_s)
        stops = self._stops(now_s)
        if stops:
            self._free_s = now_s
            self.stops.update(set(stops) - set(self.stopping))
        elif target is None or observed_s < self._free_s:
            stops = ("plan",)
            self.stops["plan"] += "plan" not in self.stopping
        self.stopping = stops
        if not stops or stops == ("plan",):
            self._stopped_s = now_s
        measured = self.joints.measured
        if measured is not None and now_s - self._stopped_s < GRIPPER_S and not self._away:
            self.path.gripper = measured[self._arm :]
        slow = not stops and self.images.late(now_s)
        setpoint = self.filter.step(None if stops else target, now_s, slow=slow)
        if setpoint.late:
            self._free_s = now_s
            self.stops["late"] += 1
        return replace(setpoint, why=(*setpoint.why, *(f"stop/{name}" for name in stops)))

    def _latch_excess(self, now_s: float) -> None:
        """Latch when the arm does not follow, or touches something."""
        watched = self.began and not (self.dry_run or self.released)
        watched = watched and not self.joints.silent(now_s)
        measured = self.joints.measured if watched else None
        if problem := self.tracking.problem(measured, self.joints.stands(now_s), now_s):
            self.latch("tracking", problem)
        if self.forces is not None and (excess := self.forces.excess()):
            self.latch(LATCH, excess)

    def _stops(self, now_s: float) -> tuple[str, ...]:
        names = [*self.latched, *self.connection_faults]
        if self.joints.silent(now_s):
            self._away = True  # its position is unknown when it comes back
        if self.joints.measured is None or (self._away and self.began):
            names.append("driver")
        if self.forces is not None and self.forces.silent(now_s):
            names.append(STOP)
        if self.released:
            names.append("deactivated")
        names += [name for name in (self.driver_speed, self.images.stop(now_s)) if name]
        return tuple(dict.fromkeys(names))

    def _start_path(self, measured: Floats) -> None:
        """Start the path where the arm is measured."""
        self.path.start(measured)
        self.tracking.following.forget()
