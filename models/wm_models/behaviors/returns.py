"""Lambda-returns, and the normalisation of rewards and returns."""

from __future__ import annotations

from collections.abc import Mapping

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


def replay_return(batch: Mapping[str, Tensor], value: Tensor, gamma: float, lam: float) -> Tensor:
    """Lambda-returns (B, T) of what follows each state of replayed windows in arrival form:
    R_t = r_{t+1} + gamma c_{t+1} ((1 - lam) v_{t+1} + lam R_{t+1}), c = 0 where the task ended.

    ``value`` (B, T): v. The last state of a window or of an episode has R_t = c_t v_t.
    """
    going_on = (~batch["is_terminal"]).float()
    bootstrap = going_on * value
    ends = batch["is_first"][:, 1:]  # another episode begins in the next row
    reward = torch.where(ends, bootstrap[:, :-1], batch["reward"][:, 1:].float())
    discount = gamma * going_on[:, 1:] * (~ends).float()
    returns = lambda_return(_padded(reward), _padded(discount), bootstrap.T, lam)
    return torch.cat([returns.T, bootstrap[:, -1:]], 1)


def _padded(rows: Tensor) -> Tensor:
    """(B, T - 1) -> (T, B); the last of them is never used."""
    return torch.cat([rows, torch.zeros_like(rows[:, :1])], 1).T


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
