"""The frame-causal transformer: tokens attend to all tokens of their own and earlier frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.interface.checked import Checked

KeysValues = tuple[Tensor, Tensor]  # each [B, heads, L, head_width]
Cache = list[KeysValues]  # of each block
FEW = 16  # tokens of a frame; up to so many one masked product is faster than frame by frame


@dataclass(frozen=True)
class PredictorConfig:
    """Shape of the predictor. The defaults are DINO-WM's."""

    depth: int = 6  # blocks
    heads: int = 16  # of attention
    head_width: int = 64  # heads * head_width may differ from the tokens' width
    hidden: int = 2048  # units between the layers of a block
    dropout: float = 0.1  # share of activations that are dropped

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("depth", high=64)
        check.whole("heads", "head_width", "hidden", high=16384)
        check.number("dropout", low=0.0, high=1.0, open_ends="high")


class PredictorBlock(nn.Module):
    """Pre-norm attention (qkv without bias) and MLP (GELU)."""

    def __init__(self, config: PredictorConfig, width: int) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.inner = config.heads * config.head_width
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * self.inner, bias=False)
        self.out = nn.Sequential(nn.Linear(self.inner, width), nn.Dropout(config.dropout))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, width),
            nn.Dropout(config.dropout),
        )

    def forward(
        self,
        x: Tensor,
        past: KeysValues | None = None,
        mask: Tensor | None = None,
        newest: int | None = None,
        frame: int | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """x [B, L, D] after ``past``; returns the tokens (the ``newest`` last ones, if given) and
        the keys and values of past and x. With ``frame`` instead of a mask, frames of so many
        tokens see themselves and those before."""
        y = self.norm(x)
        asking = y if newest is None else y[:, -newest:]
        x = x if newest is None else x[:, -newest:]
        query_weight, rest = self.qkv.weight[: self.inner], self.qkv.weight[self.inner :]
        query = self._split(F.linear(asking, query_weight))
        key, value = (self._split(z) for z in F.linear(y, rest).chunk(2, -1))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        dropout = self.dropout if self.training else 0.0
        if frame is None:
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)
            mixed = mixed.transpose(1, 2)
        else:
            mixed = _frame_by_frame(query, key, value, frame, dropout)
        x = x + self.out(mixed.flatten(2))
        return x + self.mlp(x), (key, value)

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


class Predictor(nn.Module):
    """Tokens of frames [B, h, M, D] to those of the frames after each of them."""

    mask: Tensor

    def __init__(self, config: PredictorConfig, frames: int, tokens: int, width: int) -> None:
        super().__init__()
        self.frames, self.tokens = frames, tokens
        self.position = nn.Parameter(torch.randn(1, frames * tokens, width))
        self.blocks = nn.ModuleList([PredictorBlock(config, width) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(width)
        frame = torch.arange(frames * tokens) // tokens
        self.register_buffer("mask", frame[None] <= frame[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """All frames at once: [B, h, M, D] to [B, h, M, D]."""
        y, mask = self._placed(x, 0), self._mask(x.shape[1])
        for block in self.blocks:
            y, _ = block(y, mask=mask)
        frames: Tensor = self.norm(y).unflatten(1, (x.shape[1], -1))
        return frames

    def newest(self, x: Tensor) -> Tensor:
        """The last frame of :meth:`forward` alone, [B, M, D]: the last block asks for it only."""
        y, how = self._placed(x, 0), self._causal(x.shape[1])
        *blocks, last = self.blocks
        for block in blocks:
            y, _ = block(y, **how)
        y, _ = last(y, newest=self.tokens)  # it attends to all frames: no mask
        frame: Tensor = self.norm(y)
        return frame

    def remember(self, x: Tensor) -> Cache:
        """Keys and values of frames [B, h, M, D] at the window's beginning."""
        y, how = self._placed(x, 0), self._causal(x.shape[1])
        cache: Cache = []
        for block in self.blocks:
            y, keys_values = block(y, **how)
            cache.append(keys_values)
        return cache

    def grow(self, x: Tensor, cache: Cache | None, place: int) -> tuple[Tensor, Cache]:
        """One more frame [B, M, D] at ``place`` of the window, after those in ``cache``."""
        y, grown = self._placed(x[:, None], place), []
        for i, block in enumerate(self.blocks):
            y, keys_values = block(y, None if cache is None else cache[i])
            grown.append(keys_values)
        return self.norm(y), grown

    def forget(self, cache: Cache) -> Cache:
        """The cache without its oldest frame."""
        return [(key[:, :, self.tokens :], value[:, :, self.tokens :]) for key, value in cache]

    def _placed(self, x: Tensor, place: int) -> Tensor:
        start = place * self.tokens
        flat = x.flatten(1, 2)
        return flat + self.position[:, start : start + flat.shape[1]]

    def _causal(self, frames: int) -> dict[str, Any]:
        """How a block keeps frames from seeing later ones, the faster way."""
        if self.tokens <= FEW or frames == 1:
            return {"mask": self._mask(frames)}
        return {"frame": self.tokens}

    def _mask(self, frames: int) -> Tensor | None:
        size = frames * self.tokens
        return None if frames == 1 else self.mask[:size, :size]


def _frame_by_frame(
    query: Tensor, key: Tensor, value: Tensor, frame: int, dropout: float
) -> Tensor:
    """Attention [B, L, heads, w] of frames of ``frame`` tokens to themselves and those before: of
    three frames a third fewer products than with a mask."""
    ends = range(frame, query.shape[2] + 1, frame)
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, end - frame : end], key[:, :, :end], value[:, :, :end], None, dropout
        ).transpose(1, 2)
        for end in ends
    ]
    return torch.cat(parts, 1)


def repeat_cache(cache: Cache, count: int) -> Cache:
    """Each row ``count`` times, copies side by side: the candidates that share a past."""
    return [(k.repeat_interleave(count, 0), v.repeat_interleave(count, 0)) for k, v in cache]
