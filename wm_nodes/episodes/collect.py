"""Record demonstrations or play into a replay log, without ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from wm_datasets.log import LogReader, LogWriter
from wm_nodes.episodes.row_assembler import RowAssembler
from wm_nodes.episodes.runner import Arrival, Session
from wm_nodes.episodes.schedule import Counts, Goals, Schedule
from wm_nodes.evaluation.evaluate import EpisodeRow, EvaluationResult
from wm_nodes.evaluation.policy import Policy
from wm_nodes.evaluation.rollout import EpisodeTally
from wm_nodes.records import RANDOM, Origin, Vector
from wm_nodes.robots.robot import Observation, Robot, RobotSpec

SCRIPT = Origin("script", "expert")
CLEAN_EVERY = 4  # one episode in so many is demonstrated without noise
KEEP = 0.8  # share of the noise that stays for the next decision


class Player(Protocol):
    """What chooses actions while a log is recorded."""

    origin: Origin

    def begin(self, episode: int) -> None:
        """Get ready for the episode of this number."""

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        """Return (what is meant, what to do), both (A,) within the robot's bounds."""


class NoisyExpert:
    """An expert that is pushed off its way and steers back: what a learner must know how to do.

    In three of four episodes slowly changing noise n, n <- 0.8 n + 0.6 `noise` N(0, 1), is added
    to the action that is done; the action that is meant stays the expert's (DART, Laskey 2017).
    `noise` is the noise's standard deviation as a share of half an action's range.
    """

    origin = SCRIPT

    def __init__(self, expert: Policy, robot: RobotSpec, noise: float, seed: int) -> None:
        self._expert, self._seed = expert, seed
        self._low, self._high = bounds(robot)
        self._sigma = noise * (self._high - self._low) / 2

    def begin(self, episode: int) -> None:
        self._expert.begin()
        self._random = np.random.default_rng((self._seed, episode))
        self._loud = episode % CLEAN_EVERY != 0
        self._push = np.zeros_like(self._sigma)

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        meant = np.clip(self._expert.act(observation), self._low, self._high)
        if not self._loud:
            return meant, meant
        fresh = np.sqrt(1 - KEEP**2) * self._sigma * self._random.normal(size=meant.shape)
        self._push = KEEP * self._push + fresh
        done = np.clip(meant + self._push, self._low, self._high).astype(np.float32)
        return meant, done


class HeldRandom:
    """Uniform actions, each held for a random time of `hold` decisions in the mean (geometric)."""

    origin = RANDOM

    def __init__(self, robot: RobotSpec, hold: float, seed: int) -> None:
        self._low, self._high = bounds(robot)
        self._change, self._seed = 1.0 / hold, seed

    def begin(self, episode: int) -> None:
        self._random = np.random.default_rng((self._seed, episode))
        self._action: Vector | None = None

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        if self._action is None or self._random.random() < self._change:
            self._action = self._random.uniform(self._low, self._high).astype(np.float32)
        return self._action, self._action


class Recording:
    """A log that takes in arrivals; row and step are brought together by RowAssembler."""

    def __init__(self, writer: LogWriter, robot: RobotSpec) -> None:
        self._writer = writer
        parts = [f"image/{camera}" for camera in robot.cameras]
        parts += [f"sensor/{name}" for name in robot.depths]
        self._rows = RowAssembler((*parts, "proprio"), len(robot.action))

    def take(self, arrival: Arrival, meant: Vector | None = None) -> None:
        """Record one observation and the action that led to it; `meant` replaces `commanded`."""
        step = arrival.step if meant is None else replace(arrival.step, commanded=meant)
        stamp = step.stamp_ns
        for camera, image in arrival.images.items():
            self._rows.put(f"image/{camera}", stamp, image)
        for name, depth in arrival.depths.items():
            self._rows.put(f"sensor/{name}", stamp, depth)
        self._rows.put("proprio", stamp, arrival.proprio)
        for row in self._rows.step(step):
            self._writer.append(row)


def collect(
    robot: Robot,
    player: Player,
    log: Path,
    episodes: int,
    seed: int,
    *,
    name: str = "player",
    watch: Callable[[EpisodeRow], None] = lambda row: None,
) -> EvaluationResult:
    """Add so many episodes of the seed's training stream to a log; made if it is not there.

    The episodes are those after the ones that the log holds. `watch` is called with each.
    """
    before = _held(log)
    goals = Goals(episodes=before.episodes + episodes)
    session = Session(robot, Schedule(goals, seed, before))
    rows = []
    with LogWriter(log, robot.spec.log_spec()) as writer:
        recording = Recording(writer, robot.spec)
        while (first := session.begin()) is not None:
            rows.append(_episode(session, player, recording, first))
            watch(rows[-1])
    return EvaluationResult(robot.spec.task, name, seed, tuple(rows))


def bounds(robot: RobotSpec) -> tuple[Vector, Vector]:
    """Return the lowest and highest action, both (A,)."""
    return np.array(robot.action.low, np.float32), np.array(robot.action.high, np.float32)


def _episode(
    session: Session, player: Player, recording: Recording, arrival: Arrival
) -> EpisodeRow:
    episode = session.episode
    assert episode is not None
    player.begin(episode.index)
    recording.take(arrival)
    tally = EpisodeTally()
    while not arrival.step.is_last:
        meant, done = player.choose(session.robot.observe())
        arrival = session.execute(done, player.origin)
        recording.take(arrival, meant)
        tally.add(arrival.step)
    return EpisodeRow(
        episode.index,
        episode.seed,
        tally.length,
        tally.total_reward,
        tally.success,
        tally.first_success,
    )


def _held(log: Path) -> Counts:
    """Return where a log ends: the next episode's number and the newest stamp."""
    if not (log / "zarr.json").exists():
        return Counts()
    with LogReader(log) as reader:
        stamps = reader.read("stamp", max(reader.length - 1, 0), reader.length)
        return Counts(episodes=len(reader.episodes), stamp_ns=int(stamps.max(initial=0)))
