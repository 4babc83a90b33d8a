"""Small networks on the state's features: reward, discount, critic, actor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.nets.blocks import glorot_, mlp
from wm_models.nets.distributions import TruncatedNormal, symexp, symlog


@dataclass(frozen=True)
class HeadConfig:
    """Hidden layers of every head, ELU between them. The defaults are MWM's."""

    units: int = 512
    layers: int = 4

    def __post_init__(self) -> None:
        Checked(self).whole("units", "layers", high=16384)


def small_output_(layer: nn.Module, scale: float = 0.1) -> None:
    """Uniform fan-average initialisation with ``scale`` (MWM's output layers)."""
    assert isinstance(layer, nn.Linear)
    bound = (3.0 * scale / ((layer.in_features + layer.out_features) / 2.0)) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)


class ScalarHead(nn.Module):
    """One number per state. ``squash`` "symlog" regresses symlog targets, "none" plain ones."""

    def __init__(self, width_in: int, config: HeadConfig, squash: str = "none") -> None:
        super().__init__()
        self.squash = squash
        self.net = mlp(width_in, config.units, config.layers, 1)
        glorot_(self)
        small_output_(self.net[-1])

    def forward(self, feat: Tensor) -> Tensor:
        """The raw output (...,), float32: a logit, a symlog value or a value."""
        out: Tensor = self.net(feat).squeeze(-1).float()
        return out

    def predict(self, feat: Tensor) -> Tensor:
        """The predicted number (...,) in its own scale."""
        out = self(feat)
        return symexp(out) if self.squash == "symlog" else out

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """Squared error (...,) in the squashed scale, without the 0.5 (as released)."""
        if self.squash == "symlog":
            target = symlog(target)
        error: Tensor = self(feat) - target
        return error.square()


class Critic(ScalarHead):
    """Value of a state, learned from normalised rewards; ``predict`` is in the reward's scale."""

    scale: Tensor

    def __init__(self, width_in: int, config: HeadConfig) -> None:
        super().__init__(width_in, config)
        self.register_buffer("scale", torch.ones(()))

    def predict(self, feat: Tensor) -> Tensor:
        value: Tensor = self(feat) * self.scale
        return value


class Actor(nn.Module):
    """State features -> truncated normal on [-1, 1]^A: mean tanh(m), std 0.9 sigmoid(s) + 0.1."""

    def __init__(self, width_in: int, action_dim: int, config: HeadConfig) -> None:
        super().__init__()
        body = mlp(width_in, config.units, config.layers, action_dim)
        self.body, self.mean = body[:-1], body[-1]
        self.std = nn.Linear(config.units, action_dim)
        glorot_(self)
        small_output_(self.mean)

    def forward(self, feat: Tensor) -> TruncatedNormal:
        x = self.body(feat)
        return TruncatedNormal(
            torch.tanh(self.mean(x).float()), 0.9 * torch.sigmoid(self.std(x).float()) + 0.1
        )
