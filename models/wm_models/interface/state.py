"""Operations on the state of a world model: a tree of tensors whose leaves have the batch first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from wm_models.errors import ModelError

State = Any  # a pytree of tensors [B, ...]


def expand(state: State, count: int) -> State:
    """Repeat each row ``count`` times: leaves [B, ...] -> [B * count, ...], copies side by side.

    Of a single row nothing is copied: the leaves are views, which must not be written to.
    """
    return tree_map(partial(_repeated, count=count), state)


def _repeated(x: Tensor, count: int) -> Tensor:
    if x.shape[0] == 1:
        return x.expand(count, *x.shape[1:])
    return x.repeat_interleave(count, 0)


def index(state: State, rows: Any) -> State:
    """Select batch rows of every leaf."""
    return tree_map(lambda x: x[rows], state)


def flatten_time(state: State) -> State:
    """Each step of each row as a row of its own: leaves [B, T, ...] -> [B * T, ...]."""
    return tree_map(lambda x: x.flatten(0, 1), state)


def detach(state: State) -> State:
    """The same state, detached from its autograd graph."""
    return tree_map(lambda x: x.detach(), state)


def to(state: State, device: torch.device | str) -> State:
    """The same state on another device."""
    return tree_map(lambda x: x.to(device), state)


def leading(state: State) -> Tensor:
    """Some leaf [B, ...] of a state, for its batch size, dtype and device."""
    leaves = [x for x in tree_leaves(state) if isinstance(x, Tensor)]
    if not leaves:
        raise ModelError("state: got a pytree without tensors, expected tensors [B, ...].")
    return next((x for x in leaves if x.is_floating_point()), leaves[0])


def stack(states: list[State], dim: int) -> State:
    """Stack a list of equal states along a new dimension."""
    return tree_map(lambda *leaves: torch.stack(leaves, dim), *states)


def concatenate(states: Sequence[State]) -> State:
    """The rows of several states as one batch: leaves [B_i, ...] -> [sum of B_i, ...]."""
    return tree_map(lambda *leaves: torch.cat(leaves), *states)


def with_raw(tokens: Tensor, raw: Tensor) -> Tensor:
    """Features [B, N + k, D] of tokens [B, N, D] and measured numbers ``raw`` [B, P] as they are:
    the k = ceil(P / D) last tokens hold them, padded with zeros. For models whose filter wants a
    measurement itself, such as a pose that is integrated outside the network."""
    width = tokens.shape[-1]
    padded = F.pad(raw.to(tokens), (0, -raw.shape[-1] % width))
    return torch.cat([tokens, padded.unflatten(-1, (-1, width))], -2)


def split_raw(features: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, N, D] and the ``size`` measured numbers [B, P] of :func:`with_raw`."""
    count = -(-size // features.shape[-1])
    tokens, raw = features[..., :-count, :], features[..., -count:, :]
    return tokens, raw.flatten(-2)[..., :size]
