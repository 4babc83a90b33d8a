"""Lambda-returns, and the normalisation of rewards and returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """V_k = r_k + d_k ((1 - lam) v_{k+1} + lam V_{k+1}), V_H = v_H; inputs (H + 1, N) -> (H, N)."""
    last = value[-1]
    out = []
    for k in range(reward.shape[0] - 2, -1, -1):
        last = reward[k] + discount[k] * ((1.0 - lam) * value[k + 1] + lam * last)
        out.append(last)
    return torch.stack(out[::-1])


class StreamNorm(nn.Module):
    """Divides rewards by the running mean of their absolute value."""

    mag: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mag", torch.ones(()))

    @torch.no_grad()
    def update(self, reward: Tensor) -> None:
        """Move the running mean towards that of ``reward`` (...,); momentum 1 turns this off."""
        if self.momentum < 1.0:
            self.mag.lerp_(reward.abs().mean(), 1.0 - self.momentum)

    def forward(self, reward: Tensor) -> Tensor:
        return reward / (self.mag + 1e-8)


class ReturnScale(nn.Module):
    """Running range between the 5th and 95th percentile of returns, at least 1 (DreamerV3)."""

    range: Tensor

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("range", torch.zeros(()))

    @torch.no_grad()
    def update(self, returns: Tensor) -> None:
        """Move the running range towards that of ``returns`` (...,)."""
        low, high = torch.quantile(returns.flatten(), returns.new_tensor([0.05, 0.95]))
        self.range.lerp_(high - low, 1.0 - self.momentum)

    @property
    def divisor(self) -> Tensor:
        """The range [], at least 1."""
        return self.range.clamp_min(1.0)
