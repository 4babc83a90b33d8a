"""Plans with a committed prefix: the first robot actions are already sent."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from wm_models.interface.state import State
from wm_models.interface.world_model import Rollout, WorldModel


class CommittedPrefix:
    """A model that imagines every candidate with the committed numbers ``prefix`` [k] at the start
    of its first model action; the rest of that action, and all later ones, are free."""

    def __init__(self, model: WorldModel, prefix: Tensor) -> None:
        self._model, self._prefix = model, prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def rollout(self, state: State, actions: Tensor, **options: Any) -> Rollout:
        """Imagine candidates [B, S, H, A] with the prefix in place."""
        return self._model.rollout(state, with_prefix(actions, self._prefix), **options)


def with_prefix(actions: Tensor, prefix: Tensor) -> Tensor:
    """``actions`` [..., H, A] whose first action starts with ``prefix`` [k]."""
    first = actions[..., :1, :]
    known = prefix.expand(*first.shape[:-1], -1)
    first = torch.cat([known, first[..., prefix.shape[0] :]], -1)
    return torch.cat([first, actions[..., 1:, :]], -2)


def with_committed_prefix(model: WorldModel, prefix: Tensor) -> WorldModel:
    """``model`` for planners, with the prefix in every candidate; the model itself if it is
    empty."""
    return cast(WorldModel, CommittedPrefix(model, prefix)) if prefix.numel() else model
