"""A world model simple enough to know its best plan: linear dynamics, quadratic reward.

Planners are tested and timed on it; it is also the shortest example of a model behind the contract.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm_models.interface.noise import normal
from wm_models.interface.state import State
from wm_models.interface.world_model import ModelSpec, WorldModel, symmetric_box


class LinearModel(WorldModel):
    """x' = F x + G a + noise, reward -|x' - aim|^2; x is observed as it is. State {"x": [B, n]}."""

    def __init__(self, f: Tensor, g: Tensor, aim: Tensor, noise: float = 0.0) -> None:
        super().__init__()
        self.f, self.g, self.aim = (
            nn.Parameter(x.clone(), requires_grad=False) for x in (f, g, aim)
        )
        self.noise = noise
        low, high = symmetric_box(g.shape[1])
        self.spec = ModelSpec(
            action_low=low,
            action_high=high,
            obs_keys={"x": (f.shape[0],)},
            has_reward=True,
            has_goal=True,
            stochastic=noise > 0,
            encoder_module="world_model",
        )

    def modules_by_name(self) -> dict[str, nn.Module]:
        return {"world_model": self}

    def initial(self, batch: int, device: torch.device | str | None = None) -> State:
        return {"x": torch.zeros(batch, len(self.f), device=device or self.f.device)}

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        return obs["x"][:, None]

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        return {"x": features[:, 0]}

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> State:
        x = state["x"] @ self.f.T + action @ self.g.T
        if self.noise:
            x = x + self.noise * normal(x.shape, generator, x.device)
        return {"x": x}

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        self._check_want(want)
        x = state["x"]
        out = {"feat": x, "x": x, "reward": -(x - self.aim).square().sum(-1)}
        return {name: out[name] for name in want if name in out}

    def encode_goal(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"feat": obs["x"], "x": obs["x"]}

    def pack(self, state: State) -> Tensor:
        x: Tensor = state["x"]
        return x

    def unpack(self, flat: Tensor) -> State:
        return {"x": flat}

    def best_plan(self, x: Tensor, horizon: int, gamma: float) -> Tensor:
        """The actions [B, H, A] of greatest discounted return from x [B, n], boxes left aside."""
        size, dim = self.g.shape
        powers = [torch.eye(size)]
        for _ in range(horizon):
            powers.append(powers[-1] @ self.f)
        effect = torch.zeros(horizon, size, horizon, dim)  # of a_j on x after step t
        for t in range(horizon):
            for j in range(t + 1):
                effect[t, :, j] = powers[t - j] @ self.g
        weight = gamma ** (0.5 * torch.arange(horizon))
        free = torch.stack([x @ powers[t + 1].T for t in range(horizon)], 1)  # (B, H, n)
        target = (weight[:, None] * (self.aim - free)).flatten(1)
        matrix = (weight[:, None, None, None] * effect).flatten(2).flatten(0, 1)
        solution = torch.linalg.lstsq(matrix.expand(len(x), -1, -1), target[..., None]).solution
        plan: Tensor = solution.reshape(len(x), horizon, dim)
        return plan
