"""Plans whose beginning is settled: the first robot actions are on their way already."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from wm_models.interface.state import State
from wm_models.interface.world_model import Rollout, WorldModel


class Begun:
    """A model that imagines every candidate with its first numbers replaced by ``settled`` [k], the
    leading part of a model action: what is left of it, and all later actions, are free."""

    def __init__(self, model: WorldModel, settled: Tensor) -> None:
        self._model, self._settled = model, settled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def rollout(self, state: State, actions: Tensor, **rest: Any) -> Rollout:
        """Imagine candidates [B, S, H, A] as they will be carried out."""
        return self._model.rollout(state, settle(actions, self._settled), **rest)


def settle(actions: Tensor, settled: Tensor) -> Tensor:
    """``actions`` [..., H, A] whose first action begins with ``settled`` [k]."""
    first = actions[..., :1, :]
    known = settled.expand(*first.shape[:-1], -1)
    first = torch.cat([known, first[..., settled.shape[0] :]], -1)
    return torch.cat([first, actions[..., 1:, :]], -2)


def begun(model: WorldModel, settled: Tensor) -> WorldModel:
    """``model`` for planners, with the beginning of every plan settled; itself where nothing is."""
    return cast(WorldModel, Begun(model, settled)) if settled.numel() else model
