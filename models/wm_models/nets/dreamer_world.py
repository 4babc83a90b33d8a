"""The world model of the Dreamer family: an RSSM on features of observations, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from wm_models.nets.heads import ScalarHead
from wm_models.nets.rssm import RSSM, RSSMState


class KLTerm(Protocol):
    """A reduction of the KL between posterior and prior: see ``nets/kl.py``."""

    def loss(self, post_logits: Tensor, prior_logits: Tensor) -> tuple[Tensor, Tensor]: ...


class DreamerWorld(nn.Module):
    """RSSM, reward head and discount head; a family adds what its states must predict.

    A subclass sets ``rssm``, ``reward`` and ``discount`` (None: episodes never terminate), and
    implements :meth:`embed` and :meth:`target_losses`.

    kl: the KL term. gamma: the discount. continues_as: what the discount head predicts of a state
    that is not terminal, ``gamma`` (DreamerV2, MWM, APV) or 1 (DreamerV3, MuDreamer). weights: of
    the named terms of the loss; 1 where there is none.
    """

    rssm: RSSM
    reward: ScalarHead
    discount: ScalarHead | None

    def __init__(
        self, kl: KLTerm, gamma: float, *, continues_as: float, weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.kl, self.gamma, self.continues_as = kl, gamma, continues_as
        self.weights = dict(weights)

    # A family implements ------------------------------------------------------------------------

    def embed(self, features: Tensor) -> Tensor:
        """What the posterior gets of features (..., N, D): (..., E). All of them by default."""
        return features.flatten(-2)

    def target_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What makes the states informative, by name: a reconstruction of images or features, or
        predictions in its place. features (B, T, N, D), post (B, T, ...)."""
        raise NotImplementedError

    def extra_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Further terms, after those that all models have."""
        return {}

    # Shared -------------------------------------------------------------------------------------

    def loss(
        self,
        features: Tensor,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, RSSMState, dict[str, Tensor]]:
        """Loss on features (B, T, N, D) and ``batch`` in arrival form, the posterior states, and
        the terms of the loss."""
        start = self.rssm.initial(features.shape[0], features)
        post, post_logits = self.rssm.observe(
            start, batch["action"], self.embed(features), batch["is_first"], generator
        )
        kl_loss, kl = self.kl.loss(post_logits, self.rssm.prior_logits(post.deter))
        losses = {
            **self.target_losses(features, post, batch),
            "wm/reward_loss": self._reward_loss(post.feat, batch),
            "wm/kl_loss": kl_loss,
        }
        if self.discount is not None:
            target = self.continues_as * (~batch["is_terminal"]).float()
            losses["wm/discount_loss"] = self.discount.loss(post.feat, target).mean()
        losses |= self.extra_losses(features, post, batch)
        total: Tensor = sum(  # type: ignore[assignment]
            self.weights.get(name, 1.0) * value for name, value in losses.items()
        )
        return total, post, {**losses, "wm/kl": kl}

    def imagined_discount(self, feat: Tensor) -> Tensor:
        """gamma times the predicted probability (...,) that the episode continues."""
        assert self.discount is not None
        return self.discount.predict(feat) * (self.gamma / self.continues_as)

    def _reward_loss(self, feat: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over the rows whose reward is known."""
        known = batch["reward_known"].float()
        loss = self.reward.loss(feat, batch["reward"])
        return (loss * known).sum() / known.sum().clamp_min(1)
