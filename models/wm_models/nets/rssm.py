"""Recurrent state-space model with discrete latents (DreamerV2, DreamerV3, MWM, APV, MuDreamer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.nets.blocks import (
    ACTIVATIONS,
    INITIALIZERS,
    NORM_EPS,
    NORMS,
    biased,
    initialize_output_,
    mlp,
    norm_layer,
)
from wm_models.nets.distributions import gumbel, sample_onehot, unimix


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
    """Sizes and layers of the recurrent state-space model. The defaults are MWM's."""

    deter: int = 1024  # numbers of the recurrent state h
    hidden: int = 1024  # units of the hidden layers
    stoch: int = 32  # categorical latents
    classes: int = 32  # of each latent
    # the core "gru": actions are padded with zeros to this many inputs; 0: they are not
    action_pad: int = 50
    img_in_act: str = "none"  # the core "gru": behind img_in; `act` in all models but MWM's release
    act: str = "elu"  # of the hidden layers of prior, posterior and the core "block"
    norm: str = "none"  # in front of each activation; with "layer" the linear layers have no bias
    core: str = "gru"  # recurrent: "gru", or "block" (DreamerV3, Nature 2025; nets/block_gru.py)
    blocks: int = 8  # of the core "block", in which the recurrent state is split
    prior_layers: int = 1  # hidden layers of the prior
    posterior_norm: str = "same"  # as `norm`, or "batch": BatchNorm in the posterior (MuDreamer)
    unimix: float = 0.0  # share of the uniform distribution in every categorical; .01 in DreamerV3
    initial: str = "zeros"  # "learned": h_0 is learned, z_0 is the prior's mode there (DreamerV3)
    # of the weights; "truncated_normal" in DreamerV3 (2023), "truncated_normal_in" in that of 2025
    init: str = "glorot"

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("deter", "hidden", "stoch", "classes", high=16384)
        check.whole("blocks", "prior_layers", high=64)
        check.whole("action_pad", low=0, high=16384)
        check.choice("core", ("gru", "block"))
        if self.core == "block" and self.deter % self.blocks:
            check.refuse("deter", f"a multiple of blocks, {self.blocks}")
        if self.core == "block" and self.action_pad:
            check.refuse("action_pad", "0 with core 'block'")
        check.choice("act", tuple(ACTIVATIONS))
        check.choice("img_in_act", tuple(ACTIVATIONS))
        check.choice("norm", NORMS)
        check.choice("posterior_norm", ("same", "batch"))
        check.number("unimix", low=0.0, high=1.0)
        check.choice("initial", ("zeros", "learned"))
        check.choice("init", tuple(INITIALIZERS))

    @property
    def feat(self) -> int:
        """Numbers in a state's feature vector, and in its packed form."""
        return self.deter + self.stoch * self.classes


