"""A Dreamer behind the world-model contract: encoder, dynamics, actor and critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from wm_models.behaviors.actor_critic import Imagination
from wm_models.interface.state import State
from wm_models.interface.world_model import WorldModel
from wm_models.nets.dreamer_world import DreamerWorld
from wm_models.nets.heads import Actor, Critic
from wm_models.nets.rssm import RSSMState


class DreamerAgent(WorldModel):
    """What all models of the Dreamer family have in common.

    A subclass sets ``spec``, ``dynamics``, ``actor`` and ``critic`` and implements `encode`,
    `decode` and `modules_by_name`, with the names "world_model", "actor" and "critic".
    ``critic_counts_arrival``: is the reward of arriving in a state part of its value (DreamerV2,
    MWM, APV), or only what follows (DreamerV3)?
    """

    dynamics: DreamerWorld
    actor: Actor
    critic: Critic
    critic_counts_arrival: bool = True

    @property
    def imagination(self) -> Imagination:
        """What actor and critic learn from."""
        dynamics = self.dynamics
        return Imagination(
            step=dynamics.rssm.imagine,
            reward=dynamics.reward.predict,
            discount=dynamics.imagined_discount if dynamics.discount is not None else None,
            gamma=dynamics.gamma,
        )

    def parts_for(self, *verbs: str) -> tuple[str, ...]:
        encoder = self.spec.encoder_module
        needed = {
            "encode": {encoder},
            "filter": {"world_model"},
            "act": {"actor"},
            "plan": {"world_model", "actor", "critic"},
            "decode": {encoder, "world_model"},
        }
        return self._parts(needed, verbs)

    def initial(self, batch: int, device: torch.device | str | None = None) -> RSSMState:
        weight = self.dynamics.rssm.gru.weight
        like = weight if device is None else weight.to(device)
        return self.dynamics.rssm.initial(batch, like.detach())

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> RSSMState:
        embed = self.dynamics.embed(features)
        states, _ = self.dynamics.rssm.observe(
            state, prev_action[:, None], embed[:, None], is_first[:, None], generator
        )
        return RSSMState(states.deter[:, 0], states.stoch[:, 0])

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> RSSMState:
        return self.dynamics.rssm.imagine(state, action, generator)

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        self._check_want(want)
        feat: Tensor = state.feat
        heads: dict[str, Callable[[], Tensor]] = {
            "feat": lambda: feat,
            "reward": lambda: self.dynamics.reward.predict(feat),
            "value": lambda: self._value_after(feat),
            "cont": lambda: self._continue(feat),
        }
        return {name: heads[name]() for name in want if name in heads}

    def _value_after(self, feat: Tensor) -> Tensor:
        """Value of what follows the state. Where the critic's V_k = r_k + d_k V_{k+1} counts the
        reward of arriving too, which a rollout has in its own ``reward`` already, it is taken off.
        """
        value = self.critic.predict(feat)
        if not self.critic_counts_arrival:
            return value
        has_end = self.dynamics.discount is not None
        going_on = self._continue(feat).clamp_min(1e-3) if has_end else 1.0
        return (value - self.dynamics.reward.predict(feat)) / (self.dynamics.gamma * going_on)

    def _continue(self, feat: Tensor) -> Tensor:
        """Predicted probability (...,) that the episode continues."""
        return (self.dynamics.imagined_discount(feat) / self.dynamics.gamma).clamp(0.0, 1.0)

    def act(self, state: State, *, mode: bool, generator: torch.Generator | None = None) -> Tensor:
        policy = self.actor(state.feat)
        action = policy.mode() if mode else policy.sample(generator)
        clipped: Tensor = action.clamp(-1.0, 1.0)
        return clipped

    def features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Features (B, T, N, D) of a batch of log rows (B, T, ...); gradients reach the encoder
        where it learns with the world model."""
        lead = batch["is_first"].shape
        obs = {name: batch[name].flatten(0, 1) for name in self.spec.obs_keys}
        features: Tensor = self.encode(obs).unflatten(0, lead)
        return features

    def pack(self, state: State) -> Tensor:
        return self.dynamics.rssm.pack(state)

    def unpack(self, flat: Tensor) -> RSSMState:
        return self.dynamics.rssm.unpack(flat)
