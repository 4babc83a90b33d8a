"""Audit of commands by their true times.

The audit shares no code with the filter. It takes the commands that left the filter with their true
times and checks divided differences. For a path whose velocity, acceleration and jerk obey limits,
and for any increasing times, the m-th divided difference times m! is a weighted mean of the m-th
derivative. So it obeys the same limit, for any time steps and any choice of samples.

An error of up to E in each sample changes the m-th difference by at most E times the sum of the
samples' absolute weights. Rounding is such an error. So is an error of D in a time: the
path moves by at most v D in it. The audit allows for exactly that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats

RELATIVE = 1e-6  # tolerance, as a share of a limit
ROUNDING = 1e-9  # m, rad: tolerance of poses
ULPS = 8  # rounding error of a sample, in units of the last place
POSE_ROUNDING_M = 1e-13  # of forward kinematics
STRIDES = (1, 2, 4, 8)  # samples between those of a difference: longer ones allow less for errors
REACH = 3 * STRIDES[-1]  # samples that a difference reaches back
LATE = 1.5  # periods after the last command from which a call is late
HERMITE = 1.0 / 96.0  # error of cubic interpolation with slopes, by jerk * step³


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
    kinematics: Kinematics,
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
    result = Audit(steps=len(path))
    if not len(path):
        return result
    times, path = _checked(times, path)
    error_s = stamp_s + _rounded_s(times)
    wrong = limits.velocity * error_s + ULPS * np.finfo(float).eps * np.abs(path).max(axis=0)
    wrong = wrong if error is None else wrong + error
    most = (limits.velocity, limits.acceleration, limits.jerk)
    _audit_differences(result, times, path, most, wrong, path[0] if rested else None, after)
    low, high = np.minimum(limits.low, path[0]), np.maximum(limits.high, path[0])
    rows = np.arange(len(path)) >= after
    slack = np.spacing(np.abs(path).max(axis=0))
    result.note("position", ((path < low - slack) | (path > high + slack)) & rows[:, None])
    places = kinematics.positions(path)
    low, high = np.minimum(limits.box_low, places[0]), np.maximum(limits.box_high, places[0])
    beyond = (places < low - ROUNDING) | (places > high + ROUNDING)
    result.note("workspace", beyond.any(axis=1) & rows)
    if error is None:
        _audit_hand_speed(result, times, places, limits.hand_speed, error_s, rows)
    return result


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
    result = Audit(steps=len(velocities))
    if not len(velocities):
        return result
    times, velocities = _checked(times, velocities)
    error_s = stamp_s + _rounded_s(times)
    error = limits.acceleration * error_s + ROUNDING * 1e-3
    share = np.abs(velocities) / limits.velocity
    rows = np.arange(len(velocities)) >= after
    result.worst["velocity"] = float(share[rows].max(initial=0.0))
    result.note("velocity", (share > 1 + RELATIVE) & rows[:, None])
    most = (limits.acceleration, limits.jerk)
    before = np.zeros(velocities.shape[1]) if rested else None
    _audit_differences(result, times, velocities, most, error, before, after)
    return result


def _checked(times: Floats, path: Floats) -> tuple[Floats, Floats]:
    times, path = np.asarray(times, np.float64), np.asarray(path, np.float64)
    if times.shape != path.shape[:1] or not (np.diff(times) > 0).all():
        raise ValueError(
            f"times: got {times.shape} of a path {path.shape}, expected (T,), increasing."
        )
    return times, path


def _rounded_s(times: Floats) -> float:
    return 2 * float(np.spacing(np.abs(times).max()))


def _audit_differences(
    result: Audit,
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
            result.worst[name] = max(worst, result.worst.get(name, 0.0))
            broken[order - 1][back:] |= share > 1 + RELATIVE
    for name, each in zip(names, broken):
        each[: added + after] = False
        result.note(name, each[added:])


def _audit_hand_speed(
    result: Audit,
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
        moved = np.linalg.norm(places[stride:] - places[:-stride], axis=1) - POSE_ROUNDING_M
        share = (moved / most - 2 * error_s) / (times[stride:] - times[:-stride])
        worst = max(worst, float(share[rows[stride:]].max(initial=0.0)))
        broken[stride:] |= share > 1 + RELATIVE
    result.worst["hand_speed"] = worst
    result.note("hand_speed", broken & rows)


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
