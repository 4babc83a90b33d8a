"""The auditor: checks each command to an arm, and the arm's motion, by their true times.

It uses no ROS and no code of the filter. The times are stamps: commands have the publisher's source
timestamp, joint states their header's. A stamp may be wrong by up to `stamp_s`.

Wrong stamps: within a time error D a position changes by at most v D, and a velocity by at most a
D. So a command with a wrong stamp equals one with the right stamp and an error of that size.
`audit` of `wm_nodes.checks.safety_trial` allows for the effect of such errors on each divided
difference: the error times the sum of the samples' absolute weights. For the first difference that
is |dx| <= v (dt + 2 D). The allowance of the m-th difference falls with the m-th power of the time
between samples, so differences over 1, 2, 4 and 8 commands are checked: short ones find throws,
long ones find small excesses that last. A publisher that obeys the limits never raises an alarm.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wm_nodes.checks.safety_trial import (
    HERMITE,
    LATE,
    REACH,
    RELATIVE,
    ROUNDING,
    Audit,
    audit,
    audit_velocities,
    hermite,
)
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats

STAMP_S = 0.0005  # bound of the error of a stamp
NOISE_RAD = 0.0005  # standard deviation of measured joint positions
NOISE_SIGMAS = 10.0  # of a difference of two measurements: 7 of each
SAME = 1e-9  # rad, rad/s: the same command
NEAR_RAD = 0.03  # a path may begin so near to the measured arm
FRESH_S = 0.2  # age of a measurement that a path may begin at
RESTING_RAD = 0.02  # a resting arm moves less within FRESH_S
CONFIRMED_S = 3.0  # an operator's confirmation allows one beginning within this time
JUDGED_S = 1.0  # after a beginning, no older measurements are waited for
EARLIEST, HELD_UP = 0.7, 3.0  # periods after the last command: when one may have been made that
# was held up on its way out, and until when it must have left
SILENT_S = 0.3  # an earlier publisher must have been silent for so long
SPEED_SAMPLES = 3  # measurements between the two that a speed is taken from
SPEED_SHARE = 1.25  # of the velocity limit, that the arm itself may reach
SETTLE_S = 1.5  # until an arm that is expected to rest must stand
MOVED_RAD = 0.02  # a standing arm that moved by more was moved
MOVING = 2e-4  # rad per period
AROUND = 12  # commands before a broken limit that are kept with it
AT_ONCE = 200  # commands that are audited together
KEPT = 20  # broken limits that are kept with their commands
TRACE_S, TRACE = 2.5, 25  # what is noted of a joint that moved: span [s], measurements
MEASURED = 1000  # measurements that are kept of each source
POINT_S = 1e-9  # resolution of the times in a trajectory


@dataclass(frozen=True)
class Heard:
    """A command: its number as the auditor counts, its stamp [s], the commanded values (n,)."""

    number: int
    when_s: float
    place: Floats
    anew: bool  # a path began with it


@dataclass(frozen=True)
class Broken:
    """A limit that was broken, and the commands up to it."""

    limit: str
    number: int  # of the command
    commands: tuple[Heard, ...]
    note: str = ""  # what was found, and when


@dataclass(frozen=True)
class _Claim:
    """A path began: it must be within `room` (n,) of the arm as measured at `when_s`."""

    when_s: float
    place: Floats
    room: Floats
    first: bool  # False: an unknown number of commands was missed, so the arm may move already


@dataclass(frozen=True)
class _Motion:
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


@dataclass
class Auditor:
    """Counts violations over the whole run; `broken` holds the first ones with their commands.

    stamp_s: bound of the error of a stamp [s]. noise_rad: standard deviation of measured positions.

    Commands are one path as long as each follows from the last one. A new path may begin only:
    with the first command of a publisher or after `operator`, where a resting arm is measured; and
    after more than 1.5 periods without a command, as the interface demands (position: at the last
    command; trajectory: on the last trajectory; velocity: at zero once the driver has timed out,
    else within one period's change of the last velocity). A command that leaves up to HELD_UP
    periods after the last one, and that continues the path as one made within 1.5 periods, was held
    up on its way out, in the operating system or the middleware: it is counted as `held_up`. Its
    step is no larger than that of a command in time. A trajectory's times count from when it was
    made. Violations:

    - velocity, acceleration, jerk, position, workspace, hand_speed: limits of the commanded motion
    - jump: a path began elsewhere
    - publishers: commands of two publishers within SILENT_S, or of an earlier one again
    - malformed: wrong size, not finite, times that do not increase
    - stamp: a stamp before that of the last command
    - no_stop: a trajectory that does not end at rest
    - true_speed: the measured arm moved faster than SPEED_SHARE of a velocity limit
    - uncaused: the measured arm moved while `expect_rest` held
    """

    config: ArmConfig
    stamp_s: float = STAMP_S
    noise_rad: float = NOISE_RAD
    violations: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    jumps: int = 0  # paths that began where the arm was measured
    commands: int = 0
    unheard: int = 0  # commands that were sent and not received here
    held_up: int = 0  # commands that left late

    def __post_init__(self) -> None:
        config = self.config
        self._hand = Kinematics(config.model, config.limits.joints, config.hand)
        self._arm = config.arm_joints
        self._period_s = 1.0 / config.rate_hz
        self._interface = config.command.interface
        if self._interface == "twist":
            raise ValueError("auditor: commands of interface 'twist' cannot be audited.")
        places = self._interface != "velocity"
        still = np.zeros(len(config.limits.joints))
        self._grip = (config.home if places else still)[self._arm :]
        limits = config.limits
        self._slope = (limits.velocity if places else limits.acceleration)[: self._arm]
        self._lock = threading.Lock()  # `finish` and others are called from another thread
        self._last: Heard | None = None
        self._motion: _Motion | None = None
        self._held_s = 0.0  # how long the trajectory that is being heard was held up
        self._ahead_s = 0.0  # from a trajectory's stamp to its first point
        self._path: list[Heard] = []
        self._after = 0  # samples of the path that are audited already
        self._rested = False
        self._publisher, self._sent = "", 0
        self._past: set[str] = set()
        self._operator_s: float | None = None
        self._claims: list[_Claim] = []
        self._measured: dict[str, deque[tuple[float, Floats]]] = {}
        self._rest_s, self._move_s = np.inf, np.inf  # the arm must rest between these times
        self._stood: dict[str, Floats] = {}
        self._recent: deque[Heard] = deque(maxlen=AT_ONCE + AROUND)

    # Inputs -------------------------------------------------------------------------------------

    def hear(self, place: Floats, stamp_s: float, sent: int = 0, publisher: str = "") -> None:
        """Take in a command (arm joints,) [rad], or [rad/s] of a velocity interface.

        stamp_s: its source timestamp [s]; sent: its number as its publisher counts, from 1, 0 where
        that is unknown; publisher: an identity, "" where that is unknown.
        """
        with self._lock:
            self.commands += 1
            if place.shape != (self._arm,) or not np.isfinite(place).all():
                self._order(stamp_s, sent, publisher)
                self._count("malformed")
                return
            self._hear(place, stamp_s, stamp_s, sent, publisher, None)

    def hear_trajectory(
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
                self._order(stamp_s, sent, publisher)
                self._count("malformed")
                return
            self._check_points(dues, places, velocities)
            motion = _Motion(stamp_s + dues, places, velocities)
            self._ahead_s = max(self._ahead_s, float(dues[0]))
            self._hear(places[0], stamp_s, float(motion.times[0]), sent, publisher, motion)

    def hear_place(self, place: Floats, stamp_s: float, source: str = "") -> None:
        """Take in measured positions (n,), arm joints first, with their stamp [s].

        source: identity of their publisher.
        """
        place = place[: self._arm]
        with self._lock:
            seen = self._measured.setdefault(source, deque(maxlen=MEASURED))
            if seen and stamp_s <= seen[-1][0]:
                return  # the driver has begun to send older states
            seen.append((stamp_s, place))
            self._check_speed(seen)
            self._check_rest(place, stamp_s, source)
            self._judge(stamp_s)

    def operator(self, now_s: float) -> None:
        """An operator has confirmed where the arm is; now_s [s]: by the clock of the stamps."""
        with self._lock:
            self._operator_s = now_s

    def expect_rest(self, now_s: float) -> None:
        """From now on the arm may not move, but for coming to rest within SETTLE_S."""
        with self._lock:
            self._rest_s, self._move_s, self._stood = now_s, np.inf, {}

    def may_move(self, now_s: float) -> None:
        """From now on the arm may move again."""
        with self._lock:
            self._move_s = now_s

    # Results ------------------------------------------------------------------------------------

    def moving(self, now_s: float) -> bool:
        """Was the arm commanded to move within the last 0.15 s?"""
        recent = [one.place for one in tuple(self._recent) if now_s - one.when_s < 0.15]
        if len(recent) < 3:
            return False
        if self._interface == "velocity":
            return float(np.abs(recent).max()) * self._period_s > MOVING
        return float(np.abs(np.diff(recent, axis=0)).max()) > MOVING

    def finish(self) -> None:
        """Audit all commands so far; `violations` is complete then."""
        with self._lock:
            self._finish()
            self._judge(np.inf)

    # Order of commands --------------------------------------------------------------------------

    def _order(self, when_s: float, sent: int, publisher: str) -> str:
        """Return what this command is to its publisher: first, joined, missed, next.

        joined: earlier commands of this publisher were not received; missed: some in between.
        """
        before, self._sent = self._sent, sent
        old, self._publisher = self._publisher, publisher
        if self._last is None:
            self.unheard += max(sent - 1, 0)
            return "first" if sent == 1 else "joined"
        if publisher != old or 0 < sent <= before:
            if when_s - self._last.when_s < SILENT_S or (publisher and publisher in self._past):
                self._count("publishers")
            self._past.add(old)
            self.unheard += max(sent - 1, 0)
            return "first" if sent == 1 else "joined"
        if 0 < before < sent - 1:
            self.unheard += sent - 1 - before
            return "missed"
        return "next"

    def _hear(
        self,
        place: Floats,
        stamp_s: float,
        when_s: float,
        sent: int,
        publisher: str,
        motion: _Motion | None,
    ) -> None:
        order = self._order(when_s, sent, publisher)
        last, anew = self._last, False
        self._held_s = 0.0
        if order == "next" and last is not None:
            anew = self._connect(last, place, stamp_s, when_s)
        else:
            if order == "missed" and last is not None and self._interface != "velocity":
                self._check_step(last, place, when_s)
            elif order == "first":
                anew = self._begin(place, when_s)
            elif self._interface != "velocity" and sent > 1:
                room = NEAR_RAD + self._slope * LATE * self._period_s * (sent - 1)
                self._claims.append(_Claim(when_s, place, room, first=False))
            self._cut(rested=order == "first")
        if self._held_s:
            when_s -= self._held_s
            motion = motion and replace(motion, times=motion.times - self._held_s)
        heard = Heard(self.commands, when_s, place, anew)
        self._add(heard)
        self._recent.append(heard)
        self._last, self._motion = heard, motion
        self._judge(when_s - JUDGED_S)
        if len(self._path) >= REACH + AT_ONCE:
            self._finish()

    def _add(self, heard: Heard) -> None:
        """Append to the path; a command too near to the last one in time is only compared."""
        if self._path:
            before = self._path[-1]
            gap_s = heard.when_s - before.when_s
            if gap_s <= 2 * self._error_s(heard.when_s):
                if gap_s < -2 * self._error_s(heard.when_s):
                    self._count("stamp")
                    self._cut(rested=False)
                else:
                    self._check_step(before, heard.place, heard.when_s)
                    return
        self._path.append(heard)

    def _error_s(self, when_s: float) -> float:
        """Return the bound of the error of a stamp, with that of a float of its size [s]."""
        return self.stamp_s + float(np.spacing(abs(when_s)))

    def _check_step(self, before: Heard, place: Floats, when_s: float) -> None:
        """Check the change of the command alone, against the first limit."""
        time_s = max(when_s - before.when_s, 0.0) + 2 * self._error_s(when_s)
        name = "acceleration" if self._interface == "velocity" else "velocity"
        step = np.abs(place - before.place)
        self._count(name, int((step > self._slope * time_s + SAME).sum()))

    # Where a path may begin ---------------------------------------------------------------------

    def _begin(self, place: Floats, when_s: float) -> bool:
        """A path begins where the arm is measured; that is checked as soon as it can be."""
        if self._interface == "velocity":
            self._count("jump", int((np.abs(place) > SAME).any()))
        else:
            self._claims.append(_Claim(when_s, place, np.full(self._arm, NEAR_RAD), first=True))
        self.jumps += 1
        return True

    def _connect(self, last: Heard, place: Floats, stamp_s: float, when_s: float) -> bool:
        """Check that a command follows from the last one; return whether a path begins with it."""
        gap_s, slack_s = when_s - last.when_s, 2 * self._error_s(when_s)
        late = gap_s - LATE * self._period_s
        follows = {
            "position": self._follows_position,
            "velocity": self._follows_velocity,
            "trajectory": self._follows_trajectory,
        }[self._interface]
        if late > -slack_s and follows(last, place, stamp_s, when_s, late > slack_s):
            return False
        confirmed = (
            self._interface != "velocity"
            and self._operator_s is not None
            and -slack_s <= when_s - self._operator_s <= CONFIRMED_S
        )
        if confirmed and (late > slack_s or not self._continues(place, when_s)):
            self._operator_s = None
            self._cut(rested=True)
            return self._begin(place, when_s)
        if late > slack_s and (made_s := self._made_s(last, place, when_s)) is not None:
            self.held_up += 1
            self._cut(rested=False)
            self._held_s = when_s - made_s if self._interface == "trajectory" else 0.0
        elif late > slack_s:
            self._count("jump")
            self._note_jump(last, place, when_s)
            self._cut(rested=self._interface != "velocity")
        elif self._motion is not None:
            sent_s = when_s - stamp_s + when_s - float(self._motion.times[0])
            self._count("jump", int(self._off(place, when_s, sent_s)))
        return False

    def _made_s(self, last: Heard, place: Floats, when_s: float) -> float | None:
        """Return when a command was made that left later than LATE periods after the last one.

        None: it does not continue the path at any time up to then.
        """
        period_s = self._period_s
        if when_s - last.when_s > HELD_UP * period_s:
            return None
        times = np.arange(EARLIEST * period_s, LATE * period_s, self.stamp_s) + last.when_s
        made = [made_s for made_s in times.tolist() if self._continues(place, made_s)]
        return made[len(made) // 2] if made else None

    def _follows_position(
        self, last: Heard, place: Floats, stamp_s: float, when_s: float, sure: bool
    ) -> bool:
        """After a gap: the driver held the last command."""
        if (np.abs(place - last.place) > SAME).any():
            return False
        self._cut(rested=True)
        return True

    def _follows_velocity(
        self, last: Heard, place: Floats, stamp_s: float, when_s: float, sure: bool
    ) -> bool:
        """After a gap: the driver has stopped by itself, or the last velocity was held."""
        timeout_s = self.config.command.timeout_s or np.inf
        gap_s = when_s - last.when_s + 2 * self._error_s(when_s)
        if gap_s >= timeout_s and not place.any():
            self._cut(rested=True)
            return True
        most = self._slope * self._period_s * (1 + RELATIVE) + SAME
        if not sure or (np.abs(place - last.place) > most).any():
            return False
        self._cut(rested=False)
        return True

    def _follows_trajectory(
        self, last: Heard, place: Floats, stamp_s: float, when_s: float, sure: bool
    ) -> bool:
        """After a gap: the driver followed the last trajectory. Its points join the path.

        Otherwise the path consists of the first points. The path that is commanded in the end
        differs from each by what `_off` allows, as the next command comes before that point is
        reached.
        """
        motion = self._motion
        if not sure or motion is None:
            return False
        if self._off(place, when_s, when_s - stamp_s):
            return False
        for due_s, point in zip(motion.times[1:].tolist(), motion.places[1:]):
            if due_s < stamp_s:
                self._add(Heard(last.number, due_s, point, False))
        if when_s >= motion.times[-1]:
            self._cut(rested=True)
        return True

    def _off(self, place: Floats, when_s: float, since_s: float) -> bool:
        """Is a point off the last trajectory, from which the path has differed for a time?

        Both obey the jerk limit j and agree before that: they differ by at most j T³ / 3.
        """
        assert self._motion is not None
        jerk = self.config.limits.jerk[: self._arm]
        error_s = 2 * self._error_s(when_s)
        expected, step_s = self._motion.at(when_s)
        allowed = self._slope * error_s + HERMITE * jerk * step_s**3
        allowed = allowed + jerk * (max(since_s, 0.0) + error_s) ** 3 / 3 + ROUNDING
        return bool((np.abs(place - expected) > allowed).any())

    def _continues(self, place: Floats, when_s: float) -> bool:
        """Does the path go on with this command, within the limits?"""
        path = [*self._path[-REACH:], Heard(0, when_s, place, False)]
        if len(path) > 1 and when_s - path[-2].when_s <= 2 * self._error_s(when_s):
            return bool((np.abs(place - path[-2].place) <= SAME).all())
        found = self._audit(path, self._rested and len(self._path) <= REACH, len(path) - 1)
        return not +found.violations

    def _note_jump(self, last: Heard, place: Floats, when_s: float) -> None:
        """Keep the commands around a path that began elsewhere after a gap."""
        off = np.abs(place - last.place)
        joint = int(off.argmax())
        note = (
            f"{1e3 * (when_s - last.when_s):.2f} ms after the last command, late from "
            f"{1e3 * LATE * self._period_s:.0f} ms on: {self.config.limits.joints[joint]} off by "
            f"{off[joint]:.4f}"
        )
        if len(self.broken) < KEPT:
            recent = (*self._recent, Heard(self.commands, when_s, place, False))[-AROUND:]
            self.broken.append(Broken("jump", self.commands, recent, note))

    def _judge(self, heard_until_s: float) -> None:
        """Check the beginnings up to a time until which all measurements have been received."""
        claims = [claim for claim in self._claims if claim.when_s <= heard_until_s]
        self._claims = [claim for claim in self._claims if claim.when_s > heard_until_s]
        for claim in claims:
            self._count("jump", int(not self._confirms(claim)))

    def _confirms(self, claim: _Claim) -> bool:
        """Do fresh measurements of one source confirm that a path began where the arm was?"""
        from_s = claim.when_s - FRESH_S
        until_s = claim.when_s + 2 * self._error_s(claim.when_s)
        fresh = [
            places
            for seen in self._measured.values()
            if (places := [place for when_s, place in seen if from_s <= when_s <= until_s])
        ]
        if not claim.first and not fresh:
            return True
        if len(fresh) != 1:
            return False
        measured = np.array(fresh[0])
        if claim.first:
            moved = np.ptp(measured, axis=0)
            if len(measured) < 2 or (moved > RESTING_RAD + self._noise()).any():
                return False
        near = np.abs(measured.mean(axis=0) - claim.place) <= claim.room
        return bool(near.all())

    # The arm itself -----------------------------------------------------------------------------

    def _noise(self) -> float:
        """Return a bound of the noise of the difference of two measurements [rad]."""
        return NOISE_SIGMAS * self.noise_rad

    def _check_speed(self, seen: deque[tuple[float, Floats]]) -> None:
        if len(seen) <= SPEED_SAMPLES:
            return
        (then_s, before), (now_s, place) = seen[-1 - SPEED_SAMPLES], seen[-1]
        most = SPEED_SHARE * self.config.limits.velocity[: self._arm]
        allowed = most * (now_s - then_s + 2 * self._error_s(now_s)) + self._noise()
        self._count("true_speed", int((np.abs(place - before) > allowed).sum()))

    def _check_rest(self, place: Floats, stamp_s: float, source: str) -> None:
        if not self._rest_s + SETTLE_S <= stamp_s < self._move_s:
            return
        stood = self._stood.setdefault(source, place)
        if (np.abs(place - stood) > MOVED_RAD + self._noise()).any():
            self._count("uncaused")
            self._stood[source] = place
            self._note_uncaused(place - stood, stamp_s, self._measured[source])

    def _note_uncaused(
        self, moved: Floats, now_s: float, seen: deque[tuple[float, Floats]]
    ) -> None:
        if len(self.broken) >= KEPT:
            return
        times = np.array([when_s for when_s, _ in seen if when_s >= self._rest_s])
        silent_s = float(np.diff(times).max(initial=0.0))
        joint = int(np.abs(moved).argmax())
        trace = [(when_s, place[joint]) for when_s, place in seen if when_s > now_s - TRACE_S]
        shown = trace[:: -max(1, len(trace) // TRACE)][::-1]  # the newest among them
        recent = tuple(self._recent)[-AROUND:]
        silent = f"{now_s - recent[-1].when_s:.3f} s before" if recent else "none"
        note = (
            f"{self.config.limits.joints[joint]} moved {moved[joint]:+.3f} rad until "
            f"{now_s - self._rest_s:.3f} s after it was to rest; longest time between measurements "
            f"since then {silent_s:.3f} s; last command: {silent}; measured [s, rad]: "
            + ", ".join(f"{when_s - now_s:.2f} {place:.4f}" for when_s, place in shown)
        )
        number = recent[-1].number if recent else 0
        self.broken.append(Broken("uncaused", number, recent, note))

    # Limits -------------------------------------------------------------------------------------

    def _check_points(self, dues: Floats, places: Floats, velocities: Floats) -> None:
        """Check that a trajectory obeys the limits by itself and ends at rest."""
        self._count("no_stop", int((np.abs(velocities[-1]) > SAME).any()))
        most = self.config.limits.velocity[: self._arm] * (1 + RELATIVE)
        self._count("velocity", int((np.abs(velocities) > most).sum()))
        path = [Heard(0, due, place, False) for due, place in zip(dues.tolist(), places)]
        found = self._audit(path, False, 0, POINT_S)
        for name, count in (+found.violations).items():
            self._count(name, count)

    def _audit(
        self, path: list[Heard], rested: bool, after: int, stamp_s: float | None = None
    ) -> Audit:
        """Audit commands; the gripper takes no part. stamp_s: of one trajectory, else None."""
        times = np.array([one.when_s - path[0].when_s for one in path])
        whole = np.array([np.concatenate([one.place, self._grip]) for one in path])
        given: dict[str, Any] = {"rested": rested, "after": after}
        given["stamp_s"] = self._error_s(path[-1].when_s) if stamp_s is None else stamp_s
        limits = self.config.limits
        if self._interface == "velocity":
            return audit_velocities(limits, times, whole, **given)
        if self._interface == "trajectory" and stamp_s is None:
            given["error"] = limits.jerk * self._ahead_s**3 / 3  # as in `_off`
        return audit(limits, self._hand, times, whole, **given)

    def _cut(self, *, rested: bool) -> None:
        """End the path; the next one begins at rest or not."""
        self._finish()
        self._path, self._after, self._rested = [], 0, rested

    def _finish(self) -> None:
        """Audit the new part of the path, and keep what differences reach back to."""
        path, after = self._path, self._after
        if len(path) == after:
            return
        found = self._audit(path, self._rested, after)
        for name, count in (+found.violations).items():
            self._count(name, count)
        for name, index in found.where[: max(KEPT - len(self.broken), 0)]:
            before = tuple(one for one in self._recent if one.number < path[0].number)
            until = (*before, *path[: index + 1])[-AROUND:]
            self.broken.append(Broken(name, path[index].number, until))
        if len(path) > REACH:
            self._rested = False
        self._path = path[-REACH:]
        self._after = len(self._path)

    def _count(self, name: str, count: int = 1) -> None:
        if count:
            self.violations[name] = self.violations.get(name, 0) + count
