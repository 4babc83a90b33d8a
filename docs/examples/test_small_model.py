"""The model keeps the contract, and learns."""

from __future__ import annotations

from collections.abc import Callable

import torch

from docs.examples.small_model import SmallModel
from wm_models.interface.world_model import WorldModel
from wm_models.testing.contracts import WorldModelContract


class TestSmallModel(WorldModelContract):
    def make_model(self) -> WorldModel:
        torch.manual_seed(0)
        return SmallModel(action_dim=2)

    def training(self, model: WorldModel) -> Callable[[], float]:
        obs, action, reward = self.make_obs(model, 4), self.actions(model, 4), torch.arange(4.0)
        first = torch.ones(4, dtype=torch.bool)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)

        def update() -> float:
            state = model.observe(model.initial(4), action, obs, first)
            state = model.step(state, action)
            loss = (model.readout(state, frozenset({"reward"}))["reward"] - reward).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return update
