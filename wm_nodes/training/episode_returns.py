"""Returns of whole episodes of a log, for learners that learn from them (LearnsFromReturns)."""

from __future__ import annotations

import numpy as np

from wm_datasets.log import LogReader
from wm_models.interface import EpisodeReturn

MIXED = -1  # several versions of weights chose an episode's actions, or none did


class EpisodeReturns:
    """Episodes in the order of their rows, each handed out once, when it is whole."""

    def __init__(self, log: LogReader, after: int = 0) -> None:
        """`after`: episodes that begin before this row were handed out already."""
        self._log = log
        self.after = after

    def new(self) -> list[EpisodeReturn]:
        """Return the episodes that have become whole; damaged ones are passed over, and those that
        were recorded to evaluate a policy."""
        table = self._log.intact
        table = table[~self._log.is_evaluation(table)]
        table = table[table["complete"] & (table["start"] >= self.after)]
        if len(table):
            self.after = int(table["start"][-1]) + 1
        return [self._of(int(start), int(length)) for start, length, _ in table]

    def _of(self, start: int, length: int) -> EpisodeReturn:
        rows = self._log.read_rows(start, start + length, ("reward", "weights"))
        acted = np.unique(rows["weights"][:-1])
        weights = int(acted[0]) if len(acted) == 1 else MIXED
        return EpisodeReturn(float(rows["reward"].sum()), length, weights)
