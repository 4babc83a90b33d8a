"""Trial of the safety filter: many calls, and an audit of every command by its true time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import numpy as np

from wm_nodes.checks.safety_trial.calls import KINDS, Call, calls
from wm_nodes.checks.safety_trial.limit_audit import (
    HERMITE,
    LATE,
    RELATIVE,
    ROUNDING,
    Audit,
    along,
    audit,
    audit_velocities,
)
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.stopping import Stop

SHARES = ("velocity", "acceleration", "jerk", "hand_speed")  # of limits, in `Audit.worst`
INTERFACES = ("position", "velocity", "trajectory")
SAME = 1e-12  # rad: the same command
TIMEOUT_S = 0.1  # of the velocity driver in trials
STOP_S = 60.0  # a stop that takes longer never ends
Report = Callable[[int, int], None]


class _Track:
    """Sorts the commands of a trial into paths and audits each; checks what connects them."""

    def __init__(self, filter: SafetyFilter, kinematics: Kinematics, timeout_s: float) -> None:
        self._limits, self._kinematics, self._period = filter.limits, kinematics, filter.period_s
        self._interface, self._timeout_s = filter.interface, timeout_s or math.inf
        self._audit = Audit()
        self._start = filter.x.copy()
        self._last: Setpoint | None = None
        self._now_s = 0.0  # by the clock, at the last command
        self._time_s = 0.0  # the same, without clock steps
        self._set = False  # the clock was set since the last command
        self._error_s = 0.0
        self._times: list[float] = []
        self._path: list[Floats] = []
        self._rested = True

    def add(self, setpoint: Setpoint, now_s: float) -> None:
        """Take in the result of a call at `now_s` [s]."""
        if not np.isfinite(now_s):
            self._refuse(setpoint.moved, "clock")
            return
        self._error_s = max(self._error_s, float(np.spacing(abs(now_s))))
        last = self._last
        if last is not None and now_s < self._now_s:
            self._set, self._now_s = True, now_s
            self._refuse(setpoint.moved, "clock")
            return
        if not setpoint.moved:
            return
        gap_s = 0.0 if last is None else now_s - self._now_s
        self._time_s += gap_s
        self._now_s = now_s
        if last is None:
            self._refuse(self._interface != "velocity" and self._off(setpoint, self._start), "jump")
            self._refuse(bool(setpoint.velocity.any()), "jump")
        else:
            late = gap_s / self._period - LATE
            self._refuse(setpoint.late and late < -RELATIVE and not self._set, "late")
            self._refuse(not setpoint.late and late > RELATIVE, "late")
            self._connect(last, setpoint, gap_s)
        value = setpoint.velocity if self._interface == "velocity" else setpoint.position
        self._times.append(self._time_s)
        self._path.append(value)
        self._last, self._set = setpoint, False

    def finish(self) -> Audit:
        """Audit what was not audited yet, and return the counts."""
        self._cut(rested=True)
        return self._audit

    def _refuse(self, wrong: bool, name: str) -> None:
        self._audit.violations[name] += bool(wrong)

    def _off(self, setpoint: Setpoint, expected: Floats, allowed: Floats | float = SAME) -> bool:
        return bool((np.abs(setpoint.position - expected) > allowed).any())

    def _connect(self, last: Setpoint, new: Setpoint, gap_s: float) -> None:
        """Check a command against the last one; where it is late, by the interface's contract."""
        {
            "position": self._connect_positions,
            "velocity": self._connect_velocities,
            "trajectory": self._connect_trajectories,
        }[self._interface](last, new, gap_s)

    def _connect_positions(self, last: Setpoint, new: Setpoint, gap_s: float) -> None:
        """Late: the driver held the last command."""
        if new.late:
            self._refuse(self._off(new, last.position), "jump")
            self._cut(rested=True)

    def _connect_velocities(self, last: Setpoint, new: Setpoint, gap_s: float) -> None:
        """Late: the driver has stopped by itself, or the stop begins as after one period."""
        if not new.late:
            return
        if gap_s >= self._timeout_s:
            self._refuse(bool(new.velocity.any()), "jump")
            self._cut(rested=True)
        else:
            self._time_s += self._period - gap_s

    def _connect_trajectories(self, last: Setpoint, new: Setpoint, gap_s: float) -> None:
        """Late: the driver followed the last stop. Else the path differs little from the stop."""
        period, stop = self._period, last.stop
        expected = along(last.position, last.velocity, stop.x, stop.v, period, gap_s)
        allowed = ROUNDING + self._limits.jerk * HERMITE * period**3
        if not new.late:
            allowed = allowed + self._limits.jerk * gap_s**3 / 3  # both obey the limit
        self._refuse(self._off(new, expected, allowed), "jump")
        if not new.late:
            return
        self._refuse(_moves(stop), "no_stop")
        before_s = self._time_s - gap_s
        for number, place in enumerate(stop.x, start=1):
            if number * period < gap_s - 1e-3 * period:
                self._times.append(before_s + number * period)
                self._path.append(place)
        if gap_s >= len(stop) * period:
            self._refuse(self._off(new, stop.x[-1] if len(stop) else last.position), "jump")
            self._cut(rested=True)

    def _cut(self, *, rested: bool) -> None:
        """Audit the path so far; the next one begins at rest or not."""
        if not self._path:
            return
        # Two commands at the same time are one.
        times, path = np.array(self._times), np.array(self._path)
        again = np.flatnonzero(np.diff(times) <= 0)
        self._refuse(bool((path[again] != path[again + 1]).any()), "velocity")
        times, path = np.delete(times, again), np.delete(path, again, axis=0)
        rested_before, stamp_s = self._rested, self._error_s
        if self._interface == "velocity":
            result = audit_velocities(
                self._limits, times, path, rested=rested_before, stamp_s=stamp_s
            )
        else:
            result = audit(
                self._limits, self._kinematics, times, path, rested=rested_before, stamp_s=stamp_s
            )
        self._audit.add(result)
        self._times, self._path, self._rested = [], [], rested


