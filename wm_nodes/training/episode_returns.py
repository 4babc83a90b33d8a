"""Returns of whole episodes of a log, for learners that learn from them (LearnsFromReturns)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wm_datasets.errors import LogRowError
from wm_datasets.log import LogReader
from wm_datasets.storage.damage import LogDamageError
from wm_models.interface.learner import EpisodeReturn

MIXED = -1  # several versions of weights chose an episode's actions, or none did


class EpisodeReturns:
    """Episodes in the order of their rows, each handed out once, when it is whole."""

    def __init__(
        self,
        log: LogReader,
        after: int = 0,
        episodes: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """`after`: episodes that begin before this row were handed out already. `episodes` chooses
        those to learn from, as for :class:`Sampler`."""
        self._log, self._episodes = log, episodes
        self.after = after

    def new(self) -> list[EpisodeReturn]:
        """Return the episodes that have become whole. Passed over are those that are damaged or
        gone, that were recorded to evaluate a policy, or that `episodes` does not choose."""
        table = self._log.learnable
        table = table[table["complete"] & (table["start"] >= self.after)]
        if len(table):
            self.after = int(table["start"][-1]) + 1
        if self._episodes is not None:
            table = table[self._episodes(table)]
        returns = [self._of(int(start), int(length)) for start, length, _ in table]
        return [each for each in returns if each is not None]

    def _of(self, start: int, length: int) -> EpisodeReturn | None:
        try:
            rows = self._log.read_rows(start, start + length, ("reward", "weights"))
        except (LogDamageError, LogRowError):  # lost, or dropped by the log's capacity
            return None
        acted = np.unique(rows["weights"][:-1])
        weights = int(acted[0]) if len(acted) == 1 else MIXED
        return EpisodeReturn(float(rows["reward"].sum()), length, weights)


class AllReturns:
    """Returns of the episodes of several logs, one log after the other."""

    def __init__(
        self,
        logs: Sequence[LogReader],
        episodes: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self._logs = [EpisodeReturns(log, episodes=episodes) for log in logs]

    def new(self) -> list[EpisodeReturn]:
        """Return the episodes of each log that have become whole."""
        return [each for log in self._logs for each in log.new()]

    def state_dict(self) -> dict[str, Any]:
        first, *others = [log.after for log in self._logs]
        return {"returns": first, **({"returns_of_others": others} if others else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        after = [state.get("returns", 0), *state.get("returns_of_others", ())]
        for log, row in zip(self._logs, after):
            log.after = row
