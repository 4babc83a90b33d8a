"""Robot actions to model actions, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment, Numbers
from wm_models.interface.world_model import ModelSpec, WorldModel


@dataclass(frozen=True)
class ActionAdapter:
    """Between robot actions [A] and model actions [f A]: ``frameskip`` of them side by side, each
    scaled from the robot's box to the model's."""

    robot_low: Numbers
    robot_high: Numbers
    model_low: Numbers  # [A], of one robot step
    model_high: Numbers
    frameskip: int = 1

    @classmethod
    def of(cls, model: WorldModel) -> ActionAdapter:
        """The adapter of a model to its robot; without an embodiment the two speak alike."""
        spec = model.spec
        if model.embodiment is not None:
            return cls.between(model.embodiment, spec)
        size = spec.action_dim // spec.frameskip
        low, high = spec.action_low[:size], spec.action_high[:size]
        return cls(low, high, low, high, spec.frameskip)

    @classmethod
    def between(cls, embodiment: Embodiment, spec: ModelSpec) -> ActionAdapter:
        """The adapter of a model that was built for ``embodiment``."""
        size = embodiment.action_dim
        if spec.action_dim != size * spec.frameskip:
            raise ModelError(
                f"actions: got a model with {spec.action_dim} in all, expected {size} per robot "
                f"step, {spec.frameskip} steps side by side."
            )
        low, high = spec.action_low[:size], spec.action_high[:size]
        return cls(embodiment.action_low, embodiment.action_high, low, high, spec.frameskip)

    def scale(self, action: Tensor) -> Tensor:
        """Robot actions [..., A] in the model's units, step by step."""
        return self._map(action, self.robot_low, self.robot_high, self.model_low, self.model_high)

    def unscale(self, action: Tensor) -> Tensor:
        """Inverse of :meth:`scale`."""
        return self._map(action, self.model_low, self.model_high, self.robot_low, self.robot_high)

    def from_robot(self, actions: Tensor) -> Tensor:
        """Model actions [..., f A] of ``frameskip`` consecutive robot actions [..., f, A]."""
        if actions.shape[-2:] != (self.frameskip, len(self.robot_low)):
            raise ModelError(
                f"actions: got {tuple(actions.shape)}, "
                f"expected (..., {self.frameskip}, {len(self.robot_low)})."
            )
        return self.scale(actions).flatten(-2)

    def to_robot(self, actions: Tensor) -> Tensor:
        """Robot actions [..., f, A], within the robot's box, of model actions [..., f A]."""
        each = self.unscale(actions.unflatten(-1, (self.frameskip, -1)))
        low, high = each.new_tensor(self.robot_low), each.new_tensor(self.robot_high)
        return each.clamp(low, high)

    @staticmethod
    def _map(x: Tensor, low: Numbers, high: Numbers, to_low: Numbers, to_high: Numbers) -> Tensor:
        if low == to_low and high == to_high:
            return x
        a, b, c, d = (torch.tensor(v, dtype=torch.float64) for v in (low, high, to_low, to_high))
        gain = (d - c) / (b - a)
        return x * gain.to(x) + (c - a * gain).to(x)
