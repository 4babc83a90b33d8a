"""The state to actions: pending actions are imagined first, and a plan is executed for some steps.

The split nodes send the results as messages; the agent node passes them on. Same objects, same
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_datasets.spec import VectorSpec
from wm_models.errors import PlanRefused
from wm_models.interface.state import State
from wm_models.planners.receding_horizon import search_due
from wm_nodes.agent.action_selection import (
    ActionSelector,
    ActorSelector,
    SearchSettings,
    actor_plans,
)
from wm_nodes.agent.delay_compensation import DelayCompensator
from wm_nodes.agent.encoder import observed
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.noise import numpy_noise, torch_noise
from wm_nodes.agent.state_filter import check_action
from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import MessageError, UserError
from wm_nodes.records import Step, Vector
from wm_nodes.robots.cameras.preprocess import ImagePipeline


class GoalFeatures:
    """The features of a goal, encoded once per version of weights."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self._encoded: tuple[Weights, dict[str, Tensor]] | None = None

    @torch.inference_mode()
    def features(self, weights: Weights) -> dict[str, Tensor] | None:
        """Return the goal's features {name: [1, ...]}, None for a model that takes no goals."""
        spec = weights.model.spec
        if not spec.has_goal:
            return None
        if self._encoded is None or self._encoded[0] is not weights:
            size = spec.image_size
            image = ImagePipeline(*size)(self.goal.image) if size else None
            features = weights.model.encode_goal(observed(weights, image, self.goal.proprio))
            self._encoded = weights, features
        return self._encoded[1]


@dataclass(frozen=True)
class StampedPlan:
    """A plan of the robot's actions (N, A) for the observation at `stamp_ns`."""

    stamp_ns: int
    actions: Vector


@dataclass(frozen=True)
class _Start:
    """Where a plan starts: the state (batch size 1), the actions (r, A) that are committed within
    the first model step, the pending actions (n, A) after the observation, and the noise."""

    state: State
    committed: Tensor
    pending: Vector
    noise: torch.Generator


class ActionPlanner:
    """State to actions; random actions while there are no weights.

    The state is advanced by the pending actions (DelayCompensator) first: a plan starts at the
    state that the robot will have. The plan is executed for as many actions as the selector says,
    then a new one is searched.
    """

    def __init__(
        self,
        seed: int,
        device: torch.device,
        selector: ActionSelector,
        delay: DelayCompensator | None = None,
    ) -> None:
        self._seed, self._noise = seed, torch.Generator(device)
        self._selector, self.delay = selector, delay or DelayCompensator()
        self._goal: GoalFeatures | None = None
        self._current: tuple[Weights, StampedPlan] | None = None  # None: a new plan is due
        self._sent: StampedPlan | None = None  # the plan that the robot executes
        self.module = selector.name

    @property
    def goal(self) -> Goal | None:
        """The goal to reach; None: plan for reward."""
        return self._goal.goal if self._goal else None

    @goal.setter
    def goal(self, goal: Goal | None) -> None:
        self._goal = GoalFeatures(goal) if goal is not None else None
        self._current = None
        self._selector.reset()

    @property
    def planned_ns(self) -> int:
        """Stamp of the observation that the current plan answers; -1: there is no plan."""
        return self._current[1].stamp_ns if self._current else -1

    @property
    def rounds(self) -> tuple[int, int]:
        """Iterations of the newest search: within its budget, and configured."""
        return self._selector.rounds

    @property
    def floor_s(self) -> float:
        """Least time [s] of the newest search, whatever its budget."""
        return self._selector.floor_s

    def configure(self, settings: SearchSettings) -> None:
        """Use other search settings from the next search on; the current plan is executed to its
        end. ModelError: the planner does not take them; nothing changes."""
        self._selector.configure(settings)

    def can_act(self, weights: Weights) -> bool:
        """Whether there is a goal, a reward, or an actor."""
        return self._selector.can_select(weights, self._goal is not None)

    def act(self, weights: Weights, state: State, step: Step) -> Vector:
        """Return actions (N, A) in the robot's units, the first one due now. Explores in training
        episodes only. MessageError: the goal does not fit the model. PlanRefused: there is no plan,
        and the robot must stop."""
        rest = self._continued(weights, step)
        if rest is not None:
            return rest
        due = self._due(weights, state, step)
        goal = self._goal.features(weights) if self._goal else None
        try:
            plan = self._selector.select(
                weights, due.state, step, due.noise, goal, due.committed.flatten()
            )
        except PlanRefused:
            self._current = None
            raise
        return self._send(weights, step, due, plan)

    def _continued(self, weights: Weights, step: Step) -> Vector | None:
        """The rest of the plan that is executed; None: a new one is due."""
        check_action(weights, step)
        self.delay.record(step)
        return self._rest(weights, step)

    def _due(self, weights: Weights, state: State, step: Step) -> _Start:
        """Where a new plan starts."""
        noise = torch_noise(self._noise, self._seed, "policy", step.stamp_ns)
        pending, before = self._pending(weights, step)
        state, committed = advanced(weights, state, pending, noise)
        return _Start(state, committed, pending[before:], noise)

    def _send(self, weights: Weights, step: Step, start: _Start, plan: Tensor) -> Vector:
        """Return a plan [H, f A] as the robot's actions, which it executes from now on."""
        robot = weights.actions.to_robot(plan.detach().float()).flatten(0, 1)  # (H f, A)
        free: Vector = robot.cpu().numpy()[len(start.committed) :]
        self._sent = StampedPlan(step.stamp_ns, np.concatenate([start.pending, free]))
        self._current = weights, self._sent
        return self._sent.actions

    def _pending(self, weights: Weights, step: Step) -> tuple[Vector, int]:
        """The actions that act before a plan can, and how many were commanded before now."""
        spec = weights.model.spec
        period_s = spec.model_dt / spec.frameskip
        rest = np.zeros((0, len(step.names)), np.float32)
        if self._sent is not None and not step.is_first and period_s:
            executed = round((step.stamp_ns - self._sent.stamp_ns) / 1e9 / period_s)
            rest = self._sent.actions[max(executed, 0) :]
        pending, before = self.delay.pending_actions(rest, period_s)
        if spec.discrete:  # a robot at rest executes the first action of the set
            pending = VectorSpec.one_hot(step.names).nearest(pending)
        return pending, before

    def _rest(self, weights: Weights, step: Step) -> Vector | None:
        """The rest of the current plan; None where a new one is due."""
        spec = weights.model.spec
        execute = self._selector.executes(weights)
        if spec.context > 1 and execute % spec.frameskip:
            raise UserError(
                f"execute: got {execute}, expected 0 or a multiple of {spec.frameskip}: model "
                f"{weights.preset} uses its last frames, one every {spec.frameskip} actions."
            )
        if self._current is None or execute == 1 or step.is_first:
            return None
        planned_with, plan = self._current
        period_ns = spec.model_dt / spec.frameskip * 1e9
        if planned_with is not weights or not period_ns:
            return None
        executed = round((step.stamp_ns - plan.stamp_ns) / period_ns)
        due = search_due(executed, execute, len(plan.actions))
        return None if due else plan.actions[executed:]

    def random_action(self, space: VectorSpec, stamp_ns: int) -> Vector:
        """Return one uniform action (1, A) of the robot's action space."""
        return space.draw(numpy_noise(self._seed, "random", stamp_ns))[None]


