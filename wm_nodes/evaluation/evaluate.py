"""Evaluation: a policy on fresh episodes of a robot, with confidence intervals."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import NormalDist, fmean, median, stdev
from typing import Any

from wm_nodes.evaluation.policy import Policy
from wm_nodes.evaluation.rollout import EpisodeTally, rollout
from wm_nodes.robots.robot import HeldOutScenes, Observation, Robot, RobotError, ScoredTask
from wm_nodes.robots.seeds import episode_seed

CLOSE_M = 0.05  # a distance to success that counts as reached


@dataclass(frozen=True)
class EpisodeRow:
    """One episode. `first_success` is the agent step that first succeeded, -1 if none did.

    end_m, least_m: distance to success [m] at the episode's end, and the least; None: unknown.
    """

    episode: int
    episode_seed: int
    length: int
    total_reward: float
    success: bool
    first_success: int
    end_m: float | None = None
    least_m: float | None = None


@dataclass(frozen=True)
class Nearness:
    """Distances of episodes to success [m], and the share that came close enough."""

    within: float  # a distance that counts as close enough
    at_end: float  # share
    at_end_interval: tuple[float, float]
    ever: float
    ever_interval: tuple[float, float]
    median: float  # at the end
    worst: float

    def __str__(self) -> str:
        def share(value: float, interval: tuple[float, float]) -> str:
            return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"

        return (
            f"within {self.within * 100:g} cm: "
            f"at the end {share(self.at_end, self.at_end_interval)}, "
            f"ever {share(self.ever, self.ever_interval)}; distance at the end: "
            f"median {self.median * 100:.1f} cm, worst {self.worst * 100:.1f} cm"
        )


@dataclass(frozen=True)
class EvaluationResult:
    """Episodes of a policy on a task; intervals cover 95 %. scored: does the task report success?
    Where not, only returns are shown."""

    task: str
    policy: str
    seed: int
    rows: tuple[EpisodeRow, ...]
    scored: bool = True

    @property
    def success_rate(self) -> float:
        return fmean(row.success for row in self.rows)

    @property
    def success_interval(self) -> tuple[float, float]:
        return wilson(sum(row.success for row in self.rows), len(self.rows))

    @property
    def mean_return(self) -> float:
        return fmean(row.total_reward for row in self.rows)

    @property
    def return_interval(self) -> tuple[float, float]:
        return mean_interval([row.total_reward for row in self.rows])

    @property
    def nearness(self) -> Nearness | None:
        """Distances of the episodes to success; None where they are unknown."""
        ends = [row.end_m for row in self.rows if row.end_m is not None]
        least = [row.least_m for row in self.rows if row.least_m is not None]
        count = len(self.rows)
        if len(ends) < count or len(least) < count:
            return None
        at_end = sum(end < CLOSE_M for end in ends)
        ever = sum(near < CLOSE_M for near in least)
        return Nearness(
            CLOSE_M,
            at_end / count,
            wilson(at_end, count),
            ever / count,
            wilson(ever, count),
            median(ends),
            max(ends),
        )

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        near = self.nearness
        successes = [row.first_success for row in self.rows if row.success]
        return {
            "task": self.task,
            "policy": self.policy,
            "seed": self.seed,
            "episodes": len(self.rows),
            "success_rate": self.success_rate if self.scored else None,
            "success_interval_95": list(self.success_interval) if self.scored else None,
            "mean_return": self.mean_return,
            "return_interval_95": [x if math.isfinite(x) else None for x in self.return_interval],
            "mean_length": fmean(row.length for row in self.rows),
            "mean_first_success": fmean(successes) if successes else None,
            **({"nearness_m": asdict(near)} if near else {}),
        }

    def write_csv(self, path: str | Path) -> None:
        """Write one line per episode, each begins with the evaluation's task, policy and seed."""
        names = [field.name for field in fields(EpisodeRow)]
        if self.nearness is None:
            names = [name for name in names if not name.endswith("_m")]
        with Path(path).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["task", "policy", "seed", *names])
            for row in self.rows:
                values = {**asdict(row), "success": int(row.success) if self.scored else ""}
                numbers = [_rounded(values[name]) for name in names]
                writer.writerow([self.task, self.policy, self.seed, *numbers])

    def __str__(self) -> str:
        low, high = self.success_interval
        below, above = self.return_interval
        count = len(self.rows)
        interval = f" [{below:.0f}, {above:.0f}]" if count > 1 else ""  # one value has none
        success = f"success {self.success_rate:.2f} [{low:.2f}, {high:.2f}], "
        return (
            f"{self.task} {self.policy}: {success if self.scored else ''}"
            f"return {self.mean_return:.0f}{interval}, {count} episode{'s' if count > 1 else ''}"
        )


def evaluate(
    robot: Robot,
    policy: Policy,
    episodes: int,
    seed: int,
    *,
    name: str = "policy",
    watch: Callable[[Observation], None] | None = None,
    done: Callable[[EpisodeRow], None] = lambda row: None,
) -> EvaluationResult:
    """Run the policy on episodes 0 .. episodes-1 of the seed's evaluation stream.

    These are the same for every policy and never part of training. `watch` is called with every
    observation (for videos and logs), `done` with every finished episode. The robot shows scenes of
    evaluation, where it has such, and afterwards those of training again.
    """
    if episodes < 1:
        raise RobotError(f"episodes: got {episodes}, expected a whole number from 1.")
    rows = []
    with _evaluation_scenes(robot):
        for index in range(episodes):
            rows.append(_episode(robot, policy, index, seed, watch))
            done(rows[-1])
    return EvaluationResult(robot.spec.task, name, seed, tuple(rows), robot.spec.success)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a success rate; (0, 1) without trials."""
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: got {successes}, expected 0 to {trials}")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of a mean; infinite for a single value."""
    if len(values) < 2:
        return -math.inf, math.inf
    half = student(len(values) - 1, confidence) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def student(freedom: int, confidence: float = 0.95) -> float:
    """Return the two-sided quantile of Student's t, within 1 % (exact at 1 degree of freedom)."""
    if freedom == 1:
        return math.tan(math.pi * confidence / 2)
    z, n = NormalDist().inv_cdf(0.5 + confidence / 2), freedom
    terms = (  # Cornish and Fisher's expansion
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    series: float = sum(term / n ** (power + 1) for power, term in enumerate(terms))
    return z + series


@contextmanager
def _evaluation_scenes(robot: Robot) -> Iterator[None]:
    if not isinstance(robot, HeldOutScenes):
        yield
        return
    robot.select_scenes(evaluation=True)
    try:
        yield
    finally:
        robot.select_scenes(evaluation=False)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _episode(
    robot: Robot,
    policy: Policy,
    index: int,
    seed: int,
    watch: Callable[[Observation], None] | None,
) -> EpisodeRow:
    chosen, tally = episode_seed(seed, index, "evaluation"), EpisodeTally()
    distances: list[float | None] = []
    for observation in rollout(robot, policy, chosen):
        tally.add(observation)
        distances.append(robot.distance() if isinstance(robot, ScoredTask) else None)
        if watch:
            watch(observation)
    known = [distance for distance in distances if distance is not None]
    return EpisodeRow(
        index,
        chosen,
        tally.length,
        tally.total_reward,
        tally.success,
        tally.first_success,
        end_m=distances[-1],
        least_m=min(known, default=None),
    )
