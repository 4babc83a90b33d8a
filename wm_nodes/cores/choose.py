"""What chooses the action: the actor, or a search in the model's imagination around it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from wm_models.interface import PlanState, State, WorldModel
from wm_models.planners import Receding, ReturnCost, planner
from wm_nodes.cores.records import Step

CHOOSERS = ("actor", "cem", "mppi")
FROM_ACTOR = 12  # candidates of a search that the actor proposes


class Chooser(Protocol):
    """Actions from a state."""

    name: str

    def choose(self, model: WorldModel, state: State, step: Step, noise: torch.Generator) -> Tensor:
        """Return actions [N, A] within the model's box."""


class ActorChooser:
    """The actor's sample in training episodes, its mode in evaluation."""

    name = "actor"

    def choose(self, model: WorldModel, state: State, step: Step, noise: torch.Generator) -> Tensor:
        low, high = model.spec.bounds(state[0])
        return model.act(state, mode=not step.explore, generator=noise).clamp(low, high)


class SearchChooser:
    """CEM or MPPI for the imagined return, begun at the last plan moved on by one action."""

    def __init__(self, name: str, budget_s: float = 0.0) -> None:
        self.name = name
        self._budget_s = budget_s or None
        self._search = {
            explore: Receding(planner(name, n_policy=FROM_ACTOR, explore=explore))
            for explore in (False, True)
        }
        self._cost = ReturnCost()
        self._warm: PlanState | None = None

    def choose(self, model: WorldModel, state: State, step: Step, noise: torch.Generator) -> Tensor:
        actions, self._warm, _ = self._search[step.explore].plan(
            model,
            state,
            self._cost,
            warm=None if step.is_first else self._warm,
            budget_s=self._budget_s,
            generator=noise,
        )
        return actions[0]


def chooser(name: str, budget_s: float = 0.0) -> Chooser:
    """Return the chooser of a name; `budget_s` bounds a search, 0 lets it do all its iterations."""
    return ActorChooser() if name == "actor" else SearchChooser(name, budget_s)
