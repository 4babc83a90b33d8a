"""The robot that a model is for: boxes and statistics of its vectors, and the way between units.

A :class:`Body` is measured on the logs when learning begins and travels with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wm_models.interface import ModelError, ModelSpec, WorldModel

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Body:
    """What the logs say about a robot's actions [A] and proprioception [P], in its own units."""

    action_low: Numbers  # the box that its actions were drawn from; finite
    action_high: Numbers
    action_mean: Numbers
    action_std: Numbers
    proprio_mean: Numbers = ()  # empty: it has none
    proprio_std: Numbers = ()
    period_s: float = 0.0  # of one robot step; 0 when unknown

    def __post_init__(self) -> None:
        for part in ("action_low", "action_high", "action_mean", "action_std"):
            object.__setattr__(self, part, tuple(float(x) for x in getattr(self, part)))
        for part in ("proprio_mean", "proprio_std"):
            object.__setattr__(self, part, tuple(float(x) for x in getattr(self, part)))
        sizes = {len(self.action_low), len(self.action_high), len(self.action_mean)}
        if sizes != {len(self.action_std)} or len(self.proprio_mean) != len(self.proprio_std):
            raise ModelError(f"body: expected vectors of equal length, got {self}.")
        if any(low >= high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ModelError(
                f"body: expected action_low < action_high, got {self.action_low} and "
                f"{self.action_high}."
            )
        if min((*self.action_std, *self.proprio_std)) <= 0:
            raise ModelError(f"body: expected standard deviations > 0, got {self}.")

    @classmethod
    def unit(cls, size: int) -> Body:
        """A robot whose ``size`` actions lie in -1..1 and of which nothing else is known."""
        return cls((-1.0,) * size, (1.0,) * size, (0.0,) * size, (1.0,) * size)

    @classmethod
    def of(cls, body: Body | int) -> Body:
        """A body, or the unit body of that many actions."""
        return cls.unit(body) if isinstance(body, int) else body

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Body:
        return cls(**found)

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @property
    def proprio_dim(self) -> int:
        return len(self.proprio_mean)


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
        """The adapter of a model to its robot; without a body the two speak alike."""
        spec = model.spec
        if model.body is not None:
            return cls.between(model.body, spec)
        size = spec.action_dim // spec.frameskip
        low, high = spec.action_low[:size], spec.action_high[:size]
        return cls(low, high, low, high, spec.frameskip)

    @classmethod
    def between(cls, body: Body, spec: ModelSpec) -> ActionAdapter:
        """The adapter of a model that was built for ``body``."""
        size = body.action_dim
        if spec.action_dim != size * spec.frameskip:
            raise ModelError(
                f"actions: expected {size} per robot step, {spec.frameskip} steps side by side, "
                f"got a model with {spec.action_dim} in all."
            )
        low, high = spec.action_low[:size], spec.action_high[:size]
        return cls(body.action_low, body.action_high, low, high, spec.frameskip)

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
                f"actions: expected (..., {self.frameskip}, {len(self.robot_low)}), "
                f"got {tuple(actions.shape)}."
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
