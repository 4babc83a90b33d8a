"""Calls of the safety filter with targets that would break limits, at irregular times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_nodes.checks.safety_trial.limit_audit import LATE
from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats

KINDS = ("random", "adversarial", "recorded")
DISORDER = 0.05  # share of calls with a disturbance
LONGEST_LATE = 300.0  # periods


@dataclass(frozen=True)
class Call:
    """Input of one call of the filter: target velocities (n,) or an invalid value, and the time."""

    target: Any
    now_s: float
    slow: bool = False


def calls(
    limits: ArmLimits, kind: str, random: np.random.Generator, period_s: float, steps: int
) -> Iterator[Call]:
    """Yield targets of a kind at irregular times, with disturbances.

    Times: stretches of regular periods, of uneven ones, and of bursts; late calls; clock steps.
    Disturbances: old targets again, invalid values, no target.
    """
    targets = {"random": _random, "adversarial": _adversarial, "recorded": _recorded}[kind](
        limits, random, period_s, steps
    )
    now = float(random.uniform(0, 1e6))
    kept: list[Floats] = [targets[0]]
    pace, left = 0, 0
    for index in range(steps):
        target: Any = targets[index]
        if left == 0:
            pace, left = int(random.integers(4)), int(random.integers(20, 200))
        left -= 1
        now += period_s * _interval(pace, random)
        if random.random() >= DISORDER:
            kept = [*kept[-20:], target]
            yield Call(target, now, slow=bool(random.random() < 0.05))
            continue
        trouble = random.integers(9)
        if trouble == 0:
            now += period_s * float(np.exp(random.uniform(np.log(LATE), np.log(LONGEST_LATE))))
        elif trouble == 1:  # an old target again
            target = kept[int(random.integers(len(kept)))]
        elif trouble == 2:  # a burst of calls
            for _ in range(int(random.integers(1, 10))):
                now += 0.01 * period_s
                yield Call(-target, now)
        elif trouble == 3:  # the clock is set
            now += float(random.choice([-1e4, -0.5, 1e4]))
        elif trouble == 4:
            target = None
        else:
            target = invalid(target, int(trouble - 5), random)
        yield Call(target, now)


def _interval(pace: int, random: np.random.Generator) -> float:
    """Return the time to the next call in periods: regular, uneven, in bursts, or any of these."""
    if pace == 3:
        pace = int(random.integers(3))
    if pace == 0:
        return float(random.uniform(0.98, 1.02))
    if pace == 1:
        return float(random.uniform(0.05, 1.5))
    return 0.01 if random.random() < 0.5 else 1.0


def invalid(target: Floats, which: int, random: np.random.Generator) -> Any:
    """Return an invalid target: not finite, of a wrong shape, huge, or not numeric."""
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
    """Smooth motion like that of a planner or an operator, in chunks of ten periods."""
    n = len(limits.joints)
    rough = random.normal(size=(steps // 10 + 2, n)).cumsum(axis=0)
    rough -= np.linspace(0, 1, len(rough))[:, None] * rough[-1]
    smooth = np.repeat(rough, 10, axis=0)[:steps]
    return np.asarray(0.2 * limits.velocity * smooth / max(np.abs(smooth).max(), 1e-9) * 5)