def act_all(
    planners: Sequence[ActionPlanner],
    weights: Weights,
    states: Sequence[State],
    steps: Sequence[Step],
) -> list[Vector | MessageError | PlanRefused]:
    """Return what `act` returns or raises for each of B robots, with states of batch size 1.

    The actor acts for all in one forward pass, with the noise of each robot: the same actions, up
    to rounding. Searches follow each other.
    """
    rows = list(zip(planners, states, steps, strict=True))
    if not all(isinstance(planner._selector, ActorSelector) for planner in planners):
        return [_outcome(planner, weights, state, step) for planner, state, step in rows]
    answers: list[Any] = [planner._continued(weights, step) for planner, _, step in rows]
    due = [number for number, answer in enumerate(answers) if answer is None]
    starts = {number: planners[number]._due(weights, *rows[number][1:]) for number in due}
    plans = actor_plans(
        weights,
        [starts[number].state for number in due],
        [steps[number].explore for number in due],
        [starts[number].noise for number in due],
    )
    for number, plan in zip(due, plans, strict=True):
        if isinstance(plan, PlanRefused):
            planners[number]._current = None
            answers[number] = plan
        else:
            answers[number] = planners[number]._send(weights, steps[number], starts[number], plan)
    return answers


def _outcome(
    planner: ActionPlanner, weights: Weights, state: State, step: Step
) -> Vector | MessageError | PlanRefused:
    try:
        return planner.act(weights, state, step)
    except (MessageError, PlanRefused) as error:
        return error


@torch.inference_mode()
def advanced(
    weights: Weights, state: State, actions: Vector, noise: torch.Generator
) -> tuple[State, Tensor]:
    """Return the state after the robot's actions (n, A) as far as they fill whole model steps, and
    the remaining ones (r, A) in the model's units."""
    model, skip = weights.model, weights.model.spec.frameskip
    scaled = weights.actions.scale(torch.from_numpy(actions).to(device_of(model)))
    whole = len(scaled) // skip * skip
    for block in scaled[:whole].unflatten(0, (-1, skip)) if whole else ():
        state = model.step(state, block.reshape(1, -1), generator=noise)
    return state, scaled[whole:]
