"""What chooses the action: the actor, or a search in imagination, for reward or for a goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from wm_models.errors import PlanRefused
from wm_models.interface.checked import Checked
from wm_models.interface.planner import Cost, Planner, PlanState
from wm_models.interface.preset import Planning
from wm_models.interface.state import State
from wm_models.planners import GoalCost, ReturnCost, finite_action, planner
from wm_models.planners.committed_prefix import begun
from wm_models.planners.costs import REDUCTIONS
from wm_models.planners.population import Search
from wm_models.planners.registry import PLANNERS, SEARCHES
from wm_models.registry import preset
from wm_nodes.agent.weights import Weights
from wm_nodes.errors import UserError
from wm_nodes.records import Step

CHOOSERS = tuple(PLANNERS)
OBJECTIVES = ("", *REDUCTIONS)
FROM_ACTOR = 12  # candidates of a search that the actor proposes, where the preset says nothing
COMMON = ("horizon", "samples", "iterations")  # settings of every search


@dataclass(frozen=True)
class SearchSettings:
    """How to search; 0, or an empty text, leaves it to the model's preset, or to the planner.
    ModelError names a setting that cannot be."""

    budget_s: float = 0.0  # 0: all iterations
    horizon: int = 0  # model steps
    samples: int = 0
    iterations: int = 0
    execute: int = 0  # actions that are done before the next search
    goal_proprio: float = 1.0  # weight of the goal's proprioception beside its picture
    objective: str = ""  # steps of a plan that are compared with a goal: last, all

    def __post_init__(self) -> None:
        check = Checked(self)
        check.number("budget_s", "goal_proprio", low=0.0)
        check.whole("horizon", "samples", "iterations", "execute", low=0)
        check.choice("objective", OBJECTIVES)


class Chooser(Protocol):
    """Actions from a state."""

    name: str
    rounds: tuple[int, int]  # of the newest search: made before its budget was spent, wanted
    floor_s: float  # seconds that the newest search takes at least, whatever its budget is

    def can_choose(self, weights: Weights, has_goal: bool) -> bool:
        """Whether this model gives it something to choose by."""

    def executes(self, weights: Weights) -> int:
        """Return how many of the robot's actions are done before the next plan is due."""

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
        one are on their way already. PlanRefused: there is no plan, and the robot must stop."""

    def forget(self) -> None:
        """The goal is another one: begin the next search anew."""


class ActorChooser:
    """The actor's sample in training episodes, its mode in evaluation."""

    name = "actor"
    rounds = 1, 1
    floor_s = 0.0

    def can_choose(self, weights: Weights, has_goal: bool) -> bool:
        if not weights.model.spec.has_actor:
            raise UserError(
                f"planner: model {weights.preset} has no actor. Right: {', '.join(SEARCHES)}."
            )
        return True

    def executes(self, weights: Weights) -> int:
        return weights.model.spec.frameskip

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
        action = finite_action(model.act(state, mode=not step.explore, generator=noise))
        return action.clamp(*model.spec.bounds(action))

    def forget(self) -> None:
        pass


class SearchChooser:
    """CEM, MPPI or gradient descent: for the goal where there is one, else for the imagined
    return; begun at the last plan moved on by what was done of it."""

    def __init__(self, name: str, settings: SearchSettings) -> None:
        self.name = name
        self.rounds = 0, 0
        self.floor_s = 0.0
        self._settings = settings
        self._searches: dict[tuple[str, bool], Planner] = {}
        self._warm: PlanState | None = None

    def can_choose(self, weights: Weights, has_goal: bool) -> bool:
        spec = weights.model.spec
        return (has_goal and spec.has_goal) or spec.has_reward

    def executes(self, weights: Weights) -> int:
        preferred = self._settings.execute or self.planning(weights).execute
        return preferred or weights.model.spec.frameskip

    def planning(self, weights: Weights) -> Planning:
        """Return how the model's preset plans, with the settings in which the model differs."""
        return preset(weights.preset).varied(weights.settings).planning

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
        try:
            actions, after, info = search.plan(
                begun(weights.model, settled),
                state,
                self._cost(weights, goal),
                goal,
                warm=None if step.is_first else self._warm,
                budget_s=self._settings.budget_s or None,
                generator=noise,
            )
        except PlanRefused:
            self._warm = None
            raise
        wanted = getattr(search, PLANNERS[self.name].fields.get("iterations", "iterations"))
        self.rounds, self.floor_s = (int(info["iterations"]), int(wanted)), float(info["floor_s"])
        self._warm = moved_on(after, self.executes(weights), weights.model.spec.frameskip)
        return actions[0]

    def forget(self) -> None:
        self._warm = None

    def _cost(self, weights: Weights, goal: Mapping[str, Tensor] | None) -> Cost:
        planning = self.planning(weights)
        if goal is None:
            use_value = planning.use_value and weights.model.spec.has_value
            return ReturnCost(planning.gamma, use_value)
        keys = {"visual": 1.0} if "visual" in goal else {"feat": 1.0}
        if "proprio" in goal and self._settings.goal_proprio:
            keys["proprio"] = self._settings.goal_proprio
        return GoalCost(keys=keys, reduce=self._settings.objective or planning.objective)

    def _search(self, weights: Weights, explore: bool) -> Planner:
        """The search for this model; made once, as planners remember nothing."""
        key = (weights.preset, explore)
        if key not in self._searches:
            options = dict(self.planning(weights).planners.get(self.name, {}))
            own, kind = PLANNERS[self.name].fields, PLANNERS[self.name].load()
            given = {own.get(name, name): getattr(self._settings, name) for name in COMMON}
            options |= {name: value for name, value in given.items() if value}
            if issubclass(kind, Search):
                samples = options.get("samples", kind.samples)
                proposed = FROM_ACTOR if weights.model.spec.has_actor else 0
                options["elites"] = min(options.get("elites", kind.elites), samples)
                options["n_policy"] = min(options.get("n_policy", proposed), samples - 1)
                options["explore"] = explore
            self._searches[key] = planner(self.name, **options)
        return self._searches[key]


def moved_on(plan: PlanState, actions: int, frameskip: int) -> PlanState:
    """Return a plan [B, H, f A] as it is seen so many robot actions later; 0: a model step."""
    each = PlanState(plan.mean.unflatten(-1, (frameskip, -1)).flatten(1, 2))  # [B, H f, A]
    left = each.shifted(actions or frameskip).mean
    return replace(plan, mean=left.unflatten(1, (-1, frameskip)).flatten(-2))


def chooser(name: str, settings: SearchSettings | None = None) -> Chooser:
    """Return the chooser of a name."""
    if name == "actor":
        return ActorChooser()
    return SearchChooser(name, settings or SearchSettings())