def _moves(stop: Stop) -> bool:
    return bool(len(stop) and stop.v[-1].any())


def run_calls(
    filter: SafetyFilter,
    kinematics: Kinematics,
    start: Floats,
    stream: Iterable[Call],
    *,
    timeout_s: float = 0.0,
) -> Audit:
    """Start at `start` (n,), make all calls, then stop; audit every command by its true time.

    timeout_s: that of the filter, for velocities [s]. Besides the limits, violations are `jump` (a
    command that does not follow from the last one by the contract of the interface), `late` (a call
    wrongly treated as late or in time), `clock` (a command although the clock has failed),
    `no_stop`.
    """
    filter.start(start)
    before = filter.interventions.copy()
    track, seconds = _Track(filter, kinematics, timeout_s), []
    now = 0.0
    for call in stream:
        now = call.now_s if np.isfinite(call.now_s) else now
        start_s = time.thread_time()
        setpoint = filter.step(call.target, call.now_s, slow=call.slow)
        seconds.append(time.thread_time() - start_s)
        track.add(setpoint, call.now_s)
    for _ in range(int(STOP_S / filter.period_s)):
        if filter.at_rest:
            break
        now += filter.period_s
        track.add(filter.step(None, now), now)
    result = track.finish()
    result.violations["no_stop"] += not filter.at_rest
    result.seconds = seconds
    result.steps = len(seconds)
    result.interventions = filter.interventions - before
    return result


def run_trial(
    limits: ArmLimits,
    kinematics: Kinematics,
    home: Floats,
    *,
    rate_hz: float,
    steps: int,
    seed: int,
    interface: str = "position",
    length: int = 2000,
    report: Report = lambda done, violations: None,
) -> dict[str, Audit]:
    """Return an audit for each kind of target; `steps` in all, in sequences of `length`.

    interface: one of INTERFACES.
    """
    filter = SafetyFilter(limits, kinematics, 1.0 / rate_hz, interface, timeout_s=TIMEOUT_S)
    audits = {kind: Audit() for kind in KINDS}
    done = number = 0
    while done < steps:
        kind = KINDS[number % len(KINDS)]
        random = np.random.default_rng((seed, number))
        count = min(length, steps - done)
        stream = calls(limits, kind, random, filter.period_s, count)
        result = run_calls(filter, kinematics, home, stream, timeout_s=TIMEOUT_S)
        audits[kind].add(result)
        done += count
        number += 1
        report(done, sum(sum(a.violations.values()) for a in audits.values()))
    return audits
