"""KL terms between posterior and prior, each as its model reduces it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from wm_models.interface.checked import Checked
from wm_models.nets.distributions import categorical_kl


def kl_pair(post_logits: Tensor, prior_logits: Tensor) -> tuple[Tensor, Tensor]:
    """KL(sg(post) || prior), which trains the prior, and KL(post || sg(prior)), which trains the
    posterior: logits [..., S, C] -> two times [...], in nats, of equal value."""
    to_prior = categorical_kl(post_logits.detach(), prior_logits)
    to_post = categorical_kl(post_logits, prior_logits.detach())
    return to_prior, to_post


@dataclass(frozen=True)
class MixedClipKL:
    """MWM: both terms are mixed and scaled, then each step is clipped from both sides."""

    scale: float = 1.0  # weight of the term
    balance: float = 0.8  # weight of the term that trains the prior
    free: float = 0.01  # nats per step, after mixing and scaling
    clip: float = 100.0  # steps above get no gradient; as released

    def __post_init__(self) -> None:
        Checked(self).number("scale", "free", "clip", low=0.0)
        Checked(self).number("balance", low=0.0, high=1.0)

    def loss(self, post_logits: Tensor, prior_logits: Tensor) -> tuple[Tensor, Tensor]:
        """The term of the loss, and the KL itself [nats], both means over all steps."""
        to_prior, to_post = kl_pair(post_logits, prior_logits)
        kl = self.balance * to_prior + (1.0 - self.balance) * to_post
        return (self.scale * kl).clamp(self.free, self.clip).mean(), kl.mean()


@dataclass(frozen=True)
class AveragedFreeKL:
    """DreamerV2 and APV: free bits count for each term's mean over the batch, then both are mixed.

    Below ``free`` a term has no gradient at all; above, all its steps have.
    """

    scale: float = 1.0  # weight of the term
    balance: float = 0.8  # weight of the term that trains the prior
    free: float = 0.0  # nats per step on average

    def __post_init__(self) -> None:
        Checked(self).number("scale", "free", low=0.0)
        Checked(self).number("balance", low=0.0, high=1.0)

    def loss(self, post_logits: Tensor, prior_logits: Tensor) -> tuple[Tensor, Tensor]:
        """The term of the loss, and the KL itself [nats], both means over all steps."""
        to_prior, to_post = (kl.mean() for kl in kl_pair(post_logits, prior_logits))
        free_prior, free_post = to_prior.clamp_min(self.free), to_post.clamp_min(self.free)
        mixed = self.balance * free_prior + (1.0 - self.balance) * free_post
        return self.scale * mixed, to_prior


@dataclass(frozen=True)
class EachFreeKL:
    """DreamerV3 and MuDreamer: free bits count for each step of each term."""

    dyn: float = 0.5  # weight of the term that trains the prior
    rep: float = 0.1  # weight of the term that trains the posterior
    free: float = 1.0  # nats per step

    def __post_init__(self) -> None:
        Checked(self).number("dyn", "rep", "free", low=0.0)

    def loss(self, post_logits: Tensor, prior_logits: Tensor) -> tuple[Tensor, Tensor]:
        """The term of the loss, and the KL itself [nats], both means over all steps."""
        to_prior, to_post = kl_pair(post_logits, prior_logits)
        loss = self.dyn * to_prior.clamp_min(self.free) + self.rep * to_post.clamp_min(self.free)
        return loss.mean(), to_prior.mean()
