"""The contract of planners: a cost, a plan's state, and the search itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wm_models.interface.state import State
from wm_models.interface.world_model import Rollout, WorldModel


class Cost(Protocol):
    """Scores candidates; lower is better. ``needs`` names what a rollout must hold for it.

    "last" among them says that it looks at the features of the last step only. A cost may also
    carry ``optional``, names that it uses where the model has them, and ``goal``,
    True when it cannot do without a goal.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        """Cost [B, S] of ``rollout`` under ``actions`` [B, S, H, A]."""


@dataclass(frozen=True)
class PlanState:
    """Where the next search starts: the mean [B, H, A], and the goal of its search. The initial
    width is the planner's setting: the final width of a search is too narrow for a new one."""

    mean: Tensor
    goal: Mapping[str, Tensor] | None = None  # {name: [B, ...]}; None: no goal is known

    def shifted(self, steps: int) -> PlanState:
        """The plan as seen ``steps`` actions later: moved forward, the end filled with zeros."""
        tail = torch.zeros_like(self.mean[:, : min(steps, self.mean.shape[1])])
        return PlanState(torch.cat([self.mean[:, steps:], tail], 1), self.goal)

    def serves(self, goal: Mapping[str, Tensor] | None) -> Tensor:
        """Which rows [B] bool may start a search for ``goal``: those of the same goal; all, where
        this one's goal is not known."""
        same = torch.ones(len(self.mean), dtype=torch.bool, device=self.mean.device)
        if self.goal is None or goal is self.goal:
            return same
        if goal is None or goal.keys() != self.goal.keys():
            return ~same
        for name, old in self.goal.items():
            if old.shape != goal[name].shape:
                return ~same
            same &= (old == goal[name]).flatten(1).all(1).to(same.device)
        return same


class Planner(Protocol):
    """A search over action sequences; a function of its arguments (equal generator, equal plan)."""

    @property
    def horizon(self) -> int:
        """H, the model steps of a plan."""

    def plan(
        self,
        model: WorldModel,
        state: State,
        cost: Cost,
        goal: Mapping[str, Tensor] | None = None,
        warm: PlanState | None = None,
        budget_s: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, PlanState, dict[str, Tensor]]:
        """Actions [B, H, A] within the model's box, the warm start for the next call, and facts
        about the search. When ``budget_s`` seconds are over, the best plan so far is returned."""
