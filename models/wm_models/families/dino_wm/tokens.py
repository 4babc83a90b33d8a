"""How proprioception and actions join the visual tokens of a frame.

A frame's tokens are [visual d, proprio p, action a] per patch (``concat_dim`` 1), or N visual
tokens, one of proprioception and one of the action (``concat_dim`` 0). What is observed, all but
the action's part, has the shape [M, W].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment


@dataclass(frozen=True)
class EmbeddingConfig:
    """The embedding of a short vector: linear, without an activation."""

    width: int = 10  # numbers of the embedding
    repeat: int = 1  # copies side by side, for more weight (concat_dim 1 only)
    fixed: bool = False  # not trained: keeps distances, and gives numbers of unit variance

    def __post_init__(self) -> None:
        Checked(self).whole("width", "repeat", high=16384)
        Checked(self).flag("fixed")


@dataclass(frozen=True)
class TokenConfig:
    """How a frame's tokens are put together."""

    concat_dim: int = 1  # 1: in each token; 0: as tokens of their own
    proprio: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    action: EmbeddingConfig = field(default_factory=EmbeddingConfig)

    def __post_init__(self) -> None:
        if self.concat_dim not in (0, 1):
            raise ModelError(f"tokens.concat_dim: got {self.concat_dim!r}, expected 0 or 1.")


class Embedding(nn.Linear):
    """DINO-WM's Conv1d of kernel 1. Fixed: an isometry times a factor, where width >= size, so that
    z-scores become numbers of unit variance, as the visual tokens are."""

    def __init__(self, size: int, width: int, fixed: bool) -> None:
        super().__init__(size, width)
        if fixed:
            nn.init.orthogonal_(self.weight, gain=(width / size) ** 0.5)
            nn.init.zeros_(self.bias)
            self.requires_grad_(False)


class ProprioEmbedding(nn.Module):
    """z-scores proprioception [..., P] with its statistics and embeds it to [..., p]."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: EmbeddingConfig, embodiment: Embodiment, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(embodiment.proprio_mean), persistent=False)
        self.register_buffer("std", torch.tensor(embodiment.proprio_std), persistent=False)
        self.linear = Embedding(embodiment.proprio_dim, width, config.fixed)

    def scores(self, proprio: Tensor) -> Tensor:
        if proprio.shape[-1:] != self.mean.shape:
            raise ModelError(
                f"proprio: got {tuple(proprio.shape)}, expected (..., {len(self.mean)})."
            )
        return (proprio.float() - self.mean) / self.std

    def forward(self, proprio: Tensor) -> Tensor:
        embedded: Tensor = self.linear(self.scores(proprio))
        return embedded


@dataclass(frozen=True)
class Layout:
    """Sizes of a frame: N visual tokens of d numbers, p of proprioception, a of action."""

    concat_dim: int
    count: int  # N
    visual: int  # d
    proprio: int  # p, one copy; 0: none
    proprio_repeat: int
    action: int  # a, one copy
    action_repeat: int

    @classmethod
    def of(cls, config: TokenConfig, count: int, visual: int, has_proprio: bool) -> Layout:
        if config.concat_dim == 0:  # whole tokens
            return cls(0, count, visual, visual * has_proprio, 1, visual, 1)
        p, a = config.proprio, config.action
        return cls(1, count, visual, p.width * has_proprio, p.repeat, a.width, a.repeat)

    @property
    def observed(self) -> tuple[int, int]:
        """(M, W) of what is observed of a frame."""
        if self.concat_dim == 0:
            return self.count + (self.proprio > 0), self.visual
        return self.count, self.visual + self.proprio * self.proprio_repeat

    @property
    def tokens(self) -> tuple[int, int]:
        """(M, D) of a frame with its action, as the predictor takes it."""
        rows, width = self.observed
        if self.concat_dim == 0:
            return rows + 1, width
        return rows, width + self.action * self.action_repeat

    def observe(self, visual: Tensor, proprio: Tensor | None) -> Tensor:
        """[..., M, W] of visual tokens [..., N, d] and embedded proprioception [..., p]."""
        if proprio is None:
            return visual
        one = proprio.unsqueeze(-2)
        if self.concat_dim == 0:
            return torch.cat([visual, one], -2)
        many = one.expand(*one.shape[:-2], self.count, -1)
        return torch.cat([visual, *[many] * self.proprio_repeat], -1)

    def act(self, observed: Tensor, action: Tensor) -> Tensor:
        """Tokens [..., M, D] of what is observed [..., M, W] and an embedded action [..., a]."""
        one = action.unsqueeze(-2)
        if self.concat_dim == 0:
            return torch.cat([observed, one], -2)
        many = one.expand(*one.shape[:-2], self.count, -1)
        return torch.cat([observed, *[many] * self.action_repeat], -1)

    def without_action(self, tokens: Tensor) -> Tensor:
        """What is observed [..., M, W] of tokens [..., M, D]."""
        rows, width = self.observed
        return tokens[..., :rows, :width]

    def visual_of(self, observed: Tensor) -> Tensor:
        """[..., N, d]."""
        return observed[..., : self.count, : self.visual]

    def proprio_of(self, observed: Tensor) -> Tensor:
        """[..., p]: the mean over the tokens that each hold a copy (the release takes the first;
        where proprioception was observed they are equal)."""
        if self.concat_dim == 0:
            return observed[..., self.count, :]
        return observed[..., self.visual : self.visual + self.proprio].mean(-2)
