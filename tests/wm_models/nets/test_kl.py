"""The KL terms: where their gradients go, and what free bits and clips leave without one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.distributions import categorical_kl
from wm_models.nets.kl import AveragedFreeKL, EachFreeKL, MixedClipKL, kl_pair

Terms = MixedClipKL | AveragedFreeKL | EachFreeKL


def logits(steps: int = 4, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    post, prior = (spread * torch.randn(steps, 8, 8, generator=g) for _ in range(2))
    return post.requires_grad_(), prior.requires_grad_()


def gradients(term: Terms, post: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    return torch.autograd.grad(term.loss(post, prior)[0], (post, prior))


@pytest.mark.parametrize(
    ("term", "to_prior", "to_post"),
    [
        (MixedClipKL(scale=0.5, free=0.0), 0.4, 0.1),
        (AveragedFreeKL(scale=0.5), 0.4, 0.1),
        (EachFreeKL(dyn=0.5, rep=0.1, free=0.0), 0.5, 0.1),
        (EachFreeKL(dyn=0.95, rep=0.05, free=0.0), 0.95, 0.05),
    ],
)
def test_the_gradient_is_split_as_weighted(term: Terms, to_prior: float, to_post: float) -> None:
    post, prior = logits()
    plain = torch.autograd.grad(categorical_kl(post, prior).mean(), (post, prior))
    got = gradients(term, post, prior)
    assert_close(got[0], to_post * plain[0])
    assert_close(got[1], to_prior * plain[1])
    loss, kl = term.loss(post, prior)
    assert_close(kl, categorical_kl(post, prior).mean())
    assert_close(loss, (to_prior + to_post) * kl)


def test_both_terms_have_the_value_of_the_kl() -> None:
    post, prior = logits()
    for kl in kl_pair(post, prior):
        assert_close(kl, categorical_kl(post, prior))


def test_free_bits_of_single_steps_or_of_the_mean() -> None:
    """One step far above, one far below: DreamerV3 leaves the second alone, DreamerV2 neither."""
    post, prior = logits(2, spread=0.01)
    with torch.no_grad():
        post[0] *= 200.0
    each = categorical_kl(post, prior).detach()
    assert each[1] < 0.01 < 2.0 < each.mean()
    for term in (EachFreeKL(free=1.0), MixedClipKL(free=1.0)):
        grad = gradients(term, post, prior)[1]
        assert grad[0].any() and not grad[1].any()
    grad = gradients(AveragedFreeKL(free=1.0), post, prior)[1]
    assert grad[0].any() and grad[1].any()
    grad = gradients(AveragedFreeKL(free=100.0), post, prior)[1]
    assert not grad.any()


def test_mwm_clips_steps_from_above_too() -> None:
    post, prior = logits(2)
    with torch.no_grad():
        post[0] *= 1000.0
        prior[0] *= 1000.0
    grad = gradients(MixedClipKL(clip=100.0), post, prior)[1]
    assert not grad[0].any() and grad[1].any()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MixedClipKL, {"balance": 1.5}),
        (MixedClipKL, {"clip": -1.0}),
        (AveragedFreeKL, {"free": -0.1}),
        (AveragedFreeKL, {"balance": -0.1}),
        (EachFreeKL, {"dyn": float("nan")}),
    ],
)
def test_settings_are_checked(kind: type[Terms], wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        kind(**wrong)
