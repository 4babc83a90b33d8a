"""A model of your own: one recurrent state, learned from rewards only.

pytest docs/examples/test_small_model.py          # it fulfils the WorldModel contract

With a learner (`update(batches)`, see `Learner` in wm_models/interface/learner.py) and a preset it
is available in `wm train` and the graphs; MWM and DINO-WM are examples of both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm_models.interface.state import State
from wm_models.interface.world_model import ModelSpec, WorldModel, symmetric_box


class SmallModel(WorldModel):
    """A convolutional encoder, a GRU over actions and features, a reward head.

    State {"h": [B, size]}. The model is deterministic, and for planners only: it has no actor.
    """

    def __init__(self, action_dim: int, size: int = 64, pixels: int = 64) -> None:
        super().__init__()
        self.size = size
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, 4), nn.SiLU(), nn.Conv2d(16, 32, 4, 4), nn.SiLU(),
            nn.Flatten(), nn.Linear(32 * (pixels // 16) ** 2, size),
        )  # fmt: skip
        self.transition = nn.GRUCell(action_dim, size)  # imagine: the action only
        self.correction = nn.GRUCell(size, size)  # filter: then the features
        self.reward = nn.Linear(size, 1)
        low, high = symmetric_box(action_dim)
        self.spec = ModelSpec(low, high, {"image": (3, pixels, pixels)}, has_reward=True)

    def modules_by_name(self) -> dict[str, nn.Module]:
        """Return the modules by the file that holds their weights; the encoder node loads one."""
        world_model = nn.ModuleDict(
            {"transition": self.transition, "correction": self.correction, "reward": self.reward}
        )
        return {"encoder": self.encoder, "world_model": world_model}

    def initial(self, batch: int, device: torch.device | str | None = None) -> State:
        return {"h": torch.zeros(batch, self.size, device=device or self.reward.weight.device)}

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        features: Tensor = self.encoder(obs["image"] - 0.5)
        return features[:, None]  # one token

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        continues = (~is_first)[:, None]
        before = {"h": state["h"] * continues}
        predicted = self.step(before, prev_action * continues)["h"] * continues
        return {"h": self.correction(features[:, 0], predicted)}

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> State:
        return {"h": self.transition(action, state["h"])}

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        self._check_want(want)
        out = {"feat": state["h"], "reward": self.reward(state["h"])[:, 0]}
        return {name: value for name, value in out.items() if name in want}

    def pack(self, state: State) -> Tensor:
        hidden: Tensor = state["h"]
        return hidden

    def unpack(self, flat: Tensor) -> State:
        return {"h": flat}
