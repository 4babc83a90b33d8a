"""Laws and published figures of the distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from wm_models.nets.distributions import (
    ClippedNormal,
    OneHot,
    TruncatedNormal,
    TwoHot,
    bernoulli_loss,
    categorical_kl,
    gumbel,
    sample_onehot,
    symexp,
    symlog,
    unimix,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_symlog_and_symexp_are_inverse() -> None:
    x = torch.tensor([0.0, 0.3, -7.0, 1e3, -1e6])
    assert_close(symexp(symlog(x)), x, rtol=1e-4, atol=1e-6)
    assert symexp(torch.tensor(1e9)).isfinite()


def test_kl_of_equal_logits_is_zero() -> None:
    logits = torch.randn(5, 32, 32, generator=seeded())
    assert_close(categorical_kl(logits, logits), torch.zeros(5))
    assert_close(categorical_kl(logits, logits + 3.0), torch.zeros(5), atol=1e-4, rtol=0)
    assert (categorical_kl(logits, logits.flip(-1)) > 0).all()


def test_kl_of_one_hot_against_uniform() -> None:
    hot = torch.zeros(1, 32, 32)
    hot[..., 0] = 100.0
    assert_close(
        categorical_kl(hot, torch.zeros_like(hot)), torch.tensor([110.9]), atol=0.01, rtol=0
    )


def test_straight_through_is_one_hot_with_the_gradient_of_probabilities() -> None:
    logits = torch.randn(6, 4, 5, generator=seeded()).requires_grad_()
    direction = torch.randn(6, 4, 5, generator=seeded(1))
    hot = sample_onehot(logits, gumbel(logits.shape, logits, seeded(2)))
    assert set(hot.unique().tolist()) == {0.0, 1.0}
    assert (hot.sum(-1) == 1.0).all()
    (through,) = torch.autograd.grad((hot * direction).sum(), logits)
    (probs,) = torch.autograd.grad((logits.softmax(-1) * direction).sum(), logits)
    assert_close(through, probs)


def test_samples_follow_the_probabilities() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]]).expand(20_000, 1, 3)
    hot = sample_onehot(logits, gumbel(logits.shape, logits, seeded()))
    assert_close(hot.mean((0, 1)), logits[0, 0].softmax(-1), atol=0.01, rtol=0)
    mode = sample_onehot(logits, torch.zeros_like(logits))
    assert (mode[..., 0] == 1).all()


@pytest.mark.parametrize(("std", "entropy"), [(0.55, 0.600), (1.0, 0.683), (0.1, -0.884)])
def test_entropy_at_mean_zero(std: float, entropy: float) -> None:
    policy = TruncatedNormal(torch.zeros(1, 2), torch.full((1, 2), std))
    assert_close(policy.entropy() / 2, torch.tensor([entropy]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mean", [-1.0, -0.4, 0.0, 0.99])
@pytest.mark.parametrize("std", [0.1, 0.55, 1.0])
def test_density_integrates_to_one_and_gives_the_entropy(mean: float, std: float) -> None:
    x = torch.linspace(-1, 1, 20_001)[:, None]
    policy = TruncatedNormal(torch.full_like(x, mean), torch.full_like(x, std))
    log_p = policy.log_prob(x)
    mass = torch.trapezoid(log_p.exp(), x[:, 0])
    entropy = -torch.trapezoid(log_p.exp() * log_p, x[:, 0])
    assert_close(mass, torch.tensor(1.0), atol=2e-3, rtol=0)
    assert_close(policy.entropy()[0], entropy, atol=5e-3, rtol=0)
    assert policy.entropy()[0] <= math.log(2.0) + 1e-5


def test_samples_stay_inside_and_follow_the_density() -> None:
    mean, std = torch.tensor([0.9, 0.0]), torch.tensor([0.3, 5.0])
    policy = TruncatedNormal(mean.expand(40_000, 2), std.expand(40_000, 2))
    x = policy.sample(seeded())
    assert x.abs().max() <= 1.0 - 1e-6
    grid = torch.linspace(-1, 1, 4001)[:, None].expand(-1, 2)
    wide = TruncatedNormal(mean.expand_as(grid), std.expand_as(grid))
    for dim in range(2):
        z = (grid[:, dim] - mean[dim]) / std[dim]
        p = torch.exp(-0.5 * z.square())
        expected = (p * grid[:, dim]).sum() / p.sum()
        assert_close(x[:, dim].mean(), expected, atol=0.01, rtol=0)
    assert wide.mode().equal(mean.expand_as(grid))


@pytest.mark.parametrize("std", [0.1, 0.55, 1.0])
@pytest.mark.parametrize("mean", [-0.9, 0.0, 0.4])
def test_both_gradients_of_a_sample(mean: float, std: float) -> None:
    """exact: da/dmean = 1 - ((1 - u) phi(alpha) + u phi(beta)) / phi(z), from the inverse CDF, and
    da/dstd the same with alpha and beta in front; released: 1 and z = (a - mean) / std."""

    def gradients(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        m = torch.full((500,), mean, requires_grad=True)
        s = torch.full((500,), std, requires_grad=True)
        a = TruncatedNormal(m, s).sample(seeded(), kind)
        return a.detach().double(), *(g.double() for g in torch.autograd.grad(a.sum(), (m, s)))

    a, by_mean, by_std = gradients("released")
    z = (a - mean) / std
    assert_close(by_mean, torch.ones(500).double())
    assert_close(by_std, z, atol=1e-4, rtol=1e-4)

    same, by_mean, by_std = gradients("exact")
    assert same.equal(a)
    alpha, beta = (-1.0 - mean) / std, (1.0 - mean) / std
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    cdf = [normal.cdf(torch.tensor(x).double()) for x in (alpha, beta)]
    density = [normal.log_prob(torch.tensor(x).double()).exp() for x in (alpha, beta)]
    u = (normal.cdf(z) - cdf[0]) / (cdf[1] - cdf[0])
    low, high = (1 - u) * density[0], u * density[1]
    middle = z.abs() < 2.5  # further out float32 rounds u away
    at = normal.log_prob(z).exp()
    close = {"atol": 2e-3, "rtol": 2e-3}
    assert_close(by_mean[middle], (1 - (low + high) / at)[middle], **close)
    assert_close(by_std[middle], (z - (alpha * low + beta * high) / at)[middle], **close)


@pytest.mark.parametrize(("mean", "std", "pull"), [(0.0, 0.55, 0.70), (1.0, 0.1, 0.363)])
def test_the_exact_gradient_pulls_less(mean: float, std: float, pull: float) -> None:
    """Means of da/dmean at the start of training and of a saturated actor; 1 as released. They are
    the variance by std^2: of a half normal 1 - 2 / pi."""
    m = torch.full((40_000,), mean, requires_grad=True)
    a = TruncatedNormal(m, torch.full_like(m, std)).sample(seeded())
    (by_mean,) = torch.autograd.grad(a.mean(), m)
    assert_close(by_mean.sum(), torch.tensor(pull), atol=0.02, rtol=0)


def test_samples_are_reparameterised() -> None:
    mean = torch.tensor([0.2], requires_grad=True)
    std = torch.tensor([0.5], requires_grad=True)
    step = 1e-3
    x = TruncatedNormal(mean, std).sample(seeded())
    by_mean, by_std = torch.autograd.grad(x.sum(), (mean, std))
    with torch.no_grad():
        near = TruncatedNormal(mean + step, std).sample(seeded()) - x
        wide = TruncatedNormal(mean, std + step).sample(seeded()) - x
    assert_close(by_mean, near / step, atol=2e-2, rtol=0)
    assert_close(by_std, wide / step, atol=2e-2, rtol=0)


def test_bernoulli_loss_is_lowest_at_its_target() -> None:
    target = torch.tensor([0.99])
    at = bernoulli_loss(torch.logit(target), target)
    assert at < bernoulli_loss(torch.logit(target) + 0.5, target)
    assert at < bernoulli_loss(torch.logit(target) - 0.5, target)


@pytest.mark.parametrize("u", [0.0, 1.0])
@pytest.mark.parametrize("mean", [-1.0, 0.0, 1.0])
def test_the_ends_of_the_generators_range_give_finite_samples(monkeypatch, u, mean) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, u))
    sample = TruncatedNormal(torch.tensor([mean]), torch.tensor([0.1])).sample()
    assert bool(sample.isfinite().all()) and float(sample.abs()) <= 1.0


def test_two_hot_figures() -> None:
    """Decoding what was encoded, the bins' width, and the loss of equal logits: ln 255."""
    bins = TwoHot.bins(torch.zeros(()))
    assert_close(bins[1] - bins[0], torch.tensor(40 / 254))
    x = torch.tensor([0.0, 0.3, -7.0, 1e3, -1e6])
    logits = torch.zeros(5, TwoHot.BINS, requires_grad=True)
    assert_close(TwoHot(logits).mean(), torch.zeros(5), atol=1e-4, rtol=0)
    loss = TwoHot(logits).loss(x)
    assert_close(loss, torch.full((5,), math.log(255)))
    # the gradient of a cross-entropy is softmax - target: with equal logits it shows the target
    target = 1 / 255 - torch.autograd.grad(loss.sum(), logits)[0]
    assert_close(target.sum(-1), torch.ones(5), atol=1e-5, rtol=0)
    assert ((target > 1e-6).sum(-1) <= 2).all()
    assert_close(symexp((target * bins).sum(-1)), x, rtol=1e-4, atol=1e-5)


