"""May the arm move now? Watchdogs and latches in front of the safety filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.config import Watch
from wm_nodes.robots.arm.following import FollowWatch
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety_filter import POSITIONS, SafetyFilter, Setpoint
from wm_nodes.robots.arm.speed_scale import PAUSE, Slowdown
from wm_nodes.robots.arm.wrench import LATCH, STOP, ForceWatch

NOISE = 0.005  # rad (m): how far beyond a limit a resting joint may seem to be
AGREE = 5  # joint states in a row that must agree on a position that is new
STEP = 0.02  # rad (m) of noise between two
SINCE_S = 0.1
OLD_S = 3600.0  # the largest age of an image that is reported
FARTHEST = 20.0  # rad (m): no joint is there
UNSENT = ("tracking", "gate")  # latches under which the last setpoints were not sent
STUCK_RAD = 0.05  # an arm that stands so far behind its command does not follow
LAG_S = 0.1  # how long the arm may be too far behind before that is believed
SLOWER_S = 0.7  # beside the longest stop: until a slower driver's lag is made up for
HANDLED = 0.1  # share of a gripper's range: what moved further since a stop was moved by hand
HANDLED_S = 1.0  # until a gripper has come to rest after a stop
STILL_RAD, STILL_S = 0.01, 0.2  # an arm stands that stayed so near to one position for so long


class Guard:
    """Decides each control period whether the target may be followed, or the arm must stop.

    Steady time only: every `now_s` comes from a clock that is never set. Latches (`latched`) last
    until the operator calls `clear`. Other stops last as long as their cause; after each, only a
    plan from an observation made since then counts.

    What is measured never becomes a command that is further than one period's reach from the last
    command: where it would, the arm is latched as `displaced`, and `clear` accepts the measurement.

    forces: the force-torque sensor's, if there is one. grace_s: how much longer than the others
    each joint may be silent, (n,) or one number [s]; so much further it may have moved.
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
        self.filter, self.watch, self.forces = filter, watch, forces
        self._grace_s = np.asarray(grace_s, np.float64)
        self._arm = arm_joints  # a gripper that holds something lags behind, rightly
        self._reach = filter.limits.velocity * filter.period_s
        self._places = filter.interface in POSITIONS
        self.latched: dict[str, str] = {}
        self.stops: Counter[str] = Counter()
        self.stopping: tuple[str, ...] = ("driver",)
        self.wires: dict[str, str] = {}  # faults of the topics
        self._driver_s = -np.inf
        self._measured: Floats | None = None
        self._claimed: Floats | None = None  # joint states that are not believed yet
        self._claimed_s, self._agreed = -np.inf, 0
        self._stand: Floats | None = None  # a position near which the arm has been since then
        self._stand_since_s = np.inf
        self._came: dict[str, float] = {}  # of each camera's newest image
        self._taken: dict[str, float] = {}
        self._changed: dict[str, float] = {}
        self._free_s = -np.inf  # since when nothing forbids motion
        self._lag_s: float | None = None
        self._following = FollowWatch(arm_joints)
        self._away = True  # the driver was silent, and its position is not checked yet
        self.began = False  # has a command been sent?
        self._unsent = False  # were the last setpoints computed, but not sent?
        self.starts = 0  # how often the path began anew where the arm is measured
        self.dry_run = False  # nothing is commanded: the arm cannot follow
        self.released = False  # the driver's controller is being switched, or is not active
        self.driver_speed = ""  # why the driver's own speed forbids motion: unknown, or paused
        self.begins_paused = False  # the path began anew where the paused arm stands
        self.slowdown = Slowdown(filter.longest_stop_s + SLOWER_S)
        self._stopped_s = -np.inf  # when the present stop began
        self._gripper: Floats | None = None  # where the gripper was measured when it began

    # Inputs -------------------------------------------------------------------------------------

    def saw_driver(self, position: Floats, now_s: float) -> None:
        """Take in joint states: position (n,) [rad, m].

        Positions that jump are not believed unless several in a row agree: a broken or second
        publisher must neither move the arm nor count as a living driver.
        """
        if not self._believe(position, now_s):
            self.filter.interventions["implausible"] += 1
            self._forget_rest()
            return
        silent = self._silent(now_s)
        self._measured, self._driver_s = position, now_s
        self._following.measured(position, now_s)
        near = (
            self._stand is not None and (np.abs(position - self._stand) <= STILL_RAD)[: self._arm]
        )
        if silent or not np.all(near):
            self._stand, self._stand_since_s = position, now_s
        if not self.began:
            if (self._place() != self.filter.x).any():
                self._start(self._place())
        elif (silent or self._away) and self.filter.at_rest:
            self._check_return()
        elif self._paused_elsewhere(now_s):
            self._adopt()
            self.begins_paused = True

    def _paused_elsewhere(self, now_s: float) -> bool:
        """Does a paused arm stand away from its last command, to which it must not go later?"""
        if self.driver_speed != PAUSE or not self._places or self.released:
            return False
        if self.latched.keys() - {"tracking"}:
            return False
        return self.filter.at_rest and self._stands(now_s) and self._off() > STILL_RAD

    def _check_return(self) -> None:
        """The driver is back: is the arm where it was commanded to be?"""
        assert self._measured is not None
        if (self.dry_run or not self._places) and self._stands(self._driver_s):
            self._adopt()
            self._away = False
        elif self._within_reach() and not self._unsent:
            self._away = False
        elif self._stands(self._driver_s):
            joint = self._farthest()
            self.latch("displaced", f"{joint} is {self._off():.2f} rad from the last command")

    def _believe(self, position: Floats, now_s: float) -> bool:
        most = 2.0 * self.filter.limits.velocity
        if self._measured is not None:
            since = min(max(now_s - self._driver_s, 0.0), SINCE_S) + self._grace_s
            if (np.abs(position - self._measured) <= most * since + STEP).all():
                self._agreed = 0
                return True
        since = min(max(now_s - self._claimed_s, 0.0), SINCE_S) + self._grace_s
        near = (
            self._claimed is not None
            and (np.abs(position - self._claimed) <= most * since + STEP).all()
        )
        sane = (np.abs(position) < FARTHEST).all()
        self._agreed = self._agreed + 1 if near and sane else int(sane)
        self._claimed, self._claimed_s = position, now_s
        return self._agreed >= AGREE

    def saw_camera(
        self, name: str, came_s: float, taken_s: float | None = None, changed: bool = True
    ) -> None:
        """Take in that an image came; `changed`: it differs from the one before.

        taken_s: steady time at which it was taken, by its stamp; None: when it came.
        """
        self._came[name] = came_s
        self._taken[name] = came_s if taken_s is None else taken_s
        if changed or name not in self._changed:
            self._changed[name] = came_s

    def saw_wires(self, faults: Mapping[str, str], must_yield: bool = False) -> None:
        """Take in the faults of the topics; must_yield: another commander has the right of way."""
        if self.wires or faults:  # what happens meanwhile is unknown
            self._away = True
            self._forget_rest()
        self.wires = dict(faults)
        if must_yield and self.began:
            self.latch("commander", faults.get("commander", "another node commands this arm"))

    def sent(self, position: Floats, now_s: float) -> None:
        """Note the command (n,) that was sent at `now_s`."""
        self._following.commanded(position, now_s)

    # The operator -------------------------------------------------------------------------------

    def latch(self, name: str, why: str) -> None:
        """Stop, and stay stopped until the operator calls `clear`."""
        if name not in self.latched:
            self.stops[name] += 1
            self.latched[name] = why

    def clear(self, now_s: float) -> str:
        """The operator confirms that the cause is gone and that the arm is where it is measured.

        Returns "" or why it is refused: the arm must be at rest, and a driver that is known must be
        free of faults of the topics.
        """
        if not self.filter.at_rest:
            return "the arm is still stopping: clear again when it stands"
        lasting = [text for name, text in self.wires.items() if name != "controller"]
        if lasting:
            return f"the cause is still there: {lasting[0]}"
        if self.forces is not None and (excess := self.forces.excess()):
            return f"the cause is still there: {excess}: free the arm, then clear again"
        fresh = not self._silent(now_s)
        if fresh and not self._stands(now_s):
            return "the measured arm moves: clear again when it stands"
        self._unsent = self._unsent or not self.latched.keys().isdisjoint(UNSENT)
        self.latched.clear()
        self._free_s, self._lag_s = now_s, None
        if fresh and (self._unsent or not self._within_reach()):
            self._adopt()
        self._away = not fresh
        return ""

    def release(self) -> None:
        """Command nothing before `take`: the driver's controller is being switched."""
        self.released = True

    def take(self, anew: bool) -> None:
        """Command again. anew: the path begins where the arm is measured, as at the start."""
        self.released = False
        self._forget_rest()
        if anew:
            self.began, self._away, self._unsent, self._lag_s = False, True, False, None
            self.starts += 1
            if self._measured is not None:
                self._adopt()
        else:
            self._away = True  # it may have been moved meanwhile

    def invalidate_plans(self, now_s: float) -> None:
        """Plans of observations made before now do not count any more."""
        self._free_s = max(self._free_s, now_s)

    # State --------------------------------------------------------------------------------------

    @property
    def measured(self) -> Floats | None:
        """Where the arm is (n,), by joint states that were believed."""
        return self._measured

    def ready(self, now_s: float) -> bool:
        """Is the driver there: one source, fresh, commandable, and at rest for a while?

        Once commands are being sent the arm need not be at rest.
        """
        if self.released or self._silent(now_s) or self.wires or (self.began and self._away):
            return False
        return self.began or self._stands(now_s)

    # One period ---------------------------------------------------------------------------------

    def step(self, wanted: npt.ArrayLike | None, made_s: float, now_s: float) -> Setpoint:
        """Return what to command. wanted (n,) rad/s by a plan whose observation is of `made_s`."""
        self._check_tracking(now_s)
        if self.forces is not None and (excess := self.forces.excess()):
            self.latch(LATCH, excess)
        stops = self._stops(now_s)
        if stops:
            self._free_s = now_s
            self.stops.update(set(stops) - set(self.stopping))
        elif wanted is None or made_s < self._free_s:
            stops = ("plan",)
            self.stops["plan"] += "plan" not in self.stopping
        self.stopping = stops
        if not stops or stops == ("plan",):
            self._stopped_s = now_s
        if self._measured is not None and now_s - self._stopped_s < HANDLED_S and not self._away:
            self._gripper = self._measured[self._arm :]
        slow = not stops and self._late_images(now_s)
        setpoint = self.filter.step(None if stops else wanted, now_s, slow=slow)
        if setpoint.late:
            self._free_s = now_s
            self.stops["late"] += 1
        return replace(setpoint, why=(*setpoint.why, *(f"stop/{name}" for name in stops)))

    def _stops(self, now_s: float) -> tuple[str, ...]:
        watch, names = self.watch, [*self.latched, *self.wires]
        if self._silent(now_s):
            self._away = True  # its position is unknown when it comes back
        if self._measured is None or (self._away and self.began):
            names.append("driver")
        if self.forces is not None and self.forces.silent(now_s):
            names.append(STOP)
        if self.released:
            names.append("deactivated")
        if self.driver_speed:
            names.append(self.driver_speed)
        if watch.camera_stop_s and _age(self._came, now_s) > watch.camera_stop_s:
            names.append("camera")
        elif watch.max_image_age_s and _age(self._taken, now_s) > 2 * watch.max_image_age_s:
            names.append("camera_late")
        elif watch.camera_frozen_s and _age(self._changed, now_s) > watch.camera_frozen_s:
            names.append("frozen")
        return tuple(dict.fromkeys(names))

    def _late_images(self, now_s: float) -> bool:
        watch = self.watch
        late = _age(self._taken, now_s) > (watch.max_image_age_s or np.inf)
        return late or _age(self._came, now_s) > (watch.camera_slow_s or np.inf)

    def image_age_s(self, now_s: float) -> float:
        """Return the age of the cameras' newest images, the oldest's, by stamp; OLD_S at most."""
        return min(_age(self._taken, now_s), OLD_S)

    def _silent(self, now_s: float) -> bool:
        limit = self.watch.driver_s or np.inf
        return self._measured is None or not 0 <= now_s - self._driver_s <= limit

    def _check_tracking(self, now_s: float) -> None:
        """Latch when the arm has been too far from where it should be for a while."""
        watched = self.watch.tracking_rad and self.began and not (self.dry_run or self.released)
        if not watched or self._silent(now_s) or self.slowdown.lasts(now_s):
            self._lag_s = None
            return
        joint = self._following.standing_joint()
        if joint is not None:
            name, off = self.filter.limits.joints[joint], self._offsets()[joint]
            self.latch("tracking", f"{name} stands, {off:.2f} rad behind")
        placed = self._places or not self.filter.at_rest  # at velocity 0 no place is commanded
        if placed and self._stands(now_s) and self._stuck():
            self.latch("tracking", f"{self._farthest()} stands, {self._off():.2f} rad behind")
        elif self._off() <= self.watch.tracking_rad:
            self._lag_s = None
        elif self._lag_s is None:
            self._lag_s = now_s
        elif now_s - self._lag_s > LAG_S:
            self.latch("tracking", f"{self._farthest()} is {self._off():.2f} rad behind")

    def _stuck(self) -> bool:
        """Is a joint too far behind, also if the driver takes commands late?"""
        behind = (self._offsets() > STUCK_RAD) & (
            self._following.lag_of_delayed() > 0.5 * STUCK_RAD
        )
        return bool(behind.any())

    def _stands(self, now_s: float) -> bool:
        """Has the measured arm been at rest for a while?"""
        return now_s - self._stand_since_s >= STILL_S

    def _forget_rest(self) -> None:
        self._stand, self._stand_since_s = None, np.inf

    def _adopt(self) -> None:
        """Take the path to begin where the arm is measured."""
        self._start(self._place())

    def _place(self) -> Floats:
        """Return where the arm is measured (n,). A gripper goes on holding, with the opening last
        commanded, unless it was moved by hand since the arm stopped.
        """
        assert self._measured is not None
        place, limits = self._measured.copy(), self.filter.limits
        if self._gripper is not None:
            moved = np.abs(place[self._arm :] - self._gripper)
            held = moved <= HANDLED * (limits.high - limits.low)[self._arm :]
            place[self._arm :] = np.where(held, self.filter.x[self._arm :], place[self._arm :])
        return place

    def _start(self, place: Floats) -> None:
        """Begin a path at rest; a sensor's noise does not take a joint beyond its limit."""
        limits = self.filter.limits
        inside = np.clip(place, limits.low, limits.high)
        noise = np.minimum(NOISE, 0.5 * self._reach)
        self.filter.start(np.where(np.abs(place - inside) < noise, inside, place))
        self.starts += 1
        self._unsent = False
        self._following.forget()

    def _offsets(self) -> Floats:
        assert self._measured is not None
        return np.abs(self._measured - self.filter.x)[: self._arm]

    def _off(self) -> float:
        """Return how far the arm is from where it is commanded to be [rad]."""
        return float(self._offsets().max(initial=0.0))

    def _within_reach(self) -> bool:
        return bool((self._offsets() <= self._reach[: self._arm]).all())

    def _farthest(self) -> str:
        return self.filter.limits.joints[int(self._offsets().argmax())]


def _age(times: Mapping[str, float], now_s: float) -> float:
    return max((now_s - then for then in list(times.values())), default=0.0)
