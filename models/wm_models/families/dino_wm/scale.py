"""Standardisation of visual tokens: zero mean and about unit variance of each number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 0.3  # of the typical deviation: smaller deviations are not amplified


class TokenScale(nn.Module):
    """z-scores tokens [..., N, d], each number of each token by itself, once they are measured.

    Before :meth:`measure` it is the identity. A static camera shows the same background in nearly
    every token, beside which moving objects would have little weight.
    """

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(tokens, width))
        self.register_buffer("variance", torch.ones(tokens, width))

    @torch.no_grad()
    def measure(self, tokens: Tensor) -> None:
        """Take tokens [B, N, d] into the statistics (Chan et al., 1979)."""
        tokens, count = tokens.float(), len(tokens)
        new, old = tokens.mean(0), self.seen.item()
        share = count / (old + count)
        apart = new - self.mean
        spread = tokens.var(0, correction=0)
        before = self.variance if old else torch.zeros_like(spread)
        self.variance.copy_(
            (1 - share) * before + share * spread + share * (1 - share) * apart.square()
            if old
            else spread
        )
        self.mean.add_(share * apart)
        self.seen += count

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.seen.item():
            return tokens
        floor = FLOOR**2 * self.variance.mean()
        return (tokens - self.mean) / (self.variance + floor + 1e-12).sqrt()
