"""Action selection: by the actor, or by a search in imagination, for reward or for a goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from wm_models.errors import ModelError, PlanRefused
from wm_models.interface.checked import Checked
from wm_models.interface.noise import RowGenerators
from wm_models.interface.planner import Cost, Planner, PlanState
from wm_models.interface.preset import Planning
from wm_models.interface.state import State, concatenate
from wm_models.planners import GoalCost, ReturnCost, finite_action, planner
from wm_models.planners.committed_prefix import with_committed_prefix
from wm_models.planners.costs import REDUCTIONS
from wm_models.planners.population import Search
from wm_models.planners.receding_horizon import shifted_start
from wm_models.planners.registry import PLANNERS, SEARCHES
from wm_models.registry import preset
from wm_nodes.agent.weights import Weights
from wm_nodes.errors import MessageError, UserError
from wm_nodes.records import Step

ACTION_SELECTORS = tuple(PLANNERS)
OBJECTIVES = ("", *REDUCTIONS)
ACTOR_CANDIDATES = 12  # candidates of a search from the actor, where the preset does not set them
COMMON = ("horizon", "samples", "iterations", "temperature")  # settings of a planner


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; 0, or an empty text, keeps the default of the model's preset, or of the
    planner. ModelError names a setting that is out of range."""

    budget_s: float = 0.0  # 0: all iterations
    horizon: int = 0  # model steps
    samples: int = 0
    iterations: int = 0
    execute: int = 0  # robot actions executed before the next search
    temperature: float = 0.0  # mppi: sharpness of the weights of elites
    goal_visual: float = 1.0  # weight of the goal's image
    goal_proprio: float = 1.0  # weight of the goal's proprioception
    objective: str = ""  # steps of a plan that are compared with a goal: last, all

    def __post_init__(self) -> None:
        check = Checked(self)
        check.number("budget_s", "temperature", "goal_visual", "goal_proprio", low=0.0)
        check.whole("horizon", "samples", "iterations", "execute", low=0)
        check.choice("objective", OBJECTIVES)
        if not self.goal_visual and not self.goal_proprio:
            check.refuse("goal_visual", "more than 0, as goal_proprio is 0")

    def check_planner(self, name: str) -> None:
        """ModelError: the planner of that name does not have a setting that is not the default."""
        if self.temperature and not hasattr(PLANNERS[name].load(), "temperature"):
            raise ModelError(
                f"temperature: got {self.temperature:g} for planner {name}, expected 0. Use "
                "planner mppi, or leave temperature at 0."
            )


class ActionSelector(Protocol):
    """Actions from a state."""

    name: str
    rounds: tuple[int, int]  # iterations of the newest search: within its budget, and configured
    floor_s: float  # least time [s] of the newest search, whatever its budget

    def can_select(self, weights: Weights, has_goal: bool) -> bool:
        """Whether the model has an actor, a reward, or a goal to plan for."""

    def executes(self, weights: Weights) -> int:
        """Return how many robot actions are executed before the next plan is due."""

    def select(
        self,
        weights: Weights,
        state: State,
        step: Step,
        noise: torch.Generator,
        goal: Mapping[str, Tensor] | None,
        committed: Tensor,
    ) -> Tensor:
        """Return model actions [H, f A] within the model's box, of which the first [k] numbers of
        the first one are committed already. PlanRefused: there is no plan, and the robot must
        stop."""

    def reset(self) -> None:
        """Drop the warm start, for example for a new goal."""

    def configure(self, settings: SearchSettings) -> None:
        """Use other settings from the next search on. ModelError: the planner does not take them;
        nothing changes."""


class ActorSelector:
    """The actor's sample in training episodes, its mode in evaluation."""

    name = "actor"
    rounds = 1, 1
    floor_s = 0.0

    def can_select(self, weights: Weights, has_goal: bool) -> bool:
        if not weights.model.spec.has_actor:
            raise UserError(
                f"planner: got {self.name}, but model {weights.preset} has no actor, expected one "
                f"of {', '.join(SEARCHES)}."
            )
        return True

    def executes(self, weights: Weights) -> int:
        return weights.model.spec.frameskip

    @torch.inference_mode()
    def select(
        self,
        weights: Weights,
        state: State,
        step: Step,
        noise: torch.Generator,
        goal: Mapping[str, Tensor] | None,
        committed: Tensor,
    ) -> Tensor:
        model = weights.model
        action = finite_action(model.act(state, mode=not step.explore, generator=noise))
        return action.clamp(*model.spec.bounds(action))

    def reset(self) -> None:
        pass

    def configure(self, settings: SearchSettings) -> None:
        if settings != SearchSettings():
            raise ModelError(
                f"planner: got settings of a search for planner {self.name}, expected one of "
                f"{', '.join(SEARCHES)}. Restart the node with such a planner."
            )


