"""Trial of the safety filter: commands made to break limits, and an audit of what came out.

The audit shares nothing with the filter: it takes the positions that left it, one per period, and
differences them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety import SafetyFilter

KINDS = ("random", "adversarial", "recorded")
ROUNDING = 1e-9  # share of a limit; positions are rounded at 1e-16
DISORDER = 0.05  # share of steps with something that should not be
Say = Callable[[int, int], None]


@dataclass(frozen=True)
class Order:
    """What reaches the filter at one moment: a wanted velocity (n,) or rubbish, and the clock."""

    wanted: Any
    now_s: float
    slow: bool = False


@dataclass
class Audit:
    """Counts of positions, differences of them, and hand places beyond a limit; closest calls."""

    steps: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)  # largest share of a limit that was used
    interventions: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # CPU time of each step
    where: list[tuple[str, int]] = field(default_factory=list)  # what was broken at path[index]

    def add(self, other: Audit) -> None:
        """Take in another audit."""
        self.steps += other.steps
        self.violations.update(other.violations)
        self.interventions.update(other.interventions)
        self.seconds += other.seconds
        for name, value in other.worst.items():
            self.worst[name] = max(value, self.worst.get(name, 0.0))


def audit(
    limits: ArmLimits, hand: Kinematics, path: Floats, period_s: float, *, rested: bool = True
) -> Audit:
    """Examine positions (T, n), one per period; `rested`: the arm stood still at path[0] before.

    What began outside its limits may not go further out.
    """
    found = Audit(steps=len(path))
    still = np.repeat(path[:1], 3 if rested else 0, axis=0)

    def note(name: str, broken: npt.NDArray[np.bool_]) -> None:
        """Count what is broken; its last rows are of the path's last positions."""
        found.violations[name] += int(broken.sum())
        rows = np.flatnonzero(broken.any(axis=tuple(range(1, broken.ndim))))
        found.where += [(name, len(path) - len(broken) + int(row)) for row in rows]

    speeds = np.diff(np.concatenate([still, path]), axis=0) / period_s
    pulls = np.diff(speeds, axis=0) / period_s
    jerks = np.diff(pulls, axis=0) / period_s
    for name, values, most in (
        ("velocity", speeds, limits.velocity),
        ("acceleration", pulls, limits.acceleration),
        ("jerk", jerks, limits.jerk),
    ):
        share = np.abs(values) / most
        found.worst[name] = float(share.max(initial=0.0))
        note(name, share > 1 + ROUNDING)
    low, high = np.minimum(limits.low, path[0]), np.maximum(limits.high, path[0])
    note("position", (path < low) | (path > high))
    places = hand.positions(path)
    low, high = np.minimum(limits.box_low, places[0]), np.maximum(limits.box_high, places[0])
    beyond = (places < low - ROUNDING) | (places > high + ROUNDING)
    note("workspace", beyond.any(axis=1))
    pace = np.linalg.norm(np.diff(places, axis=0), axis=1) / period_s / limits.hand_speed
    found.worst["hand_speed"] = float(pace.max(initial=0.0))
    note("hand_speed", pace > 1 + ROUNDING)
    return found


def orders(
    limits: ArmLimits, kind: str, random: np.random.Generator, period_s: float, steps: int
) -> Iterator[Order]:
    """Yield commands of a kind, with disorder: stutter, bursts, clock jumps, rubbish, old ones."""
    wanted = {"random": _random, "adversarial": _adversarial, "recorded": _recorded}[kind](
        limits, random, period_s, steps
    )
    now = float(random.uniform(0, 1e6))
    kept: list[Floats] = [wanted[0]]
    for index in range(steps):
        target: Any = wanted[index]
        now += period_s * float(random.uniform(0.8, 1.3))
        if random.random() >= DISORDER:
            kept = [*kept[-20:], target]
            yield Order(target, now, slow=bool(random.random() < 0.05))
            continue
        trouble = random.integers(9)
        if trouble == 0:  # stutter
            now += float(random.uniform(0, 0.5))
        elif trouble == 1:  # an old command again
            target = kept[int(random.integers(len(kept)))]
        elif trouble == 2:  # a burst of calls
            for _ in range(int(random.integers(1, 10))):
                yield Order(-target, now + float(random.uniform(0, 0.3)) * period_s)
        elif trouble == 3:  # the clock jumps
            now += float(random.choice([-1e4, -0.5, 1e4]))
        elif trouble == 4:
            target = None
        else:
            target = rubbish(target, int(trouble - 5), random)
        yield Order(target, now)


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


def run_orders(
    filter: SafetyFilter,
    hand: Kinematics,
    start: Floats,
    commands: Iterable[Order],
) -> Audit:
    """Start at `start` (n,), give all commands, then stop; audit every position that came out."""
    filter.start(start)
    before = filter.interventions.copy()
    path, seconds = [np.array(start, np.float64)], []
    now = 0.0
    for order in commands:
        now = order.now_s if np.isfinite(order.now_s) else now
        began = time.thread_time()
        setpoint = filter.step(order.wanted, order.now_s, slow=order.slow)
        seconds.append(time.thread_time() - began)
        if setpoint.moved:
            path.append(setpoint.position)
    while not filter.at_rest:
        now += 2 * filter.period_s
        path.append(filter.step(None, now).position)
    found = audit(filter.limits, hand, np.array(path), filter.period_s)
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
    length: int = 2000,
    say: Say = lambda done, violations: None,
) -> dict[str, Audit]:
    """Return an audit for each kind of command; `steps` in all, in sequences of `length`."""
    filter = SafetyFilter(limits, hand, 1.0 / rate_hz)
    found = {kind: Audit() for kind in KINDS}
    done = number = 0
    while done < steps:
        kind = KINDS[number % len(KINDS)]
        random = np.random.default_rng((seed, number))
        count = min(length, steps - done)
        made = orders(limits, kind, random, filter.period_s, count)
        one = run_orders(filter, hand, home, made)
        found[kind].add(one)
        done += count
        number += 1
        say(done, sum(sum(a.violations.values()) for a in found.values()))
    return found
