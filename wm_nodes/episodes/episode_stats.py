"""Length, return and success of episodes, from the steps on topic `step`."""

from __future__ import annotations

from dataclasses import dataclass

from wm_nodes.records import Step


@dataclass(frozen=True)
class EpisodeStats:
    """One complete episode."""

    explore: bool
    length: int  # agent steps
    total_reward: float
    success: bool
    first_success: int  # agent step; -1: none
    weights: int  # version of the last action


class EpisodeTracker:
    """Takes all steps, also repeated ones; an episode without its first step is not counted."""

    def __init__(self) -> None:
        self._stamp_ns = -1
        self._complete = False
        self._length, self._total, self._first_success = 0, 0.0, -1

    def step(self, step: Step) -> EpisodeStats | None:
        """Process one step; return the episode that it ends."""
        if step.stamp_ns == self._stamp_ns:
            return None
        self._stamp_ns = step.stamp_ns
        if step.is_first:
            self._complete = True
            self._length, self._total, self._first_success = 0, 0.0, -1
            return None
        self._length += 1
        self._total += step.reward
        if step.success and self._first_success < 0:
            self._first_success = self._length
        if not (step.is_last and self._complete):
            return None
        self._complete = False
        return EpisodeStats(
            explore=step.explore,
            length=self._length,
            total_reward=self._total,
            success=self._first_success >= 0,
            first_success=self._first_success,
            weights=step.weights,
        )
