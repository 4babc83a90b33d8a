"""Distributions and squashings of the Dreamer family; everything here computes in float32."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wm_models.interface.noise import normal, uniform

_LOG_SQRT_2PI_E = 0.5 * math.log(2 * math.pi * math.e)
_SQRT2 = math.sqrt(2.0)
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class ActionDistribution(Protocol):
    """What an actor outputs: a distribution of actions [..., A]. ``limit``: the largest absolute
    value of an entry whose density is finite."""

    limit: float

    def sample(self, generator: torch.Generator | None = None, gradient: str = "exact") -> Tensor:
        """A sample [..., A] that gradients pass through; ``gradient`` as in TruncatedNormal."""

    def mode(self) -> Tensor:
        """The action [..., A] for evaluation."""

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over A: [...]."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density or log probability of actions [..., A]: [...]."""


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
    u = uniform(shape, generator, like.device)
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


def unimix(logits: Tensor, share: float) -> Tensor:
    """Logits of categoricals mixed with a ``share`` of the uniform distribution (DreamerV3):
    ln((1 - share) softmax(logits) + share / C) over the last dimension."""
    logits = logits.float()
    if not share:
        return logits
    return torch.log((1.0 - share) * logits.softmax(-1) + share / logits.shape[-1])


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
        u = uniform(self.mean.shape, generator, self.mean.device)
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


class ClippedNormal:
    """Independent normals whose samples are pulled back to [-1, 1] (DreamerV3, 2023).

    mean, std: [..., A]. A sample outside is divided by its absolute value, as a constant: its
    gradient shrinks, but it does not vanish. Density and entropy are those of the plain normal.
    """

    limit = 1.0

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.float(), std.float()

    def sample(self, generator: torch.Generator | None = None, gradient: str = "exact") -> Tensor:
        """A sample a [..., A] within [-1, 1]; there is only one ``gradient``."""
        noise = normal(self.mean.shape, generator, self.mean.device)
        x = self.mean + self.std * noise
        return x * (1.0 / x.abs().clamp_min(1.0)).detach()

    def mode(self) -> Tensor:
        return self.mean.clamp(-1.0, 1.0)

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over A: [...]."""
        return (_LOG_SQRT_2PI_E + torch.log(self.std)).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of the plain normal, summed over A: [...]."""
        z = (x - self.mean) / self.std
        return (-0.5 * z.square() - _LOG_SQRT_2PI - torch.log(self.std)).sum(-1)


class Normal(ClippedNormal):
    """Independent normals whose samples may leave [-1, 1] (DreamerV3, Nature 2025), so that their
    density is that of what was sampled. mean, std: [..., A]."""

    def sample(self, generator: torch.Generator | None = None, gradient: str = "exact") -> Tensor:
        """A sample a [..., A]; there is only one ``gradient``."""
        noise = normal(self.mean.shape, generator, self.mean.device)
        return self.mean + self.std * noise


class OneHot:
    """One of A discrete actions, as one-hot vectors [..., A]. logits: [..., A]."""

    limit = 1.0

    def __init__(self, logits: Tensor) -> None:
        self.log_p = logits.float().log_softmax(-1)

    def sample(self, generator: torch.Generator | None = None, gradient: str = "exact") -> Tensor:
        """A straight-through sample [..., A]; there is only one ``gradient``."""
        return sample_onehot(self.log_p, gumbel(self.log_p.shape, self.log_p, generator))

    def mode(self) -> Tensor:
        return sample_onehot(self.log_p, torch.zeros_like(self.log_p))

    def entropy(self) -> Tensor:
        """Entropy in nats: [...]. At most ln A."""
        return -(self.log_p.exp() * self.log_p).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability of one-hot actions [..., A]: [...]."""
        return (self.log_p * x).sum(-1)


class TwoHot:
    """Numbers as a categorical over ``BINS`` bins, even in symlog space between -20 and 20
    (DreamerV3, 2023). logits: [..., BINS]."""

    BINS = 255
    LOW, HIGH = -20.0, 20.0

    def __init__(self, logits: Tensor) -> None:
        self.log_p = logits.float().log_softmax(-1)

    @classmethod
    def bins(cls, like: Tensor) -> Tensor:
        """The bins [BINS], in symlog space."""
        return torch.linspace(cls.LOW, cls.HIGH, cls.BINS, device=like.device)

    def mean(self) -> Tensor:
        """symexp of the expected bin: [...]."""
        return symexp((self.log_p.exp() * self.bins(self.log_p)).sum(-1))

    def loss(self, target: Tensor) -> Tensor:
        """Cross-entropy [...] of plain numbers [...], each split between its two nearest bins."""
        step = (self.HIGH - self.LOW) / (self.BINS - 1)
        place = (symlog(target.float()).clamp(self.LOW, self.HIGH) - self.LOW) / step
        below = place.nan_to_num().floor().clamp(0, self.BINS - 2)  # the loss of NaN is NaN
        above = (place - below)[..., None]
        low = below.long()[..., None]
        log_low, log_high = self.log_p.gather(-1, low), self.log_p.gather(-1, low + 1)
        return -((1.0 - above) * log_low + above * log_high).squeeze(-1)


class SymexpTwoHot(TwoHot):
    """Numbers as a categorical over ``BINS`` bins that lie where symexp puts even ones, without a
    squashing of the numbers (DreamerV3, Nature 2025). logits: [..., BINS]."""

    @classmethod
    def bins(cls, like: Tensor) -> Tensor:
        """The bins [BINS], symmetric around an exact 0."""
        half = symexp(torch.linspace(cls.LOW, 0.0, cls.BINS // 2 + 1, device=like.device))
        return torch.cat([half, -half[:-1].flip(0)])

    def mean(self) -> Tensor:
        """The expected bin: [...]. Bins of opposite sign are added first: equal probabilities give
        exactly 0."""
        each, middle = self.log_p.exp() * self.bins(self.log_p), self.BINS // 2
        pairs = each[..., :middle].flip(-1) + each[..., middle + 1 :]
        return each[..., middle] + pairs.sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        """Cross-entropy [...] of plain numbers [...], each split between its two nearest bins."""
        bins = self.bins(self.log_p)
        target = target.float().clamp(bins[0], bins[-1]).contiguous()
        low = (torch.searchsorted(bins, target, right=True) - 1).clamp(0, self.BINS - 2)
        above = (target - bins[low]) / (bins[low + 1] - bins[low])
        log_low = self.log_p.gather(-1, low[..., None]).squeeze(-1)
        log_high = self.log_p.gather(-1, low[..., None] + 1).squeeze(-1)
        return -((1.0 - above) * log_low + above * log_high)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.erf(x / _SQRT2))


def _normal_pdf(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)


def bernoulli_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a Bernoulli against a soft target, elementwise."""
    return F.binary_cross_entropy_with_logits(logit.float(), target, reduction="none")
