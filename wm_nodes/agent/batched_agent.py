"""One agent for several environments: one forward pass for the observations that are ready.

Each environment has a state, noise, plan and version of the weights of its own, so what it gets
does not depend on which others are in the batch, up to the rounding of batched matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_models.errors import PlanRefused
from wm_models.interface.state import State
from wm_nodes.agent.encoder import Seen, observed
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.policy import ActionPlanner, act_all
from wm_nodes.agent.state_filter import StateFilter, update_all
from wm_nodes.agent.weights import VersionSwitch, Weights
from wm_nodes.errors import MessageError
from wm_nodes.records import Step, Vector


@dataclass(frozen=True)
class Observation:
    """What an environment shows: images (H, W, 3) uint8 and proprio (P,), where there are any."""

    step: Step
    images: Seen = None
    proprio: Vector | None = None


@dataclass(frozen=True)
class Decision:
    """What the agent makes of one observation.

    weights: None: there are none yet, so actions are random. tokens [1, N, D] and state of batch
    size 1: None where the observation could not be encoded. actions (N, A) in the robot's units;
    None: see `error`, or the episode has ended, or random actions are due, since there are no
    weights or (`goal_missing`) no goal to plan for.
    """

    weights: Weights | None
    tokens: Tensor | None = None
    state: State | None = None
    actions: Vector | None = None
    error: MessageError | PlanRefused | None = None
    goal_missing: bool = False


class EnvironmentAgent:
    """What an agent keeps of one environment."""

    def __init__(self, seed: int, device: torch.device, planner: ActionPlanner, swap: str) -> None:
        self.filter, self.planner = StateFilter(seed, device), planner
        self.switch = VersionSwitch(swap)

    def record(self, step: Step) -> None:
        """Record the step of an observation that is about to be answered."""
        self.filter.record(step)
        self.planner.delay.record(step)


class BatchedAgent:
    """Answers observations of several environments together; it waits for none of them."""

    def __init__(
        self,
        seeds: Sequence[int],
        device: torch.device,
        planners: Sequence[ActionPlanner],
        swap: str = "episode",
    ) -> None:
        """seeds, planners: of each environment, all planners of one kind; a planner has its
        environment's seed. swap: as of :class:`VersionSwitch`."""
        self.environments = [
            EnvironmentAgent(seed, device, planner, swap)
            for seed, planner in zip(seeds, planners, strict=True)
        ]

    @property
    def goal(self) -> Goal | None:
        """The goal of all environments."""
        return self.environments[0].planner.goal

    @goal.setter
    def goal(self, goal: Goal | None) -> None:
        for each in self.environments:
            each.planner.goal = goal

    def act(self, ready: Mapping[int, Observation], newest: Weights | None) -> dict[int, Decision]:
        """Return a decision for each observation, by the number of its environment.

        Observations of one environment are given in order. newest: weights that environments
        switch to at the start of an episode. Environments that act with the same version are
        computed together. UserError: weights and robot do not fit.
        """
        groups: dict[int, tuple[Weights | None, list[int]]] = {}
        for number, observation in sorted(ready.items()):
            environment = self.environments[number]
            environment.record(observation.step)
            weights = environment.switch.at(observation.step, newest)
            groups.setdefault(id(weights), (weights, []))[1].append(number)
        decisions: dict[int, Decision] = {}
        for weights, numbers in groups.values():
            if weights is None:
                decisions |= {number: Decision(None) for number in numbers}
            else:
                decisions |= self._decide(weights, {number: ready[number] for number in numbers})
        return decisions

    def _decide(self, weights: Weights, ready: Mapping[int, Observation]) -> dict[int, Decision]:
        """Encode, filter and act with one version of the weights."""
        decisions: dict[int, Decision] = {}
        inputs: dict[int, dict[str, Tensor]] = {}
        for number, each in ready.items():
            try:
                inputs[number] = observed(weights, each.images, each.proprio)
            except MessageError as error:
                decisions[number] = Decision(weights, error=error)
        if not inputs:
            return decisions
        numbers = list(inputs)
        tokens = encode_all(weights, list(inputs.values()))
        filters = [self.environments[number].filter for number in numbers]
        steps = [ready[number].step for number in numbers]
        states = update_all(filters, weights, tokens, steps)
        seen = {
            number: Decision(weights, tokens[row : row + 1], states[row])
            for row, number in enumerate(numbers)
        }
        return decisions | seen | self._plan(weights, ready, seen)

    def _plan(
        self, weights: Weights, ready: Mapping[int, Observation], seen: Mapping[int, Decision]
    ) -> dict[int, Decision]:
        """Return the decisions of the environments whose episodes go on."""
        going_on = [number for number in seen if not ready[number].step.is_last]
        planners = {number: self.environments[number].planner for number in going_on}
        able = [number for number in going_on if planners[number].can_act(weights)]
        outcomes = act_all(
            [planners[number] for number in able],
            weights,
            [seen[number].state for number in able],
            [ready[number].step for number in able],
        )
        decided = {number: _with(seen[number], out) for number, out in zip(able, outcomes)}
        return decided | {
            number: Decision(weights, seen[number].tokens, seen[number].state, goal_missing=True)
            for number in going_on
            if number not in decided
        }


@torch.inference_mode()
def encode_all(weights: Weights, inputs: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return tokens [B, N, D] of B observations {name: [1, ...]}."""
    names = inputs[0].keys()
    batch = {name: torch.cat([each[name] for each in inputs]) for name in names}
    return weights.model.encode(batch).float()


def _with(seen: Decision, outcome: Vector | MessageError | PlanRefused) -> Decision:
    if isinstance(outcome, (MessageError, PlanRefused)):
        return Decision(seen.weights, seen.tokens, seen.state, error=outcome)
    return Decision(seen.weights, seen.tokens, seen.state, outcome)
