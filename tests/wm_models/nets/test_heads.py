"""Heads: scales, initial outputs, and losses."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.distributions import ClippedNormal, OneHot, TwoHot, symexp, symlog
from wm_models.nets.heads import FORMS, Actor, ActorConfig, Critic, HeadConfig, ScalarHead

SMALL = HeadConfig(units=16, layers=2)


def test_symlog_head_has_zero_loss_at_its_prediction() -> None:
    torch.manual_seed(0)
    head = ScalarHead(4, SMALL, "symlog")
    feat, target = torch.randn(5, 4), torch.tensor([0.0, 1.0, 10.0, -3.0, 20.0])
    assert_close(head.loss(feat, target), (head(feat) - symlog(target)).square())
    assert_close(head.predict(feat), symexp(head(feat)))
    exact = symexp(head(feat)).detach()
    assert_close(head.loss(feat, exact), torch.zeros(5), atol=1e-6, rtol=0)


def test_plain_head_has_no_half() -> None:
    torch.manual_seed(0)
    head = ScalarHead(4, SMALL)
    feat = torch.randn(5, 4)
    assert_close(head.loss(feat, head(feat).detach() + 2.0), torch.full((5,), 4.0))


@pytest.mark.parametrize("form", FORMS)
def test_losses_of_several_targets_are_those_of_each(form: str) -> None:
    torch.manual_seed(0)
    head = ScalarHead(4, SMALL, form, output_scale=1.0)
    feat, targets = torch.randn(5, 4), torch.rand(2, 5)
    together = head.losses(feat, *targets)
    assert_close(together, [head.loss(feat, target) for target in targets])
    assert not torch.allclose(*together)


def test_critic_predicts_in_the_scale_of_rewards() -> None:
    critic = Critic(4, SMALL)
    feat = torch.randn(5, 4)
    critic.scale.fill_(3.0)
    assert_close(critic.predict(feat), 3.0 * critic(feat))
    assert "scale" in critic.state_dict()  # saved with the weights


def test_actor_at_the_start() -> None:
    torch.manual_seed(0)
    actor = Actor(8, 4, HeadConfig())
    with torch.no_grad():
        policy = actor(torch.zeros(1, 8))
    assert_close(policy.mean, torch.zeros(1, 4))
    assert_close(policy.std, torch.full((1, 4), 0.55))
    assert_close(policy.entropy() / 4, torch.tensor([0.600]), atol=1e-3, rtol=0)


def test_actor_std_has_a_floor_and_a_ceiling() -> None:
    torch.manual_seed(0)
    actor = Actor(8, 2, SMALL)
    with torch.no_grad():
        actor.std.bias.copy_(torch.tensor([-50.0, 50.0]))
        policy = actor(torch.randn(3, 8))
    assert_close(policy.std, torch.tensor([0.1, 1.0]).expand(3, 2))


def test_settings_of_heads_are_checked_at_their_limits() -> None:
    HeadConfig(units=1, layers=1)
    for invalid in ({"units": 0}, {"layers": 0}, {"units": 16385}, {"layers": 2.5}):
        with pytest.raises(ModelError, match=next(iter(invalid))):
            HeadConfig(**invalid)


V3 = HeadConfig(units=16, layers=2, act="silu", norm="layer", init="truncated_normal")


def test_forms_of_a_number() -> None:
    torch.manual_seed(0)
    feat, target = torch.randn(5, 4), torch.tensor([0.0, 1.0, 10.0, -3.0, 20.0])
    half, plain = ScalarHead(4, SMALL, "half_mse"), ScalarHead(4, SMALL, "mse")
    half.load_state_dict(plain.state_dict())
    assert_close(2.0 * half.loss(feat, target), plain.loss(feat, target))
    chance = ScalarHead(4, SMALL, "bernoulli")
    soft = torch.tensor([0.0, 1.0, 0.99, 0.5, 1.0])
    expected = -(soft * chance.predict(feat).log() + (1 - soft) * (1 - chance.predict(feat)).log())
    assert_close(chance.loss(feat, soft), expected)
    bins = ScalarHead(4, SMALL, "twohot")
    assert bins(feat).shape == (5, TwoHot.BINS)
    assert_close(bins.predict(feat), TwoHot(bins(feat)).mean())
    with pytest.raises(ValueError, match="form: got 'huber', expected one of mse, half_mse"):
        ScalarHead(4, SMALL, "huber")


def test_a_head_with_no_output_scale_begins_at_zero() -> None:
    torch.manual_seed(0)
    feat = torch.randn(5, 4)
    head = ScalarHead(4, V3, "twohot", output_scale=0.0)
    assert_close(head.predict(feat), torch.zeros(5), atol=1e-4, rtol=0)
    assert_close(head.loss(feat, torch.full((5,), 3.0)), torch.full((5,), 5.541), atol=1e-3, rtol=0)


def test_actors_of_other_kinds() -> None:
    torch.manual_seed(0)
    feat = torch.randn(7, 8)
    v3 = Actor(8, 2, V3, ActorConfig("clipped_normal", std_shift=2.0, output_scale=1.0))
    with torch.no_grad():
        v3.std.weight.zero_()
    policy = v3(feat)
    assert isinstance(policy, ClippedNormal)
    assert_close(policy.std, torch.full((7, 2), 0.893), atol=1e-3, rtol=0)
    v2 = Actor(8, 2, SMALL, ActorConfig(std_span=2.0, std_slope=0.5))
    with torch.no_grad():
        v2.std.weight.zero_()
        assert_close(v2(feat).std, torch.full((7, 2), 1.1))
    discrete = Actor(8, 3, V3, ActorConfig("onehot", unimix=0.5))
    with torch.no_grad():
        discrete.mean.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    chosen = discrete(feat)
    assert isinstance(chosen, OneHot) and discrete.std is None
    assert_close(chosen.log_p.exp()[0], torch.tensor([2 / 3, 1 / 6, 1 / 6]))
    with pytest.raises(ModelError, match="kind"):
        ActorConfig("beta")
