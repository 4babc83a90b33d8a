"""The Policy protocol: begin an episode, act on an observation."""

from __future__ import annotations

from typing import Protocol, TypeVar

from wm_nodes.robots.robot import Observation, Vector


class Policy(Protocol):
    """Chooses actions: a baseline, or a learned agent with its filter."""

    def begin(self) -> None:
        """Reset for a new episode; called after the robot's reset, before the first `act`."""

    def act(self, observation: Observation) -> Vector:
        """Return the action (A,) to do now."""


P = TypeVar("P", bound=Policy)
