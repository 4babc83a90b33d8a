"""What chooses the action: the actor, or a search in imagination, for reward or for a goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor

from wm_models.interface import Cost, Planner, PlanState, State
from wm_models.planners import GoalCost, ReturnCost, planner
from wm_models.planners.begun import begun
from wm_models.planners.registry import PLANNERS
from wm_models.presets import preset
from wm_nodes.cores.records import Step
from wm_nodes.cores.weights import Weights
from wm_nodes.errors import UserError

CHOOSERS = tuple(PLANNERS)
FROM_ACTOR = 12  # candidates of a search that the actor proposes
ELITES = 8  # of a search whose candidates are fewer than usual, at most
GD_NAMES = {"horizon": "horizon", "samples": "restarts", "iterations": "steps"}


@dataclass(frozen=True)
class SearchSettings:
    """How to search; 0 leaves a number to the model's preset, or to the planner."""

    budget_s: float = 0.0  # 0: all iterations
    horizon: int = 0  # model steps
    samples: int = 0
    iterations: int = 0
    execute: int = 0  # actions that are done before the next search; 0: a model step's
    goal_proprio: float = 1.0  # weight of the goal's proprioception beside its picture


class Chooser(Protocol):
    """Actions from a state."""

    name: str
    execute: int  # actions of a plan that are done before the next one is due; 0: a model step's
    rounds: tuple[int, int]  # of the newest search: made before its budget was spent, wanted

    def can_choose(self, weights: Weights, has_goal: bool) -> bool:
        """Whether this model gives it something to choose by."""

    def choose(
        self,
        weights: Weights,
        state: State,
        step: Step,
        noise: torch.Generator,
        goal: Mapping[str, Tensor] | None,
        settled: Tensor,
    ) -> Tensor:
        """Return model actions [H, f A] within the model's box; the first [k] numbers of the first
        one are on their way already."""

    def forget(self) -> None:
        """The goal is another one: begin the next search anew."""


class ActorChooser:
    """The actor's sample in training episodes, its mode in evaluation."""

    name = "actor"
    execute = 0
    rounds = 1, 1

    def can_choose(self, weights: Weights, has_goal: bool) -> bool:
        if not weights.model.spec.has_actor:
            raise UserError(
                f"planner: model {weights.preset} has no actor. Right: cem, mppi or gd."
            )
        return True

    @torch.inference_mode()
    def choose(
        self,
        weights: Weights,
        state: State,
        step: Step,
        noise: torch.Generator,
        goal: Mapping[str, Tensor] | None,
        settled: Tensor,
    ) -> Tensor:
        model = weights.model
        low, high = model.spec.bounds(state[0])
        return model.act(state, mode=not step.explore, generator=noise).clamp(low, high)

    def forget(self) -> None:
        pass


class SearchChooser:
    """CEM, MPPI or gradient descent: for the goal where there is one, else for the imagined
    return; begun at the last plan moved on by what was done of it."""

    def __init__(self, name: str, settings: SearchSettings) -> None:
        self.name, self.execute = name, settings.execute
        self.rounds = 0, 0
        self._settings = settings
        self._searches: dict[tuple[str, bool], Planner] = {}
        self._warm: PlanState | None = None

    def can_choose(self, weights: Weights, has_goal: bool) -> bool:
        spec = weights.model.spec
        return (has_goal and spec.has_goal) or spec.has_reward

    def choose(
        self,
        weights: Weights,
        state: State,
        step: Step,
        noise: torch.Generator,
        goal: Mapping[str, Tensor] | None,
        settled: Tensor,
    ) -> Tensor:
        search = self._search(weights, step.explore)
        actions, after, info = search.plan(
            begun(weights.model, settled),
            state,
            self._cost(goal),
            goal,
            warm=None if step.is_first else self._warm,
            budget_s=self._settings.budget_s or None,
            generator=noise,
        )
        wanted = getattr(search, "steps" if self.name == "gd" else "iterations")
        self.rounds = int(info["iterations"]), int(wanted)
        self._warm = moved_on(after, self.execute, weights.model.spec.frameskip)
        return actions[0]

    def forget(self) -> None:
        self._warm = None

    def _cost(self, goal: Mapping[str, Tensor] | None) -> Cost:
        if goal is None:
            return ReturnCost()
        keys = {"visual": 1.0} if "visual" in goal else {"feat": 1.0}
        if "proprio" in goal and self._settings.goal_proprio:
            keys["proprio"] = self._settings.goal_proprio
        return GoalCost(keys=keys, reduce="all")  # "last" would always arrive a horizon from now

    def _search(self, weights: Weights, explore: bool) -> Planner:
        """The search for this model; made once, as planners remember nothing."""
        key = (weights.preset, explore)
        if key not in self._searches:
            options = dict(preset(weights.preset).planning.get(self.name, {}))
            given = asdict(self._settings)
            names = GD_NAMES if self.name == "gd" else {name: name for name in GD_NAMES}
            options |= {names[name]: given[name] for name in names if given[name]}
            if self.name != "gd":
                has_actor = weights.model.spec.has_actor
                options |= {"n_policy": FROM_ACTOR if has_actor else 0, "explore": explore}
                if "samples" in options:
                    options["elites"] = min(options.get("elites", ELITES), options["samples"])
            self._searches[key] = planner(self.name, **options)
        return self._searches[key]


def moved_on(plan: PlanState, actions: int, frameskip: int) -> PlanState:
    """Return a plan [B, H, f A] as it is seen so many robot actions later; 0: a model step."""
    each = PlanState(plan.mean.unflatten(-1, (frameskip, -1)).flatten(1, 2))  # [B, H f, A]
    left = each.shifted(actions or frameskip).mean
    return PlanState(left.unflatten(1, (-1, frameskip)).flatten(-2))


def chooser(name: str, settings: SearchSettings | None = None) -> Chooser:
    """Return the chooser of a name."""
    if name == "actor":
        return ActorChooser()
    return SearchChooser(name, settings or SearchSettings())