@torch.inference_mode()
def actor_plans(
    weights: Weights,
    states: Sequence[State],
    explore: Sequence[bool],
    noises: Sequence[torch.Generator],
) -> list[Tensor | PlanRefused]:
    """Return the actor's model action [1, f A] for each of B states of batch size 1: what
    ActorSelector selects or refuses, in one forward pass for those that explore and one for the
    others."""
    model = weights.model
    plans: dict[int, Tensor | PlanRefused] = {}
    for exploring in (True, False):
        rows = [row for row, explores in enumerate(explore) if explores is exploring]
        if not rows:
            continue
        actions = model.act(
            concatenate([states[row] for row in rows]),
            mode=not exploring,
            generator=RowGenerators([noises[row] for row in rows]),
        )
        for row, action in zip(rows, actions.split(1), strict=True):
            try:
                plans[row] = finite_action(action).clamp(*model.spec.bounds(action))
            except PlanRefused as error:
                plans[row] = error
    return [plans[row] for row in range(len(states))]


class SearchSelector:
    """CEM, MPPI or gradient descent: for the goal if there is one, else for the imagined return.
    The warm start is the previous plan, shifted by its executed actions."""

    def __init__(self, name: str, settings: SearchSettings) -> None:
        settings.check_planner(name)
        self.name = name
        self.rounds = 0, 0
        self.floor_s = 0.0
        self._settings = settings
        self._searches: dict[tuple[str, bool], Planner] = {}
        self._warm: PlanState | None = None

    def can_select(self, weights: Weights, has_goal: bool) -> bool:
        spec = weights.model.spec
        return (has_goal and spec.has_goal) or spec.has_reward

    def executes(self, weights: Weights) -> int:
        preferred = self._settings.execute or self.planning(weights).execute
        return preferred or weights.model.spec.frameskip

    def planning(self, weights: Weights) -> Planning:
        """Return the planner settings of the model's preset, with the model's own settings."""
        return preset(weights.preset).varied(weights.settings).planning

    def select(
        self,
        weights: Weights,
        state: State,
        step: Step,
        noise: torch.Generator,
        goal: Mapping[str, Tensor] | None,
        committed: Tensor,
    ) -> Tensor:
        search = self._search(weights, step.explore)
        try:
            actions, after, info = search.plan(
                with_committed_prefix(weights.model, committed),
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
        configured = getattr(search, self._field("iterations"))
        self.rounds, self.floor_s = (int(info["iterations"]), configured), float(info["floor_s"])
        self._warm = shifted_start(after, self.executes(weights), weights.model.spec.frameskip)
        return actions[0]

    def reset(self) -> None:
        self._warm = None

    def configure(self, settings: SearchSettings) -> None:
        """The warm start is kept unless the horizon, and with it the shape of plans, changes."""
        settings.check_planner(self.name)
        if settings.horizon != self._settings.horizon:
            self._warm = None
        self._settings = settings
        self._searches.clear()

    def _field(self, setting: str) -> str:
        """The planner's own name of a common setting."""
        return PLANNERS[self.name].fields.get(setting, setting)

    def _cost(self, weights: Weights, goal: Mapping[str, Tensor] | None) -> Cost:
        planning = self.planning(weights)
        if goal is None:
            use_value = planning.use_value and weights.model.spec.has_value
            return ReturnCost(planning.gamma, use_value)
        settings = self._settings
        weight_of = {"visual" if "visual" in goal else "feat": settings.goal_visual}
        if "proprio" in goal:
            weight_of["proprio"] = settings.goal_proprio
        keys = {name: weight for name, weight in weight_of.items() if weight}
        if not keys:
            raise MessageError(
                "weights",
                "goal: got an image without joint states, expected both as goal_visual is 0. "
                "Publish goal/joint_states, or set goal_visual above 0.",
            )
        return GoalCost(keys=keys, reduce=settings.objective or planning.objective)

    def _search(self, weights: Weights, explore: bool) -> Planner:
        """The planner for this model; kept, as planners have no state."""
        key = (weights.preset, explore)
        if key not in self._searches:
            options = dict(self.planning(weights).planners.get(self.name, {}))
            settings = {self._field(name): getattr(self._settings, name) for name in COMMON}
            options |= {name: value for name, value in settings.items() if value}
            kind = PLANNERS[self.name].load()
            if issubclass(kind, Search):
                options = population_options(options, kind, weights.model.spec.has_actor)
                options["explore"] = explore
            self._searches[key] = planner(self.name, **options)
        return self._searches[key]


def population_options(
    options: Mapping[str, Any], kind: type[Search], has_actor: bool
) -> dict[str, Any]:
    """Return options of a population search with no more elites and candidates of the actor than
    there are samples."""
    samples = options.get("samples", kind.samples)
    from_actor = options.get("n_policy", ACTOR_CANDIDATES if has_actor else 0)
    return {
        **options,
        "elites": min(options.get("elites", kind.elites), samples),
        "n_policy": min(from_actor, samples - 1),
    }


def action_selector(name: str, settings: SearchSettings | None = None) -> ActionSelector:
    """Return the action selector of a planner's name (wm_models.planners.registry)."""
    if name == "actor":
        return ActorSelector()
    return SearchSelector(name, settings or SearchSettings())