class RSSM(nn.Module):
    """prior: s_{t-1}, a_{t-1} -> s_t;  posterior: the same, and the embedding of o_t."""

    def __init__(self, config: RSSMConfig, action_dim: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        if 0 < c.action_pad < action_dim:
            raise ValueError(
                f"rssm.action_pad: got {c.action_pad}, expected 0 or at least the {action_dim} "
                "action dimensions."
            )
        latent = c.stoch * c.classes
        self.action_dim = action_dim
        self.make_core()
        self.prior = mlp(c.deter, c.hidden, c.prior_layers, latent, c.act, c.norm)
        posterior_norm = c.norm if c.posterior_norm == "same" else c.posterior_norm
        self.post_in = nn.Linear(c.deter + embed_dim, c.hidden, bias=biased(posterior_norm))
        self.post_norm = norm_layer(posterior_norm, c.hidden)
        self.post_act = ACTIVATIONS[c.act]()
        self.post_out = nn.Linear(c.hidden, latent)
        INITIALIZERS[c.init](self)
        if c.init != "glorot":  # Glorot's is an output layer's
            initialize_output_(self.prior[-1], c.init, 1.0)
            initialize_output_(self.post_out, c.init, 1.0)
        self.deter_0 = nn.Parameter(torch.zeros(c.deter)) if c.initial == "learned" else None

    def make_core(self) -> None:
        """Set the modules of the recurrent core."""
        c, latent = self.config, self.config.stoch * self.config.classes
        width, bias = latent + (c.action_pad or self.action_dim), biased(c.norm)
        self.img_in = nn.Linear(width, c.hidden, bias=bias)
        self.img_in_norm = norm_layer(c.norm, c.hidden)
        self.img_in_act = ACTIVATIONS[c.img_in_act]()
        self.gru = nn.Linear(c.hidden + c.deter, 3 * c.deter, bias=bias)
        self.gru_norm = nn.LayerNorm(3 * c.deter, eps=NORM_EPS)

    def initial(self, batch: int, like: Tensor) -> RSSMState:
        """The state before an episode: zeros, or the learned one."""
        c = self.config
        if self.deter_0 is None:
            return RSSMState(
                like.new_zeros(batch, c.deter), like.new_zeros(batch, c.stoch, c.classes)
            )
        deter = torch.tanh(self.deter_0)[None]
        logits = self.prior_logits(deter)
        stoch = sample_onehot(logits, torch.zeros_like(logits)).detach()
        return RSSMState(deter.expand(batch, -1), stoch.expand(batch, -1, -1))

    def project_action(self, action: Tensor) -> Tensor:
        """What the core gets of actions: (..., A) -> (..., hidden). Here the action's share of
        ``img_in``, bias included."""
        latent = self.config.stoch * self.config.classes
        return F.linear(
            action, self.img_in.weight[:, latent : latent + self.action_dim], self.img_in.bias
        )

    def recur(self, state: RSSMState, action_in: Tensor) -> Tensor:
        """h_t (B, D) from s_{t-1} and the projected action (B, hidden)."""
        latent = self.config.stoch * self.config.classes
        x = action_in + F.linear(state.stoch.flatten(-2), self.img_in.weight[:, :latent])
        x = self.img_in_act(self.img_in_norm(x))
        parts = self.gru_norm(self.gru(torch.cat([x, state.deter], -1)).float())
        reset, cand, update = parts.chunk(3, -1)
        return gated(reset, cand, update, state.deter)

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

        Returns states with leaves (B, T, ...) and posterior logits (B, T, S, C). A step is T = 1.
        """
        c = self.config
        keep = (~is_first).to(embed.dtype)[..., None]  # (B, T, 1)
        action_in = self.project_action(action * keep)
        embed_in = F.linear(embed, self.post_in.weight[:, c.deter :], self.post_in.bias)
        weight_h = self.post_in.weight[:, : c.deter]
        noise = gumbel((*embed.shape[:2], c.stoch, c.classes), embed, generator)
        start = None if self.deter_0 is None else self.initial(1, embed)
        deters, stochs, logits = [], [], []
        for t in range(embed.shape[1]):
            state = _reset(state, keep[:, t], start)
            deter = self.recur(state, action_in[:, t])
            x = self.post_act(self.post_norm(F.linear(deter, weight_h) + embed_in[:, t]))
            logit = self._categories(self.post_out(x))
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
        return unimix(logits, self.config.unimix)


def gated(reset: Tensor, cand: Tensor, update: Tensor, deter: Tensor) -> Tensor:
    """The recurrent state (B, D) after ``deter``, from pre-activations (B, D)."""
    update = torch.sigmoid(update - 1.0)
    cand = torch.tanh(torch.sigmoid(reset) * cand)
    return update * cand + (1.0 - update) * deter


def _reset(state: RSSMState, keep: Tensor, start: RSSMState | None) -> RSSMState:
    """The state, replaced by ``start`` (None: zeros) in the rows of which ``keep`` (B, 1) is 0."""
    deter, stoch = state.deter * keep, state.stoch * keep[..., None]
    if start is None:
        return RSSMState(deter, stoch)
    new = 1.0 - keep
    return RSSMState(deter + start.deter * new, stoch + start.stoch * new[..., None])
