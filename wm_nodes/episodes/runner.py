"""A robot's episodes, one decision at a time: what the robot node does, free of ROS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wm_nodes.episodes.schedule import Counts, Episode, Schedule
from wm_nodes.records import NO_VERSION, RANDOM, Depth, Image, Origin, Step, Vector
from wm_nodes.robots.robot import Observation, Robot


@dataclass(frozen=True)
class Arrival:
    """One observation with the step that led to it; all carry the step's stamp.

    made_s: steady time at which it was asked of the robot [s].
    """

    step: Step
    images: dict[str, Image]
    proprio: Vector
    depths: dict[str, Depth] = field(default_factory=dict)
    made_s: float = 0.0


class Session:
    """Run a robot through a schedule.

    Stamps are the robot's own, going on where an earlier session ended; or `clock`'s [ns].
    """

    def __init__(
        self, robot: Robot, schedule: Schedule, clock: Callable[[], int] | None = None
    ) -> None:
        self.robot, self.schedule, self._clock = robot, schedule, clock
        self.episode: Episode | None = None
        self._chosen: Episode | None = None
        self.now: Arrival | None = None  # the newest observation
        self.label: bool | None = None  # a person's verdict, for the next step
        self._base_ns = schedule.counts.stamp_ns
        self._signals = robot.spec.signals.names if robot.spec.signals else ()
        self._repeat = int(robot.spec.extra.get("action_repeat", 1))

    @property
    def counts(self) -> Counts:
        return self.schedule.counts

    def choose(self) -> Episode | None:
        """Real time: return the episode that `begin` will start; None: the run is over."""
        self._chosen = self.schedule.next()
        return self._chosen

    def begin(self) -> Arrival | None:
        """Start the next episode (the prepared one, if any); None when the run is over."""
        self.episode, self._chosen = self._chosen or self.schedule.next(), None
        if self.episode is None:
            return None
        made_s = time.monotonic()
        return self._arrive(self.robot.reset(self.episode.seed), RANDOM, made_s)

    def execute(self, action: Vector, origin: Origin) -> Arrival:
        """Do one action for one period. The caller checks `step.is_last` and begins anew."""
        assert self.episode is not None
        made_s = time.monotonic()
        observation = self.robot.act(action)
        self.schedule.decided(self.episode, self._repeat)
        arrival = self._arrive(observation, origin, made_s)
        if observation.is_last:
            self.schedule.ended(self.episode)
        return arrival

    def abandon(self) -> None:
        """End the present episode where it is; nothing is executed any more."""
        if self.episode is not None and self.now is not None and not self.now.step.is_last:
            self.schedule.ended(self.episode)

    def _arrive(self, seen: Observation, origin: Origin, made_s: float) -> Arrival:
        assert self.episode is not None
        success = seen.success if self.label is None or seen.is_first else self.label
        if not seen.is_first:
            self.label = None
        stamp = self._base_ns + seen.stamp_ns
        if self._clock:  # it may stand still or be set back: stamps never do
            stamp = max(self._clock(), self.counts.stamp_ns + 1)
        self.counts.stamp_ns = stamp
        step = Step(
            stamp_ns=stamp,
            names=self.robot.spec.action.names,
            executed=seen.executed,
            commanded=seen.commanded,
            reward=float(np.float32(seen.reward)),
            is_first=seen.is_first,
            is_last=seen.is_last,
            is_terminal=seen.is_terminal,
            success=success,
            explore=self.episode.explore,
            weights=NO_VERSION if seen.is_first else origin.version,
            source=int(RANDOM.source if seen.is_first else origin.source),
            signal_names=self._signals,
            signals=seen.signals,
        )
        self.now = Arrival(step, seen.images, seen.proprio, seen.depths, made_s)
        return self.now
