"""The safety filter: target joint velocities in, commands out that break no limit in true time.

`SafePath` makes one control point per control period. The path is the cubic B-spline of these
points, so it obeys the limits at any time, and each command is a sample of it at the true time of
the call. Whether calls come early, late, in bursts or with a period left out, the divided
differences of the commands by their true times stay within the limits.

A call more than LATE periods after the last command is late: the driver had no command of ours for
so long. What the arm did in the meantime depends on the command interface:

- position: the driver held the last command. A new path begins there, at rest.
- trajectory: the driver followed the stop that was sent with the last command. So does the path.
- velocity, twist: the driver went on at the last velocity, so the stop begins now; or it stopped by
  itself after `timeout_s`, and a new path begins at rest.

After a late call the target is ignored until the arm is at rest. The filter knows no model and no
ROS, and no clock but `now_s`, which must be steady.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.safety.interfaces import Contacts, ForwardKinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.safe_path import SafePath
from wm_nodes.robots.arm.safety.spline import continued, weights
from wm_nodes.robots.arm.safety.stopping import Stop

LATE = 1.5  # periods after the last command from which a call is late
EARLY = 0.2  # periods after the last command within which nothing new is commanded
AHEAD = 0.5  # periods: where in a segment a regular call samples the path
HUGE = 10.0  # targets beyond so many times the velocity limit come from a broken sender
POSITIONS = ("position", "trajectory")  # interfaces that command positions


@dataclass(frozen=True)
class Setpoint:
    """What to command now: joint positions [rad, m], velocities, accelerations, each (n,).

    `why`: names of interventions. `moved`: False: too early, nothing is to be commanded. `late`:
    this call was late. `stop`: positions and velocities (N, n) at 1 to N periods from now: the
    motion that follows if no other command comes.
    """

    position: Floats
    velocity: Floats
    acceleration: Floats
    why: tuple[str, ...]
    moved: bool
    late: bool
    stop: Stop


class TargetCheck:
    """Accepts target joint velocities (n,), limited in their change from one call to the next."""

    def __init__(self, limits: ArmLimits) -> None:
        self._huge, self._change = HUGE * limits.velocity, limits.target_change
        self._still = np.zeros(len(limits.joints))
        self.reset()

    def reset(self) -> None:
        self._last = self._still  # the last accepted target

    def accept(self, requested: npt.ArrayLike | None, why: list[str]) -> Floats | None:
        """Return the target (n,); None: stop, or it cannot be right, with the reason in `why`."""
        target = None if requested is None else self._checked(requested, why)
        self._last = self._still if target is None else target
        return target

    def _checked(self, requested: npt.ArrayLike, why: list[str]) -> Floats | None:
        """Return the target (n,), limited in its change; None: it cannot be right."""
        try:
            target = np.asarray(requested, np.float64)
        except (TypeError, ValueError, OverflowError):
            why.append("shape")
            return None
        if target.shape != self._last.shape:
            why.append("shape")
            return None
        if np.count_nonzero(np.abs(target) <= self._huge) < len(target):
            why.append("huge" if np.isfinite(target).all() else "non-finite")
            return None
        change = self._change
        near: Floats = np.minimum(np.maximum(target, self._last - change), self._last + change)
        if np.count_nonzero(near != target):
            why.append("target-change")
        return near


@dataclass
class SegmentClock:
    """When the path was sampled last: steady times of the last call and of the begin of its
    segment [s]; u: time since that begin, in periods."""

    last_s: float | None = None
    began_s: float = 0.0
    u: float = AHEAD


class SafetyFilter:
    """One arm's filter. Call `start` with the pose in which the arm stands, then `step` each
    period.

    interface: of the commands, as in the module's text. timeout_s: velocity and twist: time after
    the last command at which the driver stops by itself [s]; 0: it does not.
    """

    def __init__(
        self,
        limits: ArmLimits,
        kinematics: ForwardKinematics,
        period_s: float,
        interface: str = "position",
        *,
        timeout_s: float = 0.0,
        contacts: Contacts | None = None,
    ) -> None:
        self.limits, self.period_s, self.interface = limits, period_s, interface
        self._kinematics, self._timeout_s = kinematics, timeout_s or math.inf
        self._path = SafePath(limits, kinematics, period_s, contacts)
        self._targets = TargetCheck(limits)
        self.interventions: Counter[str] = Counter()
        self.x: Floats = self._path.x  # the last command
        self.start(self.x)

    # State --------------------------------------------------------------------------------------

    def start(self, position: npt.ArrayLike) -> None:
        """Take the arm to stand still at `position` (n,).

        The first call of `step` commands this very position: motion begins from a command to stand.
        """
        self._path.start(position)
        self._clock = SegmentClock()
        self._targets.reset()
        self._resting = True  # the target is ignored until the arm is at rest
        self._sample(AHEAD)
        self._before = self._saved()  # the state before the last call

    @property
    def at_rest(self) -> bool:
        """Is the arm commanded to stand?"""
        return self._path.at_rest

    def scale_speed(self, scale: float) -> None:
        """Keep all speeds below `scale` (above 0, at most 1) x their limits."""
        self._path.scale_speed(scale)

    @property
    def longest_stop_s(self) -> float:
        """Time that the longest stopping motion takes [s]."""
        return self._path.longest_stop_s

    @property
    def outside(self) -> tuple[str, ...]:
        """Names of joints beyond their limits, and the end effector beyond its box."""
        limits = self.limits
        wrong = (self.x < limits.low) | (self.x > limits.high)
        names = [limits.joints[index] for index in np.flatnonzero(wrong)]
        beyond = (self.end_effector < limits.box_low).any() or (
            self.end_effector > limits.box_high
        ).any()
        return (*names, *(["end effector"] if beyond else []))

    def correct(self, shift: Floats) -> None:
        """Shift the path by a little (n,), as measured; velocities stay."""
        self._path.correct(shift)
        self.x = self.x + shift

    # One call -----------------------------------------------------------------------------------

    def step(
        self, requested: npt.ArrayLike | None, now_s: float, *, slow: bool = False
    ) -> Setpoint:
        """Return what to command at the steady time `now_s` [s].

        given: target joint velocities (n,); None: stop. A target that cannot be right (shape, not
        finite, huge) is refused, and the arm stops.
        """
        why: list[str] = []
        late = False
        before, clock = self._saved(), self._clock
        target = self._targets.accept(requested, why)
        if clock.last_s is None:
            clock.began_s = now_s - AHEAD * self.period_s
        elif not math.isfinite(now_s) or now_s < clock.last_s:
            return self._clock_failed(now_s, why)
        elif now_s - clock.last_s < EARLY * self.period_s:
            why.append("early")
            return self._setpoint(why, moved=False, late=False)
        elif now_s - clock.last_s > LATE * self.period_s:
            why.append("late")
            late = True
            self._catch_up(now_s, now_s - clock.last_s)
        self._before = before
        clock.last_s = now_s
        self._resting = late or (self._resting and not self._path.at_rest)
        while now_s - clock.began_s >= self.period_s:
            self._path.advance(None if self._resting else target, why, slow=slow)
            clock.began_s += self.period_s
        self._sample((now_s - clock.began_s) / self.period_s)
        return self._setpoint(why, moved=True, late=late)

    def resample(self, setpoint: Setpoint, now_s: float) -> Setpoint:
        """Return the setpoint of this call at `now_s` [s], a little later.

        Computing takes time, and a command must be that of the moment in which it is sent. If the
        process was stalled meanwhile, nothing is to be commanded: the next call is late.
        """
        clock = self._clock
        if clock.last_s is None or not clock.last_s < now_s:
            return setpoint
        before_s = self._before[0].last_s
        if before_s is not None and now_s - before_s > LATE * self.period_s and not setpoint.late:
            before, self.x, path = self._before
            self._clock = replace(before)
            self._path.restore(path)
            return replace(setpoint, moved=False)
        while now_s - clock.began_s >= self.period_s:
            self._path.advance(None, [])
            clock.began_s += self.period_s
        clock.last_s = now_s
        self._sample((now_s - clock.began_s) / self.period_s)
        return self._built(setpoint.why, moved=True, late=setpoint.late)

    def _clock_failed(self, now_s: float, why: list[str]) -> Setpoint:
        """Command nothing, and stop: how much time has passed is unknown."""
        clock = self._clock
        assert clock.last_s is not None
        why.append("clock")
        if math.isfinite(now_s):
            clock.began_s += now_s - clock.last_s
            clock.last_s = now_s
        self._resting = True
        return self._setpoint(why, moved=False, late=False)

    def _catch_up(self, now_s: float, gap_s: float) -> None:
        """Bring the path to where the driver has brought the arm since the last command."""
        clock = self._clock
        if self.interface == "trajectory":
            if gap_s > self.longest_stop_s:
                while not self._path.at_rest:
                    self._path.advance(None, [])
                clock.began_s = now_s - AHEAD * self.period_s
        elif self.interface == "position" or gap_s >= self._timeout_s:
            self._path.start(self.x)
            clock.began_s = now_s - AHEAD * self.period_s
        else:
            clock.began_s += gap_s - self.period_s

    def _saved(self) -> tuple[SegmentClock, Floats, tuple[Any, ...]]:
        return replace(self._clock), self.x, self._path.saved()

    def _sample(self, u: float) -> None:
        self._clock.u = u
        if self._path.at_rest:  # exactly, without rounding
            self.x, self.v, self.a = self._path.x, *np.zeros((2, len(self._path.x)))
        else:
            self.x, speed, pull = weights(u) @ self._path.points
            self.v, self.a = speed / self.period_s, pull / self.period_s**2
        self.end_effector = self._kinematics.positions(self.x[None])[0]

    def _setpoint(self, why: list[str], *, moved: bool, late: bool) -> Setpoint:
        names = tuple(dict.fromkeys(why))
        if names:
            self.interventions.update(names)
        return self._built(names, moved=moved, late=late)

    def _built(self, why: tuple[str, ...], *, moved: bool, late: bool) -> Setpoint:
        place, speed = continued(self._path.points, self._path.stop_points, self._clock.u)
        stop = Stop(place, speed / self.period_s, np.zeros_like(place))
        return Setpoint(self.x.copy(), self.v.copy(), self.a.copy(), why, moved, late, stop)
