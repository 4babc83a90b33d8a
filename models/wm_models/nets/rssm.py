"""Recurrent state-space model with discrete latents (DreamerV2, as released with MWM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.nets.blocks import glorot_
from wm_models.nets.distributions import gumbel, sample_onehot


class RSSMState(NamedTuple):
    """deter (..., D), the recurrent state h; stoch (..., S, C), one-hot latents z."""

    deter: Tensor
    stoch: Tensor

    @property
    def feat(self) -> Tensor:
        """[z flattened, h]: (..., S * C + D)."""
        return torch.cat([self.stoch.flatten(-2), self.deter], -1)


@dataclass(frozen=True)
class RSSMConfig:
    """Sizes of the recurrent state-space model. The defaults are MWM's."""

    deter: int = 1024
    hidden: int = 1024
    stoch: int = 32
    classes: int = 32
    action_pad: int = 50  # actions are padded with zeros to this many inputs
    img_in_act: str = "none"  # "elu" in DreamerV2 and APV; absent in MWM's release

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("deter", "hidden", "stoch", "classes", "action_pad", high=16384)
        check.choice("img_in_act", ("none", "elu"))

    @property
    def feat(self) -> int:
        """Numbers in a state's feature vector, and in its packed form."""
        return self.deter + self.stoch * self.classes


class RSSM(nn.Module):
    """prior: s_{t-1}, a_{t-1} -> s_t;  posterior: the same, and the embedding of o_t."""

    def __init__(self, config: RSSMConfig, action_dim: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        if action_dim > c.action_pad:
            raise ValueError(
                f"rssm.action_pad: {c.action_pad} is less than the {action_dim} action dimensions."
            )
        latent = c.stoch * c.classes
        self.action_dim = action_dim
        self.img_in = nn.Linear(latent + c.action_pad, c.hidden)
        self.img_in_act = nn.ELU() if c.img_in_act == "elu" else nn.Identity()
        self.gru = nn.Linear(c.hidden + c.deter, 3 * c.deter)
        self.gru_norm = nn.LayerNorm(3 * c.deter, eps=1e-3)
        self.prior = nn.Sequential(
            nn.Linear(c.deter, c.hidden), nn.ELU(), nn.Linear(c.hidden, latent)
        )
        self.post_in = nn.Linear(c.deter + embed_dim, c.hidden)
        self.post_out = nn.Linear(c.hidden, latent)
        glorot_(self)

    def initial(self, batch: int, like: Tensor) -> RSSMState:
        """All zeros."""
        c = self.config
        return RSSMState(like.new_zeros(batch, c.deter), like.new_zeros(batch, c.stoch, c.classes))

    def project_action(self, action: Tensor) -> Tensor:
        """The action's share of ``img_in``, bias included: (..., A) -> (..., hidden)."""
        latent = self.config.stoch * self.config.classes
        return F.linear(
            action, self.img_in.weight[:, latent : latent + self.action_dim], self.img_in.bias
        )

    def recur(self, state: RSSMState, action_in: Tensor) -> Tensor:
        """h_t (B, D) from s_{t-1} and the projected action (B, hidden)."""
        latent = self.config.stoch * self.config.classes
        x = action_in + F.linear(state.stoch.flatten(-2), self.img_in.weight[:, :latent])
        parts = self.gru_norm(self.gru(torch.cat([self.img_in_act(x), state.deter], -1)).float())
        reset, cand, update = parts.chunk(3, -1)
        update = torch.sigmoid(update - 1.0)
        cand = torch.tanh(torch.sigmoid(reset) * cand)
        return update * cand + (1.0 - update) * state.deter

    def prior_logits(self, deter: Tensor) -> Tensor:
        """(..., D) -> (..., S, C), float32."""
        return self._categories(self.prior(deter))

    def sample(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Straight-through sample of the latents."""
        return sample_onehot(logits, gumbel(logits.shape, logits, generator))

    def imagine(
        self, state: RSSMState, action: Tensor, generator: torch.Generator | None = None
    ) -> RSSMState:
        """One step of the prior. action (B, A)."""
        deter = self.recur(state, self.project_action(action))
        return RSSMState(deter, self.sample(self.prior_logits(deter), generator))

    def observe(
        self,
        state: RSSMState,
        action: Tensor,
        embed: Tensor,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[RSSMState, Tensor]:
        """Filter over time. action (B, T, A) led to embed (B, T, E); is_first (B, T) bool.

        Gives states with leaves (B, T, ...) and posterior logits (B, T, S, C). A step is T = 1.
        """
        c = self.config
        keep = (~is_first).to(embed.dtype)[..., None]  # (B, T, 1)
        action_in = self.project_action(action * keep)
        embed_in = F.linear(embed, self.post_in.weight[:, c.deter :], self.post_in.bias)
        weight_h = self.post_in.weight[:, : c.deter]
        noise = gumbel((*embed.shape[:2], c.stoch, c.classes), embed, generator)
        deters, stochs, logits = [], [], []
        for t in range(embed.shape[1]):
            state = RSSMState(state.deter * keep[:, t], state.stoch * keep[:, t, :, None])
            deter = self.recur(state, action_in[:, t])
            logit = self._categories(
                self.post_out(F.elu(F.linear(deter, weight_h) + embed_in[:, t]))
            )
            state = RSSMState(deter, sample_onehot(logit, noise[:, t]))
            deters.append(state.deter)
            stochs.append(state.stoch)
            logits.append(logit)
        return RSSMState(torch.stack(deters, 1), torch.stack(stochs, 1)), torch.stack(logits, 1)

    def pack(self, state: RSSMState) -> Tensor:
        """[h, z flattened]: (B, D + S * C)."""
        return torch.cat([state.deter, state.stoch.flatten(-2)], -1)

    def unpack(self, flat: Tensor) -> RSSMState:
        c = self.config
        if flat.shape[-1] != c.feat:
            raise ValueError(
                f"latent: got {flat.shape[-1]} numbers, expected {c.feat} for this preset."
            )
        deter, stoch = flat.split([c.deter, c.stoch * c.classes], -1)
        return RSSMState(deter, stoch.unflatten(-1, (c.stoch, c.classes)))

    def _categories(self, flat: Tensor) -> Tensor:
        logits: Tensor = flat.float().unflatten(-1, (self.config.stoch, self.config.classes))
        return logits
