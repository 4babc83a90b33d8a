"""Episodes as they are seen on the wire: length, return, success; blocks of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from wm_nodes.records import Step


@dataclass(frozen=True)
class EpisodeSeen:
    """One whole episode."""

    explore: bool
    length: int  # decisions
    total_reward: float
    success: bool
    first_success: int  # decision, -1 if none
    weights: int  # version that acted last


class Meter:
    """Follows `step`, repeated ones included; an episode joined midway does not count."""

    def __init__(self) -> None:
        self._stamp_ns = -1
        self._whole = False
        self._length, self._total, self._first_success = 0, 0.0, -1

    def step(self, step: Step) -> EpisodeSeen | None:
        """Take in one step; return the episode that it ends."""
        if step.stamp_ns == self._stamp_ns:
            return None
        self._stamp_ns = step.stamp_ns
        if step.is_first:
            self._whole = True
            self._length, self._total, self._first_success = 0, 0.0, -1
            return None
        self._length += 1
        self._total += step.reward
        if step.success and self._first_success < 0:
            self._first_success = self._length
        if not (step.is_last and self._whole):
            return None
        self._whole = False
        return EpisodeSeen(
            explore=step.explore,
            length=self._length,
            total_reward=self._total,
            success=self._first_success >= 0,
            first_success=self._first_success,
            weights=step.weights,
        )
