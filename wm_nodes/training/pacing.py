"""When an update is due: the ratio of agent steps to updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wm_datasets.errors import LogRowError
from wm_datasets.log import LogReader
from wm_models.interface.preset import Pace


class Pacing:
    """The preset's ratio of agent steps to updates, counted from an origin.

    The first `pace.initial` updates need only the prefill; each later one needs `pace.train_every`
    more agent steps. Without `enabled` (recorded logs) an update is always due.
    """

    def __init__(self, pace: Pace, enabled: bool) -> None:
        self.pace, self.enabled = pace, enabled
        self._origin = (pace.initial, pace.prefill)  # updates, agent steps
        self._restarted = False

    def prefill(self, resumed: bool) -> int:
        """Return the agent steps that must be recorded before the model is built."""
        return self.pace.prefill if self.enabled and not resumed else 1

    def is_due(self, updates: int, agent_steps: int) -> bool:
        """Return whether the next update is due after this many updates and agent steps."""
        if not self.enabled:
            return True
        if updates < self.pace.initial:
            return agent_steps >= self._origin[1]
        return self.covered(updates) < agent_steps

    def covered(self, updates: int) -> int:
        """Return the number of agent steps that this many updates are enough for."""
        first_update, first_step = self._origin
        return first_step + max(0, updates - first_update) * self.pace.train_every

    def restart(self, updates: int, agent_steps: int, *, alone: bool) -> None:
        """Count from here: the run continues with other logs, or online after offline.

        A log that is `alone` must hold the prefill first. Only the first call has an effect, so
        that a roll-back does not move the origin again.
        """
        if self._restarted:
            return
        self._restarted = True
        prefill = self.pace.prefill if alone else 0
        self._origin = max(updates, self.pace.initial), max(agent_steps, prefill)

    def state_dict(self) -> dict[str, Any]:
        return {"origin": list(self._origin), "paced": self.enabled}

    def can_load(self, state: Mapping[str, Any]) -> bool:
        """Return whether the origin of this state holds: not if it is of a run without a ratio."""
        return state.get("paced", True) or not self.enabled

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        updates, agent_steps = state.get("origin", self._origin)
        self._origin = updates, agent_steps


class AgentStepCount:
    """The agent steps of a growing log, without those of evaluation episodes."""

    def __init__(self) -> None:
        self.newest = 0  # at the last call of update()
        self._counted = (0, 0)  # rows that were counted, and those of evaluation episodes in them

    def update(self, log: LogReader) -> int:
        """Refresh the log and return its agent steps: rows dropped by its capacity count too."""
        log.refresh()
        rows, evaluation = self._counted
        try:
            marks = log.evaluation_rows()
        except LogRowError:  # the log's capacity dropped rows meanwhile: count at the next call
            return self.newest
        evaluation += int(marks[max(rows - log.first, 0) :].sum())
        self._counted = (log.length, evaluation)
        self.newest = log.length - evaluation
        return self.newest

    def state_dict(self) -> dict[str, Any]:
        return {"counted": list(self._counted)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        rows, evaluation = state.get("counted", self._counted)
        self._counted = rows, evaluation


class AgentSteps:
    """The agent steps of the growing logs of all environments of a run."""

    def __init__(self, environments: int) -> None:
        self._counts = [AgentStepCount() for _ in range(environments)]

    @property
    def newest(self) -> int:
        """The agent steps of all logs, at the last call of update()."""
        return sum(count.newest for count in self._counts)

    def of(self, environment: int) -> int:
        """Return the agent steps of one environment, at the last call of update()."""
        return self._counts[environment].newest

    def update(self, logs: Sequence[LogReader]) -> int:
        """Refresh the logs, one for each environment, and return their agent steps."""
        return sum(count.update(log) for count, log in zip(self._counts, logs, strict=True))

    def state_dict(self) -> dict[str, Any]:
        first, *others = [count.state_dict()["counted"] for count in self._counts]
        return {"counted": first, **({"counted_of_others": others} if others else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = [{"counted": counted} for counted in state.get("counted_of_others", ())]
        for count, each in zip(self._counts, [state, *own]):
            count.load_state_dict(each)
