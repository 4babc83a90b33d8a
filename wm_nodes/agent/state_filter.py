"""The recurrent state estimate (posterior), updated by each observation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wm_models.interface.noise import RowGenerators
from wm_models.interface.state import State, concatenate, index
from wm_nodes.agent.noise import torch_noise
from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import UserError
from wm_nodes.records import Step, Vector


@dataclass(frozen=True)
class _Row:
    """What a model filters for one robot: a state of batch size 1, the model action [1, f A] that
    led to the observation, and whether the state is reset."""

    state: State
    action: Tensor
    is_first: bool
    noise: torch.Generator


class StateFilter:
    """The posterior state of one robot."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._noise = seed, torch.Generator(device)
        self._weights: Weights | None = None
        self._state: State | None = None
        self._stamp_ns = self._start_ns = self._last_step_ns = -1
        self._executed: list[Vector] = []  # actions executed since the last frame

    def record(self, step: Step) -> None:
        """Record every step: in real time the first image of an episode may be skipped."""
        if step.is_first:
            self._start_ns = step.stamp_ns
            self._executed.clear()
        elif step.stamp_ns > self._last_step_ns:
            self._executed.append(step.executed)
        self._last_step_ns = step.stamp_ns

    @torch.inference_mode()
    def update(self, weights: Weights, tokens: Tensor, step: Step) -> State:
        """Return the state after tokens [1, N, D] of the step's observation.

        The state is reset at the start of an episode, before the first observation, and with other
        weights. A model with a frameskip takes one observation per `frameskip` steps, and its state
        is reset where more steps have passed; between frames the state stays. A model with a
        context of one frame takes every observation.
        """
        due = self._due(weights, step)
        if due is None:
            return self._state
        device = device_of(weights.model)
        is_first = torch.tensor([due.is_first], device=device)
        state = weights.model.filter(
            due.state, due.action, tokens.to(device), is_first, generator=due.noise
        )
        return self._keep(weights, step, state)

    def _due(self, weights: Weights, step: Step) -> _Row | None:
        """What the model filters with the step's observation; None: the state stays."""
        model, spec = weights.model, weights.model.spec
        check_action(weights, step)
        device = device_of(model)
        if step.stamp_ns != self._last_step_ns:
            self.record(step)
        fresh = self._state is None or weights is not self._weights
        fresh |= self._stamp_ns < self._start_ns <= step.stamp_ns
        first = fresh or step.is_first
        if spec.frameskip > 1 and not first:
            if spec.context > 1 and len(self._executed) < spec.frameskip:
                return None
            first = spec.context == 1 or len(self._executed) > spec.frameskip
        action = self._action(weights, step, first).to(device)
        noise = torch_noise(self._noise, self._seed, "world_model", step.stamp_ns)
        return _Row(model.initial(1, device) if fresh else self._state, action, first, noise)

    def _keep(self, weights: Weights, step: Step, state: State) -> State:
        self._state, self._weights, self._stamp_ns = state, weights, step.stamp_ns
        self._executed.clear()
        return state

    def _action(self, weights: Weights, step: Step, first: bool) -> Tensor:
        """The model action [1, f A] that led to the step's observation."""
        skip = weights.model.spec.frameskip
        if skip == 1:
            return weights.actions.from_robot(torch.from_numpy(step.executed)[None, None])
        if first:
            return torch.zeros(1, weights.model.spec.action_dim)
        return weights.actions.from_robot(torch.from_numpy(np.stack(self._executed))[None])


@torch.inference_mode()
def update_all(
    filters: Sequence[StateFilter], weights: Weights, tokens: Tensor, steps: Sequence[Step]
) -> list[State]:
    """Update the filters of B robots in one forward pass; return their states, of batch size 1.

    tokens [B, N, D] and steps in the order of the filters. The states are those of B calls of
    `update`, up to rounding: each robot has its own state, reset and noise.
    """
    due = [each._due(weights, step) for each, step in zip(filters, steps, strict=True)]
    rows = [row for row in due if row is not None]
    states = [each._state for each in filters]
    if not rows:
        return states
    device = device_of(weights.model)
    taken = [number for number, row in enumerate(due) if row is not None]
    filtered = weights.model.filter(
        concatenate([row.state for row in rows]),
        torch.cat([row.action for row in rows]),
        tokens[taken].to(device),
        torch.tensor([row.is_first for row in rows], device=device),
        generator=RowGenerators([row.noise for row in rows]),
    )
    for row, number in enumerate(taken):
        own = index(filtered, slice(row, row + 1))
        states[number] = filters[number]._keep(weights, steps[number], own)
    return states


def check_action(weights: Weights, step: Step) -> None:
    """Raise UserError where robot and weights differ in the number of action dimensions."""
    size = len(weights.actions.robot_low)
    if size != len(step.names):
        raise UserError(
            f"weights: got version {weights.version} of {weights.preset} for {size} action "
            f"dimensions, expected {len(step.names)} as this robot's: {', '.join(step.names)}"
        )
