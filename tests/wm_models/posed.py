"""A model without images: a measured pose that is integrated outside the network, a dict as its
state, and a value of one randomly drawn critic, as in TD-MPC2. Tests use it to check the contract
and the nodes with such models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm_models.interface.noise import normal
from wm_models.interface.state import State, split_raw, with_raw
from wm_models.interface.world_model import ModelSpec, WorldModel, symmetric_box

WIDTH, STEP_S = 4, 0.1


class Posed(WorldModel):
    """Pose' = pose + .1 action, exactly; the pose is also an input of the network, as one token."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.size = size
        self.net = nn.Linear(size, WIDTH)
        self.actor = nn.Linear(size, size)
        self.critics = nn.ModuleList([nn.Linear(size, 1) for _ in range(3)])
        low, high = symmetric_box(size)
        self.spec = ModelSpec(
            low, high, {"proprio": (size,)}, model_dt=STEP_S,
            has_reward=True, has_value=True, has_actor=True, stochastic=True,
            state_module="encoder",
        )  # fmt: skip

    def modules_by_name(self) -> dict[str, nn.Module]:
        return {"encoder": self.net, "actor": self.actor, "critic": self.critics}

    def initial(self, batch: int, device: torch.device | str | None = None) -> State:
        return {"pose": torch.zeros(batch, self.size), "token": torch.zeros(batch, WIDTH)}

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        return with_raw(self.net(obs["proprio"])[:, None], obs["proprio"])

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        tokens, pose = split_raw(features, self.size)
        return {"pose": pose, "token": tokens[:, 0]}

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> State:
        return {**state, "pose": state["pose"] + STEP_S * action}

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        self._check_want(want)
        pose = state["pose"]
        out = {"feat": torch.cat([pose, state["token"]], -1), "reward": -pose.square().sum(-1)}
        if "value" in want:
            drawn = torch.randint(len(self.critics), (len(pose), 1), generator=generator)
            each = torch.cat([critic(pose) for critic in self.critics], -1)
            out["value"] = each.gather(1, drawn)[:, 0]
        return {name: value for name, value in out.items() if name in want}

    def act(self, state: State, *, mode: bool, generator: torch.Generator | None = None) -> Tensor:
        middle = torch.tanh(self.actor(state["pose"]))
        noise = 0.0 if mode else 0.1 * normal(middle.shape, generator, middle.device)
        return (middle + noise).clamp(-1.0, 1.0)

    def pack(self, state: State) -> Tensor:
        return torch.cat([state["pose"], state["token"]], -1)

    def unpack(self, flat: Tensor) -> State:
        return {"pose": flat[:, : self.size], "token": flat[:, self.size :]}
