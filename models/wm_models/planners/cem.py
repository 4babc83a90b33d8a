"""The cross-entropy method, as DINO-WM and V-JEPA 2-AC use it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wm_models.planners.search import PerDim, Search, per_dim


@dataclass(frozen=True, kw_only=True)
class CEM(Search):
    """Refit mean and unbiased std to the elites, each with momentum (0 forgets the old one).

    DINO-WM: ``CEM(horizon=5, samples=300, elites=30, iterations=10, sigma0=1, sigma_min=0)``.
    V-JEPA 2-AC: ``samples=800, elites=10, iterations=10, horizon=1, momentum_mean=0.15, ...``.
    """

    momentum_mean: PerDim = 0.0
    momentum_std: PerDim = 0.0

    def _refit(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        new_mean = elites.mean(1)
        new_std = elites.std(1) if elites.shape[1] > 1 else torch.zeros_like(std)
        keep_mean = per_dim(self.momentum_mean, mean, "momentum_mean")
        keep_std = per_dim(self.momentum_std, std, "momentum_std")
        return (
            keep_mean * mean + (1.0 - keep_mean) * new_mean,
            keep_std * std + (1.0 - keep_std) * new_std,
        )
