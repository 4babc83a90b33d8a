"""The cross-entropy method, as DINO-WM and V-JEPA 2-AC use it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wm_models.interface.checked import Checked, PerDim
from wm_models.planners.population import Search, per_dim


@dataclass(frozen=True, kw_only=True)
class CEM(Search):
    """Refit mean and unbiased std to the elites, each with momentum (0 forgets the old one).

    DINO-WM: ``CEM(horizon=5, samples=300, elites=30, iterations=10, sigma0=1, sigma_min=0,
    clip=False, output="last")``.
    V-JEPA 2-AC: ``samples=800, elites=10, iterations=10, horizon=1, momentum_mean=0.15, ...``.
    """

    momentum_mean: PerDim = 0.0
    momentum_std: PerDim = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        Checked(self).per_dim("momentum_mean", "momentum_std", high=1.0, open_ends="high")

    def _refit(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        counted = cost.isfinite()[:, :, None, None]
        count = counted.sum(1)  # (B, 1, 1)
        new_mean = elites.mul(counted).sum(1) / count.clamp_min(1)
        squares = (elites - new_mean[:, None]).square().mul(counted).sum(1)
        new_std = (squares / (count - 1).clamp_min(1)).sqrt()
        keep_mean = per_dim(self.momentum_mean, mean, "momentum_mean")
        keep_std = per_dim(self.momentum_std, std, "momentum_std")
        return (
            torch.lerp(new_mean, mean, keep_mean.expand_as(mean)),
            torch.lerp(new_std, std, keep_std.expand_as(std)),
        )
