"""One episode of a policy on a robot: the loop, and its length, return and success."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from wm_nodes.evaluation.policy import Policy
from wm_nodes.robots.robot import Observation, Robot, checked_observation


def rollout(robot: Robot, policy: Policy, seed: int) -> Iterator[Observation]:
    """Yield every observation of the episode of `seed`, the first included, while it runs.
    ObservationError: one is not finite."""
    observation = checked_observation(robot.reset(seed), robot.spec.name)
    policy.begin()
    yield observation
    while not observation.is_last:
        observation = checked_observation(robot.act(policy.act(observation)), robot.spec.name)
        yield observation


class Rewarded(Protocol):
    """An observation or a step: the reward and success of the action that led to it."""

    @property
    def is_first(self) -> bool: ...

    @property
    def reward(self) -> float: ...

    @property
    def success(self) -> bool: ...


@dataclass
class EpisodeTally:
    """Length, return and success of an episode, summed up while it runs."""

    length: int = 0  # agent steps
    total_reward: float = 0.0
    first_success: int = -1  # the agent step that first succeeded; -1: none did

    def add(self, step: Rewarded) -> None:
        """Count one observation; the first one of an episode counts nothing."""
        if step.is_first:
            return
        self.length += 1
        self.total_reward += step.reward
        if step.success and self.first_success < 0:
            self.first_success = self.length

    @property
    def success(self) -> bool:
        return self.first_success >= 0
