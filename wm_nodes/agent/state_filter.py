"""The recurrent state estimate (posterior), updated by each observation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_models.interface.state import State
from wm_nodes.agent.noise import torch_noise
from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import UserError
from wm_nodes.records import Step, Vector


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
                return self._state
            first = spec.context == 1 or len(self._executed) > spec.frameskip
        action = self._action(weights, step, first).to(device)
        noise = torch_noise(self._noise, self._seed, "world_model", step.stamp_ns)
        state = model.initial(1, device) if fresh else self._state
        is_first = torch.tensor([first], device=device)
        state = model.filter(state, action, tokens.to(device), is_first, generator=noise)
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


def check_action(weights: Weights, step: Step) -> None:
    """Raise UserError where robot and weights differ in the number of action dimensions."""
    size = len(weights.actions.robot_low)
    if size != len(step.names):
        raise UserError(
            f"weights: got version {weights.version} of {weights.preset} for {size} action "
            f"dimensions, expected {len(step.names)} as this robot's: {', '.join(step.names)}"
        )
