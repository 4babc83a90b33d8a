"""Distributions and squashings of the Dreamer family; everything here computes in float32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LOG_SQRT_2PI_E = 0.5 * math.log(2 * math.pi * math.e)
_SQRT2 = math.sqrt(2.0)


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of :func:`symlog`; its argument is clamped to +-20 (4.9e8) against overflow."""
    x = x.clamp(-20.0, 20.0)
    return torch.sign(x) * torch.expm1(x.abs())


def gumbel(
    shape: torch.Size | tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Standard Gumbel noise, float32, on the device of ``like``."""
    u = torch.rand(shape, generator=generator, device=like.device, dtype=torch.float32)
    return -torch.log(-torch.log(u.clamp_(1e-20, 1.0 - 1e-7)))


def sample_onehot(logits: Tensor, noise: Tensor) -> Tensor:
    """Straight-through sample of one-hot categoricals over the last dimension.

    ``noise`` is Gumbel noise of the shape of ``logits`` (zeros give the mode). The value is exactly
    one-hot, the gradient is that of the probabilities (DreamerV2, algorithm 1).
    """
    logits = logits.float()
    probs = logits.softmax(-1)
    hot = torch.zeros_like(probs).scatter_(-1, (logits + noise).argmax(-1, keepdim=True), 1.0)
    return hot + (probs - probs.detach())


def categorical_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) in nats of factorised categoricals [..., S, C], summed over S: [...]."""
    p_log = p_logits.float().log_softmax(-1)
    q_log = q_logits.float().log_softmax(-1)
    return (p_log.exp() * (p_log - q_log)).sum((-2, -1))


def balanced_kl(post_logits: Tensor, prior_logits: Tensor, balance: float) -> Tensor:
    """``balance`` KL(sg(post) || prior) + (1 - balance) KL(post || sg(prior)), per step [...]."""
    to_prior = categorical_kl(post_logits.detach(), prior_logits)
    to_post = categorical_kl(post_logits, prior_logits.detach())
    return balance * to_prior + (1.0 - balance) * to_post


class TruncatedNormal:
    """Independent normals truncated to [-1, 1], sampled through the inverse CDF.

    mean, std: [..., A]. Samples stay within +-(1 - 1e-6).
    """

    limit = 1.0 - 1e-6

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.float(), std.float()
        self._alpha = (-1.0 - self.mean) / self.std
        self._beta = (1.0 - self.mean) / self.std
        self._cdf_alpha = _normal_cdf(self._alpha)
        self._mass = (_normal_cdf(self._beta) - self._cdf_alpha).clamp_min(1e-6)

    def sample(self, generator: torch.Generator | None = None, gradient: str = "exact") -> Tensor:
        """A sample a [..., A], differentiable with respect to mean and std.

        ``gradient`` "exact": that of the inverse CDF. The bounds stay where they are, so da/dmean
        is less than 1: .70 on average at mean 0 and std .55, less near a bound. "released": that of
        the library with which DreamerV2, MWM and APV were released, which ignores the bounds:
        da/dmean = 1, da/dstd = (a - mean) / std. The values are the same.
        """
        u = torch.rand(self.mean.shape, generator=generator, device=self.mean.device)
        p = (self._cdf_alpha + u * self._mass).clamp(1e-6, 1.0 - 1e-6)
        noise = torch.erfinv(2.0 * p - 1.0)
        if gradient == "released":
            noise = noise.detach()
        x = self.mean + self.std * _SQRT2 * noise
        return x + (x.clamp(-self.limit, self.limit) - x).detach()  # the gradient passes the clip

    def mode(self) -> Tensor:
        return self.mean

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over A: [...]. At most ln 2 per dimension."""
        spread = self._alpha * _normal_pdf(self._alpha) - self._beta * _normal_pdf(self._beta)
        each = _LOG_SQRT_2PI_E + torch.log(self.std * self._mass) + spread / (2.0 * self._mass)
        return each.sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density, summed over A: [...]."""
        z = (x - self.mean) / self.std
        each = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - torch.log(self.std * self._mass)
        return each.sum(-1)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.erf(x / _SQRT2))


def _normal_pdf(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)


def bernoulli_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a Bernoulli against a soft target, elementwise."""
    return F.binary_cross_entropy_with_logits(logit.float(), target, reduction="none")
