"""Reads proprioception off a picture, for goals of which only the picture is known."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ProbeConfig:
    """A small network on frozen visual tokens."""

    narrow: int = 16  # numbers that each token is reduced to
    units: int = 128


class Probe(nn.Module):
    """Visual tokens (..., N, d) to z-scored proprioception (..., P)."""

    def __init__(self, config: ProbeConfig, tokens: int, width: int, proprio: int) -> None:
        super().__init__()
        self.each = nn.Linear(width, config.narrow)
        self.all = nn.Sequential(
            nn.GELU(),
            nn.Linear(tokens * config.narrow, config.units),
            nn.GELU(),
            nn.Linear(config.units, proprio),
        )

    def forward(self, visual: Tensor) -> Tensor:
        return self.all(self.each(visual).flatten(-2))
