"""Model predictive path integral control, as TD-MPC2 uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wm_models.interface.checked import Checked, PerDim
from wm_models.planners.population import Best, Search, take

_EQUAL = 1e-12  # elites whose costs differ less are equal


@dataclass(frozen=True, kw_only=True)
class MPPI(Search):
    """Refit mean and std to the elites, each weighted by exp(-temperature (cost - lowest) / s).

    ``scale`` says what s is. "elites": the standard deviation of the elites' costs, so that equal
    temperatures mean the same whether returns are 1 or 1000. "cost": 1, as in TD-MPC2, whose
    returns are scaled to about 1; where they are large, that is nearly the best elite alone.

    ``output`` "sample" returns one elite drawn by its weight (TD-MPC2, in evaluation too), "mean"
    their weighted mean, "best" the cheapest candidate seen. TD-MPC2: ``MPPI(horizon=3, samples=512,
    elites=64, iterations=6, n_policy=24, sigma0=2, sigma_max=2, include_mean=False,
    temperature=0.5, scale="cost")``.
    """

    temperature: float = 1.0  # 0 weighs all elites alike; large: the best alone
    scale: str = "elites"  # the unit of costs that the temperature is per
    sigma_max: PerDim = 2.0
    output: str = "sample"

    outputs: ClassVar[tuple[str, ...]] = ("sample", "mean", "best")

    def weights(self, cost: Tensor) -> Tensor:
        """Weights [B, K] of elites by their costs [B, K]: they sum to 1, and are 0 where a cost is
        inf or NaN. Rows without a finite cost: all 0."""
        refused = ~(cost < torch.inf)
        cost = cost.masked_fill(refused, torch.inf)
        above = cost - cost.amin(1, keepdim=True)
        if self.scale == "elites":
            above = above / self._deviation(above, refused)
        weight = torch.softmax((-self.temperature * above).masked_fill(refused, -torch.inf), 1)
        return weight.masked_fill(refused, 0.0)

    @staticmethod
    def _deviation(cost: Tensor, refused: Tensor) -> Tensor:
        """Standard deviation [B, 1] of the costs that are not refused."""
        count = (~refused).sum(1, keepdim=True).clamp_min(1)
        mean = cost.masked_fill(refused, 0.0).sum(1, keepdim=True) / count
        off = (cost - mean).masked_fill(refused, 0.0)
        return (off.square().sum(1, keepdim=True) / count).sqrt().clamp_min(_EQUAL)

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checked(self)
        check.choice("scale", ("elites", "cost"))
        check.number("temperature", low=0.0)

    def _refit(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight = self.weights(cost)[:, :, None, None]
        new_mean = (weight * elites).sum(1)
        new_std = (weight * (elites - new_mean[:, None]).square()).sum(1).sqrt()
        return new_mean, new_std

    @property
    def _scores_last(self) -> int:
        return 0 if self.output == "sample" else 1

    def _choose(
        self,
        means: Best,
        cheapest: Best,
        elites: Tensor,
        elite_cost: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        if self.output != "sample":
            return super()._choose(means, cheapest, elites, elite_cost, generator)
        weights = self.weights(elite_cost)
        none = ~elite_cost.isfinite().any(1, keepdim=True)  # those rows' draw is not used
        row = torch.multinomial(weights.masked_fill(none, 1.0), 1, generator=generator)  # (B, 1)
        return take(elites, row)[:, 0], elite_cost.gather(1, row)[:, 0]