def test_two_hot_numbers_beyond_the_bins_fall_on_the_last() -> None:
    far = symexp(torch.tensor([30.0, -30.0])) * 1e9
    logits = torch.zeros(2, TwoHot.BINS, requires_grad=True)
    target = 1 / 255 - torch.autograd.grad(TwoHot(logits).loss(far).sum(), logits)[0]
    assert_close(target[0, -1], torch.tensor(1.0), atol=1e-5, rtol=0)
    assert_close(target[1, 0], torch.tensor(1.0), atol=1e-5, rtol=0)


def test_unimix_keeps_every_category_possible() -> None:
    logits = torch.tensor([[1000.0, 0.0, 0.0, 0.0]])
    probs = unimix(logits, 0.01).softmax(-1)
    assert_close(probs, torch.tensor([[0.9925, 0.0025, 0.0025, 0.0025]]))
    gap = unimix(torch.tensor([1000.0, *[0.0] * 31]), 0.01)
    assert_close(gap[0] - gap[1], torch.tensor(8.06), atol=5e-3, rtol=0)
    assert unimix(logits, 0.0).equal(logits)


def test_clipped_normal_shrinks_the_gradient_of_what_it_clips() -> None:
    mean = torch.tensor([0.0, 0.9]).expand(4000, 2).clone().requires_grad_()
    policy = ClippedNormal(mean, torch.tensor([0.1, 1.0]).expand(4000, 2))
    x = policy.sample(seeded())
    assert x.abs().max() <= 1.0 + 1e-6
    (grad,) = torch.autograd.grad(x.sum(), mean)
    clipped = x.detach().abs() > 1.0 - 1e-6
    assert clipped[:, 1].any()
    assert_close(grad[~clipped], torch.ones_like(grad[~clipped]))
    assert ((grad[clipped] > 0) & (grad[clipped] < 1)).all()
    plain = torch.distributions.Normal(mean, torch.tensor([0.1, 1.0]))
    assert_close(policy.entropy(), plain.entropy().sum(-1))
    assert_close(policy.log_prob(x), plain.log_prob(x).sum(-1))


def test_entropy_of_dreamer_v3s_first_policy() -> None:
    std = 0.9 * torch.sigmoid(torch.tensor([2.0])) + 0.1
    assert_close(std, torch.tensor([0.893]), atol=1e-3, rtol=0)
    entropy = ClippedNormal(torch.zeros(1), std).entropy()
    assert_close(entropy, torch.tensor(1.305), atol=1e-3, rtol=0)


def test_discrete_actions() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    policy = OneHot(logits.expand(20_000, 3))
    x = policy.sample(seeded())
    assert_close(x.mean(0), logits[0].softmax(-1), atol=0.01, rtol=0)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert OneHot(logits).mode().equal(torch.tensor([[1.0, 0.0, 0.0]]))
    plain = torch.distributions.Categorical(logits=logits)
    assert_close(OneHot(logits).entropy(), plain.entropy())
    action = torch.tensor([[0.0, 1.0, 0.0]])
    assert_close(OneHot(logits).log_prob(action), plain.log_prob(torch.tensor([1])))
