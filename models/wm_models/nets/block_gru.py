"""The recurrent core of DreamerV3 (Nature 2025): a GRU that is diagonal in blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_models.nets.blocks import ACTIVATIONS, BlockLinear, hidden, norm_layer
from wm_models.nets.rssm import RSSM, RSSMConfig, RSSMState, gated


class BlockRSSM(RSSM):
    """The state-space model whose recurrent state is split into blocks.

    State, latents and action get a hidden layer each; all blocks see the three, and each sees its
    own part of the recurrent state.
    """

    gru: BlockLinear  # type: ignore[assignment]

    def make_core(self) -> None:
        c, latent = self.config, self.config.stoch * self.config.classes
        self.deter_in, self.stoch_in, self.action_in = (
            nn.Sequential(*hidden(width, c.hidden, c.act, c.norm))
            for width in (c.deter, latent, self.action_dim)
        )
        self.mix = BlockLinear(c.deter, c.deter, c.blocks, shared=3 * c.hidden)
        self.mix_norm = norm_layer(c.norm, c.deter)
        self.mix_act = ACTIVATIONS[c.act]()
        self.gru = BlockLinear(c.deter, 3 * c.deter, c.blocks)

    def project_action(self, action: Tensor) -> Tensor:
        """The hidden layer of actions, pulled back to [-1, 1]: (..., A) -> (..., hidden)."""
        out: Tensor = self.action_in(action / action.abs().clamp_min(1.0).detach())
        return out

    def recur(self, state: RSSMState, action_in: Tensor) -> Tensor:
        deter, c = state.deter, self.config
        inputs = [self.deter_in(deter), self.stoch_in(state.stoch.flatten(-2)), action_in]
        x = self.mix_act(self.mix_norm(self.mix(deter, torch.cat(inputs, -1))))
        parts = self.gru(x).float().unflatten(-1, (c.blocks, 3, -1))  # in each block one gate each
        reset, cand, update = (part.flatten(-2) for part in parts.unbind(-2))
        return gated(reset, cand, update, deter)


def make_rssm(config: RSSMConfig, action_dim: int, embed_dim: int) -> RSSM:
    """The state-space model with the core that ``config`` names."""
    kind = BlockRSSM if config.core == "block" else RSSM
    return kind(config, action_dim, embed_dim)
