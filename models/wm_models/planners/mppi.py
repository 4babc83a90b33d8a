"""Model predictive path integral control, as TD-MPC2 uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wm_models.planners.search import Best, Scorer, Search, take

_EQUAL = 1e-12  # elites whose costs differ less are equal


@dataclass(frozen=True, kw_only=True)
class MPPI(Search):
    """Refit mean and std to the elites, each weighted by exp(-temperature (cost - lowest) / s).

    ``scale`` says what s is. "elites": the standard deviation of the elites' costs, so that equal
    temperatures mean the same whether returns are 1 or 1000. "cost": 1, as in TD-MPC2, whose
    returns are made to lie near 1; where they are large, that is nearly the best elite alone.

    ``output`` "sample" returns one elite drawn by its weight (TD-MPC2, in evaluation too), "mean"
    their weighted mean, "best" the cheapest candidate seen. TD-MPC2: ``MPPI(horizon=3, samples=512,
    elites=64, iterations=6, n_policy=24, sigma0=2, sigma_max=2, include_mean=False,
    temperature=0.5, scale="cost")``.
    """

    temperature: float = 1.0  # 0 weighs all elites alike; large: the best alone
    scale: str = "elites"  # the unit of costs that the temperature is per
    sigma_max: float = 2.0
    output: str = "sample"

    outputs: ClassVar[tuple[str, ...]] = ("sample", "mean", "best")

    def weights(self, cost: Tensor) -> Tensor:
        """Weights [B, K] of elites by their costs [B, K]; they sum to 1."""
        above = cost - cost.amin(1, keepdim=True)
        if self.scale == "elites":
            above = above / cost.std(1, correction=0, keepdim=True).clamp_min(_EQUAL)
        return torch.softmax(-self.temperature * above, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("scale", self.scale in ("elites", "cost"), "'elites' or 'cost'")

    def _refit(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight = self.weights(cost)[:, :, None, None]
        new_mean = (weight * elites).sum(1)
        new_std = (weight * (elites - new_mean[:, None]).square()).sum(1).sqrt()
        return new_mean, new_std

    def _choose(
        self,
        best: Best,
        mean: Tensor,
        elites: Tensor,
        elite_cost: Tensor,
        score: Scorer,
        box: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        if self.output != "sample":
            return super()._choose(best, mean, elites, elite_cost, score, box, generator)
        row = torch.multinomial(self.weights(elite_cost), 1, generator=generator)  # (B, 1)
        return take(elites, row)[:, 0], elite_cost.gather(1, row)[:, 0]
