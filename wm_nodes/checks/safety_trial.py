"""Trial of the safety filter: targets made to break limits at irregular times, and an audit.

The audit shares no code with the filter. It takes the commands that left the filter with their true
times and checks divided differences. For a path whose velocity, acceleration and jerk obey limits,
and for any increasing times, the m-th divided difference times m! is a weighted mean of the m-th
derivative. So it obeys the same limit, for any time steps and any choice of samples.

An error of up to E in each sample changes the m-th difference by at most E times the sum of the
samples' absolute weights. Rounding is such an error. So is an error of D in a time: the
path moves by at most v D in it. The audit allows for exactly that.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.stopping import Stop

KINDS = ("random", "adversarial", "recorded")
SHARES = ("velocity", "acceleration", "jerk", "hand_speed")  # of limits, in `Audit.worst`
INTERFACES = ("position", "velocity", "trajectory")
RELATIVE = 1e-6  # tolerance, as a share of a limit
ROUNDING = 1e-9  # m, rad: tolerance of poses
ULPS = 8  # rounding error of a sample, in units of the last place
HAND_ROUNDING_M = 1e-13  # of forward kinematics
STRIDES = (1, 2, 4, 8)  # samples between those of a difference: longer ones allow less for errors
REACH = 3 * STRIDES[-1]  # samples that a difference reaches back
LATE = 1.5  # periods after the last command from which a call is late
SAME = 1e-12  # rad: the same command
HERMITE = 1.0 / 96.0  # error of cubic interpolation with slopes, by jerk * step³
TIMEOUT_S = 0.1  # of the velocity driver in trials
DISORDER = 0.05  # share of calls with a disturbance
LONGEST_LATE = 300.0  # periods
STOP_S = 60.0  # a stop that takes longer never ends
Say = Callable[[int, int], None]


@dataclass(frozen=True)
class Order:
    """Input of one call of the filter: target velocities (n,) or an invalid value, and the time."""

    wanted: Any
    now_s: float
    slow: bool = False


@dataclass
class Audit:
    """Counts of violations by limit, and the largest share of each limit that was used.

    `where` lists each violated limit with its index in the path. `seconds`: CPU time of each step.
    """

    steps: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    interventions: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    where: list[tuple[str, int]] = field(default_factory=list)

    def add(self, other: Audit) -> None:
        """Add the counts of another audit; `where` refers to one path and is not added."""
        self.steps += other.steps
        self.violations.update(other.violations)
        self.interventions.update(other.interventions)
        self.seconds += other.seconds
        for name, value in other.worst.items():
            self.worst[name] = max(value, self.worst.get(name, 0.0))

    def note(self, name: str, broken: npt.NDArray[np.bool_]) -> None:
        """Count the violations of one limit: broken (T,) or (T, n), one row per sample."""
        self.violations[name] += int(broken.sum())
        rows = np.flatnonzero(broken.any(axis=tuple(range(1, broken.ndim))))
        self.where += [(name, int(row)) for row in rows]


def audit(
    limits: ArmLimits,
    hand: Kinematics,
    times: Floats,
    path: Floats,
    *,
    rested: bool = True,
    stamp_s: float = 0.0,
    error: Floats | None = None,
    after: int = 0,
) -> Audit:
    """Audit positions path (T, n) [rad, m] at increasing times (T,) [s].

    rested: the arm stood still at path[0] before times[0]. stamp_s: bound of the error of each
    time. error (n,): bound of a further error of each position; with it, the end effector's speed
    is not checked. after: number of samples that were audited before; only differences that end
    behind them are counted. A path that begins outside its limits may not go further out.
    ValueError: the times do not increase.
    """
    found = Audit(steps=len(path))
    if not len(path):
        return found
    times, path = _checked(times, path)
    error_s = stamp_s + _rounded_s(times)
    wrong = limits.velocity * error_s + ULPS * np.finfo(float).eps * np.abs(path).max(axis=0)
    wrong = wrong if error is None else wrong + error
    most = (limits.velocity, limits.acceleration, limits.jerk)
    _audit_differences(found, times, path, most, wrong, path[0] if rested else None, after)
    low, high = np.minimum(limits.low, path[0]), np.maximum(limits.high, path[0])
    rows = np.arange(len(path)) >= after
    slack = np.spacing(np.abs(path).max(axis=0))
    found.note("position", ((path < low - slack) | (path > high + slack)) & rows[:, None])
    places = hand.positions(path)
    low, high = np.minimum(limits.box_low, places[0]), np.maximum(limits.box_high, places[0])
    beyond = (places < low - ROUNDING) | (places > high + ROUNDING)
    found.note("workspace", beyond.any(axis=1) & rows)
    if error is None:
        _audit_hand_speed(found, times, places, limits.hand_speed, error_s, rows)
    return found


def audit_velocities(
    limits: ArmLimits,
    times: Floats,
    velocities: Floats,
    *,
    rested: bool = True,
    stamp_s: float = 0.0,
    after: int = 0,
) -> Audit:
    """Audit commanded velocities (T, n) [rad/s] at increasing times (T,) [s]; see `audit`.

    rested: the velocity was zero before times[0]. ValueError: the times do not increase.
    """
    found = Audit(steps=len(velocities))
    if not len(velocities):
        return found
    times, velocities = _checked(times, velocities)
    error_s = stamp_s + _rounded_s(times)
    error = limits.acceleration * error_s + ROUNDING * 1e-3
    share = np.abs(velocities) / limits.velocity
    rows = np.arange(len(velocities)) >= after
    found.worst["velocity"] = float(share[rows].max(initial=0.0))
    found.note("velocity", (share > 1 + RELATIVE) & rows[:, None])
    most = (limits.acceleration, limits.jerk)
    before = np.zeros(velocities.shape[1]) if rested else None
    _audit_differences(found, times, velocities, most, error, before, after)
    return found


def _checked(times: Floats, path: Floats) -> tuple[Floats, Floats]:
    times, path = np.asarray(times, np.float64), np.asarray(path, np.float64)
    if times.shape != path.shape[:1] or not (np.diff(times) > 0).all():
        raise ValueError(f"times {times.shape} of a path {path.shape}: right is (T,), increasing.")
    return times, path


def _rounded_s(times: Floats) -> float:
    return 2 * float(np.spacing(np.abs(times).max()))


def _audit_differences(
    found: Audit,
    times: Floats,
    path: Floats,
    most: Sequence[Floats],
    error: Floats,
    still: Floats | None,
    after: int,
) -> None:
    """Check the 1st to m-th divided difference against most[0..m-1], each (n,), for all strides.

    error (n,): bound of the error of each sample. still (n,): the value before the path.
    """
    names = ("velocity", "acceleration", "jerk")[-len(most) :]
    added = 0
    if still is not None:
        added = len(most) * STRIDES[-1]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        times = np.concatenate([times[0] - step * np.arange(added, 0, -1), times])
        path = np.concatenate([np.repeat(still[None], added, axis=0), path])
    broken = [np.zeros(path.shape, np.bool_) for _ in most]
    for stride in STRIDES:
        values, weight = path, np.ones(len(path))
        for order, limit in enumerate(most, start=1):
            back = order * stride
            if len(path) <= back:
                break
            span = (times[back:] - times[:-back]) / order
            values = (values[stride:] - values[:-stride]) / span[:, None]
            weight = (weight[stride:] + weight[:-stride]) / span
            share = (np.abs(values) - weight[:, None] * error) / limit
            worst = float(share[max(added + after - back, 0) :].max(initial=0.0))
            name = names[order - 1]
            found.worst[name] = max(worst, found.worst.get(name, 0.0))
            broken[order - 1][back:] |= share > 1 + RELATIVE
    for name, each in zip(names, broken):
        each[: added + after] = False
        found.note(name, each[added:])


def _audit_hand_speed(
    found: Audit,
    times: Floats,
    places: Floats,
    most: float,
    error_s: float,
    rows: npt.NDArray[np.bool_],
) -> None:
    """Check distances of the end effector, places (T, 3), by their times, for all strides."""
    broken, worst = np.zeros(len(places), np.bool_), 0.0
    for stride in STRIDES:
        if len(places) <= stride:
            break
        moved = np.linalg.norm(places[stride:] - places[:-stride], axis=1) - HAND_ROUNDING_M
        share = (moved / most - 2 * error_s) / (times[stride:] - times[:-stride])
        worst = max(worst, float(share[rows[stride:]].max(initial=0.0)))
        broken[stride:] |= share > 1 + RELATIVE
    found.worst["hand_speed"] = worst
    found.note("hand_speed", broken & rows)


def along(
    place: Floats, velocity: Floats, stop_x: Floats, stop_v: Floats, period_s: float, after_s: float
) -> Floats:
    """Return where a driver is on a stop after a time: cubic interpolation, then the end.

    place, velocity (n,): now; stop_x, stop_v (N, n): at 1 to N periods from now; after_s [s] >= 0.
    """
    whole = int(after_s // period_s)
    if whole >= len(stop_x):
        return stop_x[-1] if len(stop_x) else place
    x = np.stack([place if whole == 0 else stop_x[whole - 1], stop_x[whole]])
    v = np.stack([velocity if whole == 0 else stop_v[whole - 1], stop_v[whole]])
    return hermite(x, v, period_s, after_s / period_s - whole)


def hermite(x: Floats, v: Floats, step_s: float, u: float) -> Floats:
    """Return the cubic (n,) through x (2, n) with slopes v (2, n), at share u of the step [s]."""
    rest = 1.0 - u
    here = rest**2 * ((1 + 2 * u) * x[0] + u * step_s * v[0])
    out: Floats = here + u**2 * ((1 + 2 * rest) * x[1] - rest * step_s * v[1])
    return out


def orders(
    limits: ArmLimits, kind: str, random: np.random.Generator, period_s: float, steps: int
) -> Iterator[Order]:
    """Yield targets of a kind at irregular times, with disturbances.

    Times: stretches of regular periods, of uneven ones, and of bursts; late calls; clock steps.
    Disturbances: old targets again, invalid values, no target.
    """
    wanted = {"random": _random, "adversarial": _adversarial, "recorded": _recorded}[kind](
        limits, random, period_s, steps
    )
    now = float(random.uniform(0, 1e6))
    kept: list[Floats] = [wanted[0]]
    pace, left = 0, 0
    for index in range(steps):
        target: Any = wanted[index]
        if left == 0:
            pace, left = int(random.integers(4)), int(random.integers(20, 200))
        left -= 1
        now += period_s * _interval(pace, random)
        if random.random() >= DISORDER:
            kept = [*kept[-20:], target]
            yield Order(target, now, slow=bool(random.random() < 0.05))
            continue
        trouble = random.integers(9)
        if trouble == 0:
            now += period_s * float(np.exp(random.uniform(np.log(LATE), np.log(LONGEST_LATE))))
        elif trouble == 1:  # an old target again
            target = kept[int(random.integers(len(kept)))]
        elif trouble == 2:  # a burst of calls
            for _ in range(int(random.integers(1, 10))):
                now += 0.01 * period_s
                yield Order(-target, now)
        elif trouble == 3:  # the clock is set
            now += float(random.choice([-1e4, -0.5, 1e4]))
        elif trouble == 4:
            target = None
        else:
            target = rubbish(target, int(trouble - 5), random)
        yield Order(target, now)


def _interval(pace: int, random: np.random.Generator) -> float:
    """Return the time to the next call in periods: regular, uneven, in bursts, or any of these."""
    if pace == 3:
        pace = int(random.integers(3))
    if pace == 0:
        return float(random.uniform(0.98, 1.02))
    if pace == 1:
        return float(random.uniform(0.05, 1.5))
    return 0.01 if random.random() < 0.5 else 1.0


def rubbish(target: Floats, which: int, random: np.random.Generator) -> Any:
    """Return something no filter may follow: not finite, wrong shape, huge, no numbers."""
    bad = target.copy()
    if which == 0:
        bad[random.integers(len(bad))] = random.choice([np.nan, np.inf, -np.inf])
        return bad
    if which == 1:
        return (bad[:-1], np.append(bad, 0.0), bad[None])[int(random.integers(3))]
    if which == 2:
        return bad * float(random.choice([1e6, -1e9, 1e300]))
    return ["forward", [[], []], object(), {}][int(random.integers(4))]


def _random(limits: ArmLimits, random: np.random.Generator, period_s: float, steps: int) -> Floats:
    """Uniform targets, each held for a while; from slow to twice too fast."""
    hold = random.integers(1, 60, steps)
    which = np.repeat(np.arange(steps), hold)[:steps]
    scale = random.choice([0.1, 0.5, 1.0, 2.0], steps)[:, None]
    fresh = random.uniform(-1, 1, (steps, len(limits.joints))) * limits.velocity * scale
    return np.asarray(fresh[which])


def _adversarial(
    limits: ArmLimits, random: np.random.Generator, period_s: float, steps: int
) -> Floats:
    """Full speed into corners, and back at the worst moment."""
    n = len(limits.joints)
    times = np.arange(steps) * period_s
    rates = random.uniform(0.1, 0.5 / period_s, n)
    waves = np.sign(np.sin(2 * np.pi * rates * times[:, None] + random.uniform(0, 6.3, n)))
    corners = np.sign(random.normal(size=(steps // 100 + 1, n)))
    corner = np.repeat(corners, 100, axis=0)[:steps]
    mix = np.repeat(random.random((steps // 50 + 1, 1)) < 0.5, 50, axis=0)[:steps]
    return np.where(mix, waves, corner) * limits.velocity * float(random.uniform(0.5, 5.0))


def _recorded(
    limits: ArmLimits, random: np.random.Generator, period_s: float, steps: int
) -> Floats:
    """Smooth motion such as a planner or a person makes, with chunks of ten periods."""
    n = len(limits.joints)
    rough = random.normal(size=(steps // 10 + 2, n)).cumsum(axis=0)
    rough -= np.linspace(0, 1, len(rough))[:, None] * rough[-1]
    smooth = np.repeat(rough, 10, axis=0)[:steps]
    return np.asarray(0.2 * limits.velocity * smooth / max(np.abs(smooth).max(), 1e-9) * 5)


class _Track:
    """Sorts the commands of a trial into paths and audits each; checks what connects them."""

    def __init__(self, filter: SafetyFilter, hand: Kinematics, timeout_s: float) -> None:
        self._limits, self._hand, self._period = filter.limits, hand, filter.period_s
        self._interface, self._timeout_s = filter.interface, timeout_s or math.inf
        self.found = Audit()
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
        return self.found

    def _refuse(self, wrong: bool, name: str) -> None:
        self.found.violations[name] += bool(wrong)

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
        """Late: the driver followed the last stop. Else the path has left it by little."""
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
        given: dict[str, Any] = {"rested": self._rested, "stamp_s": self._error_s}
        if self._interface == "velocity":
            self.found.add(audit_velocities(self._limits, times, path, **given))
        else:
            self.found.add(audit(self._limits, self._hand, times, path, **given))
        self._times, self._path, self._rested = [], [], rested


def _moves(stop: Stop) -> bool:
    return bool(len(stop) and stop.v[-1].any())


def run_orders(
    filter: SafetyFilter,
    hand: Kinematics,
    start: Floats,
    commands: Iterable[Order],
    *,
    timeout_s: float = 0.0,
) -> Audit:
    """Start at `start` (n,), make all calls, then stop; audit every command by its true time.

    timeout_s: velocity: as given to the filter [s]. Besides the limits, violations are `jump` (a
    command that does not follow from the last one by the contract of the interface), `late` (a call
    wrongly taken as late or in time), `clock` (a command although the clock has failed), `no_stop`.
    """
    filter.start(start)
    before = filter.interventions.copy()
    track, seconds = _Track(filter, hand, timeout_s), []
    now = 0.0
    for order in commands:
        now = order.now_s if np.isfinite(order.now_s) else now
        began = time.thread_time()
        setpoint = filter.step(order.wanted, order.now_s, slow=order.slow)
        seconds.append(time.thread_time() - began)
        track.add(setpoint, order.now_s)
    for _ in range(int(STOP_S / filter.period_s)):
        if filter.at_rest:
            break
        now += filter.period_s
        track.add(filter.step(None, now), now)
    found = track.finish()
    found.violations["no_stop"] += not filter.at_rest
    found.seconds = seconds
    found.steps = len(seconds)
    found.interventions = filter.interventions - before
    return found


def run_trial(
    limits: ArmLimits,
    hand: Kinematics,
    home: Floats,
    *,
    rate_hz: float,
    steps: int,
    seed: int,
    interface: str = "position",
    length: int = 2000,
    say: Say = lambda done, violations: None,
) -> dict[str, Audit]:
    """Return an audit for each kind of target; `steps` in all, in sequences of `length`.

    interface: one of INTERFACES.
    """
    filter = SafetyFilter(limits, hand, 1.0 / rate_hz, interface, timeout_s=TIMEOUT_S)
    found = {kind: Audit() for kind in KINDS}
    done = number = 0
    while done < steps:
        kind = KINDS[number % len(KINDS)]
        random = np.random.default_rng((seed, number))
        count = min(length, steps - done)
        made = orders(limits, kind, random, filter.period_s, count)
        one = run_orders(filter, hand, home, made, timeout_s=TIMEOUT_S)
        found[kind].add(one)
        done += count
        number += 1
        say(done, sum(sum(a.violations.values()) for a in found.values()))
    return found
