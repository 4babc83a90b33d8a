"""Record demonstrations or random motion into a replay log; no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from wm_datasets.log import LogReader, LogWriter
from wm_nodes.episodes.row_assembler import RowAssembler
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Counts, Schedule, StopCriteria
from wm_nodes.evaluation.evaluate import EpisodeRow, EvaluationResult
from wm_nodes.evaluation.policy import Policy
from wm_nodes.evaluation.rollout import EpisodeTally
from wm_nodes.records import RANDOM, Origin, Transition, Vector
from wm_nodes.robots.robot import Observation, Robot, RobotSpec

SCRIPT = Origin("script", "expert")
CLEAN_EVERY = 4  # every fourth episode is demonstrated without noise
KEEP = 0.8  # share of the noise that remains in the next agent step


class CollectionPolicy(Protocol):
    """Chooses actions while a log is recorded."""

    origin: Origin

    def begin(self, episode: int) -> None:
        """Start the episode of this number."""

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        """Return the intended and the executed action, both (A,) within the robot's bounds."""


class NoisyExpert:
    """An expert with noise on its actions, which it corrects: the log shows how to recover.

    In three of four episodes slowly changing noise n, n <- 0.8 n + 0.6 `noise` N(0, 1), is added
    to the executed action; the intended action stays the expert's (DART, Laskey et al. 2017).
    `noise` is the noise's standard deviation as a share of half an action's range. The noise on a
    one-hot action sometimes selects another one.
    """

    origin = SCRIPT

    def __init__(self, expert: Policy, robot: RobotSpec, noise: float, seed: int) -> None:
        self._expert, self._seed, self._space = expert, seed, robot.action
        low, high = bounds(robot)
        self._sigma = noise * (high - low) / 2

    def begin(self, episode: int) -> None:
        self._expert.begin()
        self._random = np.random.default_rng((self._seed, episode))
        self._noisy = episode % CLEAN_EVERY != 0
        self._noise = np.zeros_like(self._sigma)

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        intended = self._space.nearest(self._expert.act(observation))
        if not self._noisy:
            return intended, intended
        fresh = np.sqrt(1 - KEEP**2) * self._sigma * self._random.normal(size=intended.shape)
        self._noise = KEEP * self._noise + fresh
        return intended, self._space.nearest(intended + self._noise)


class HeldRandom:
    """Uniform actions, each held for a geometric time with a mean of `hold` agent steps."""

    origin = RANDOM

    def __init__(self, robot: RobotSpec, hold: float, seed: int) -> None:
        self._change, self._seed, self._space = 1.0 / hold, seed, robot.action

    def begin(self, episode: int) -> None:
        self._random = np.random.default_rng((self._seed, episode))
        self._action: Vector | None = None

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        if self._action is None or self._random.random() < self._change:
            self._action = self._space.draw(self._random)
        return self._action, self._action


class Recording:
    """Appends the rows of transitions to a log. Use as a context manager.

    A new log is made for its first row: a robot that fails before leaves no folder. One that is
    there is opened at once.
    """

    def __init__(self, log: Path, robot: RobotSpec) -> None:
        self._log, self._spec = log, robot.log_spec()
        self._writer = LogWriter(log, self._spec) if log.exists() else None
        parts = [f"image/{camera}" for camera in robot.cameras]
        parts += [f"sensor/{name}" for name in robot.depths]
        self._rows = RowAssembler((*parts, "proprio"), len(robot.action))

    def append(self, transition: Transition, intended: Vector | None = None) -> None:
        """Append one observation and the action that led to it; intended (A,): its `commanded`."""
        step = transition.step
        if intended is not None:
            step = replace(step, commanded=intended)
        stamp = step.stamp_ns
        for camera, image in transition.images.items():
            self._rows.put(f"image/{camera}", stamp, image)
        for name, depth in transition.depths.items():
            self._rows.put(f"sensor/{name}", stamp, depth)
        self._rows.put("proprio", stamp, transition.proprio)
        for row in self._rows.step(step):
            if self._writer is None:
                self._writer = LogWriter(self._log, self._spec)
            self._writer.append(row)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def collect(
    robot: Robot,
    policy: CollectionPolicy,
    log: Path,
    episodes: int,
    seed: int,
    *,
    name: str = "policy",
    watch: Callable[[EpisodeRow], None] = lambda row: None,
) -> EvaluationResult:
    """Append `episodes` episodes of the seed's training stream to a log, created if missing.

    The log's own episodes are not repeated: numbering continues. `watch` is called after each.
    """
    before = _counts(log)
    criteria = StopCriteria(episodes=before.episodes + episodes)
    runner = EpisodeRunner(robot, Schedule(criteria, seed, before))
    rows = []
    with Recording(log, robot.spec) as recording:
        while (first := runner.begin()) is not None:
            rows.append(_episode(runner, policy, recording, first))
            watch(rows[-1])
    return EvaluationResult(robot.spec.task, name, seed, tuple(rows), robot.spec.success)


def bounds(robot: RobotSpec) -> tuple[Vector, Vector]:
    """Return the lowest and highest action, both (A,)."""
    return np.array(robot.action.low, np.float32), np.array(robot.action.high, np.float32)


def _episode(
    runner: EpisodeRunner, policy: CollectionPolicy, recording: Recording, transition: Transition
) -> EpisodeRow:
    episode = runner.episode
    assert episode is not None
    policy.begin(episode.index)
    recording.append(transition)
    tally = EpisodeTally()
    while not transition.step.is_last:
        intended, action = policy.choose(runner.robot.observe())
        transition = runner.execute(action, policy.origin)
        recording.append(transition, intended)
        tally.add(transition.step)
    return EpisodeRow(
        episode.index,
        episode.seed,
        tally.length,
        tally.total_reward,
        tally.success,
        tally.first_success,
    )


def _counts(log: Path) -> Counts:
    """Return the number of episodes in a log and its newest stamp."""
    if not (log / "zarr.json").exists():
        return Counts()
    with LogReader(log) as reader:
        stamps = reader.read("stamp", max(reader.length - 1, 0), reader.length)
        return Counts(episodes=len(reader.episodes), stamp_ns=int(stamps.max(initial=0)))
