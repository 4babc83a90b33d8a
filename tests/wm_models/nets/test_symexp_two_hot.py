"""The two-hot distribution over bins in the number's own space."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from wm_models.nets.distributions import Normal, SymexpTwoHot
from wm_models.nets.heads import HeadConfig, ScalarHead


def test_bins_are_symmetric_around_an_exact_zero() -> None:
    bins = SymexpTwoHot.bins(torch.zeros(()))
    assert len(bins) == 255 and bins[127] == 0.0
    assert bins.equal(-bins.flip(0)) and (bins.diff() > 0).all()
    assert_close(bins[-1], torch.tensor(math.expm1(20.0)), rtol=1e-5, atol=0)
    assert_close(torch.log1p(bins[128]), torch.tensor(20 / 127))


def test_equal_probabilities_give_exactly_zero_and_ln_255() -> None:
    flat = SymexpTwoHot(torch.zeros(3, 255))
    assert not flat.mean().any()
    assert_close(flat.loss(torch.tensor([0.0, 5.0, -1e4])), torch.full((3,), math.log(255.0)))


@pytest.mark.parametrize("x", [0.0, 0.3, -7.0, 1e3, -1e6])
def test_the_target_s_mean_is_the_target(x: float) -> None:
    """Minus the loss's derivative by the logits is target minus probabilities."""
    logits = torch.zeros(1, 255, requires_grad=True)
    SymexpTwoHot(logits).loss(torch.tensor([x])).sum().backward()
    target = 1 / 255 - logits.grad[0]
    assert_close(target.sum(), torch.tensor(1.0))
    assert int((target > 1e-6).sum()) <= 2
    mean = (target.double() * SymexpTwoHot.bins(target).double()).sum()
    assert_close(float(mean), x, rtol=1e-4, atol=20.0)  # float32 weights times bins of up to 5e8


def test_numbers_beyond_the_bins_count_as_the_last() -> None:
    logits = torch.randn(1, 255)
    top = SymexpTwoHot(logits).loss(torch.tensor([1e12]))
    assert_close(top, -logits.log_softmax(-1)[:, -1])


def test_a_head_learns_a_number() -> None:
    torch.manual_seed(0)
    head = ScalarHead(2, HeadConfig(units=8, layers=1), "symexp_twohot", output_scale=0.0)
    feat, target = torch.ones(1, 2), torch.tensor([-7.0])
    rule = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(150):
        rule.zero_grad()
        head.loss(feat, target).sum().backward()
        rule.step()
    log_p = head(feat).log_softmax(-1).exp()[0]
    bins = SymexpTwoHot.bins(log_p)
    assert log_p[(bins > -9) & (bins < -5)].sum() > 0.95


def test_samples_of_a_plain_normal_leave_the_box() -> None:
    policy = Normal(torch.zeros(1000, 1), torch.ones(1000, 1))
    sample = policy.sample(torch.Generator().manual_seed(0))
    assert sample.abs().max() > 2.0
    assert_close(
        policy.log_prob(sample),
        torch.distributions.Normal(0.0, 1.0).log_prob(sample).squeeze(-1),
    )
