"""Runs a robot through scheduled episodes, one agent step at a time; no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from wm_nodes.episodes.schedule import Counts, Episode, Schedule
from wm_nodes.records import NO_VERSION, RANDOM, Origin, Step, Transition, Vector
from wm_nodes.robots.robot import HeldOutScenes, Observation, Robot, checked_observation


class EpisodeRunner:
    """Runs a robot through a schedule. ObservationError: the robot returned a number that is not
    finite; that observation is not handed on.

    Stamps [ns] are the robot's own and continue those of an earlier process; with `clock`, they are
    its readings.
    """

    def __init__(
        self, robot: Robot, schedule: Schedule, clock: Callable[[], int] | None = None
    ) -> None:
        self.robot, self.schedule, self._clock = robot, schedule, clock
        self.episode: Episode | None = None
        self.newest: Transition | None = None
        self.success_label: bool | None = None  # the operator's, for the next step
        self._prepared: Episode | None = None
        self._base_ns = schedule.counts.stamp_ns
        self._signals = robot.spec.signals.names if robot.spec.signals else ()
        self._repeat = int(robot.spec.extra.get("action_repeat", 1))

    @property
    def counts(self) -> Counts:
        return self.schedule.counts

    def prepare(self) -> Episode | None:
        """Real time: return the episode that `begin` will start; None: the run is over."""
        self._prepared = self.schedule.next()
        return self._prepared

    def begin(self) -> Transition | None:
        """Start the prepared episode, or the next one if none is; None: the run is over."""
        self.episode, self._prepared = self._prepared or self.schedule.next(), None
        if self.episode is None:
            return None
        if isinstance(self.robot, HeldOutScenes):
            self.robot.select_scenes(evaluation=not self.episode.explore)
        observed_s = time.monotonic()
        return self._transition(self.robot.reset(self.episode.seed), RANDOM, observed_s)

    def execute(self, action: Vector, origin: Origin) -> Transition:
        """Execute one action (A,) for one agent step. After a step with `is_last`, call `begin`."""
        assert self.episode is not None
        observed_s = time.monotonic()
        observation = self.robot.act(action)
        self.schedule.count_step(self.episode, self._repeat)
        transition = self._transition(observation, origin, observed_s)
        if observation.is_last:
            self.schedule.count_episode(self.episode)
        return transition

    def abort(self) -> None:
        """End the current episode before its last step: it counts, and nothing is executed."""
        if self.episode is not None and self.newest is not None and not self.newest.step.is_last:
            self.schedule.count_episode(self.episode)

    def _transition(
        self, observation: Observation, origin: Origin, observed_s: float
    ) -> Transition:
        assert self.episode is not None
        observation = checked_observation(observation, self.robot.spec.name)
        first = observation.is_first
        success = observation.success
        if not first and self.success_label is not None:
            success, self.success_label = self.success_label, None
        stamp = self._base_ns + observation.stamp_ns
        if self._clock:  # it may stop or be set back: stamps always increase
            stamp = max(self._clock(), self.counts.stamp_ns + 1)
        self.counts.stamp_ns = stamp
        step = Step(
            stamp_ns=stamp,
            names=self.robot.spec.action.names,
            executed=observation.executed,
            commanded=observation.commanded,
            reward=float(np.float32(observation.reward)),
            is_first=first,
            is_last=observation.is_last,
            is_terminal=observation.is_terminal,
            success=success,
            explore=self.episode.explore,
            weights=NO_VERSION if first else origin.version,
            source=int(RANDOM.source if first else origin.source),
            signal_names=self._signals,
            signals=observation.signals,
        )
        self.newest = Transition(
            step, observation.images, observation.proprio, observation.depths, observed_s
        )
        return self.newest
