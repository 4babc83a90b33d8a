"""Heads: scales, initial outputs, and losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.distributions import symexp, symlog
from wm_models.nets.heads import Actor, Critic, HeadConfig, ScalarHead, small_output_

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


def test_output_layers_begin_small() -> None:
    """Uniform, with the variance of the fan average times the scale."""
    layer = nn.Linear(60, 20)
    nn.init.ones_(layer.bias)
    for scale in (0.1, 0.9):
        small_output_(layer, scale)
        bound = (3.0 * scale / 40.0) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.min() < -0.9 * bound and not layer.bias.any()


def test_settings_of_heads_are_checked_at_their_limits() -> None:
    HeadConfig(units=1, layers=1)
    for invalid in ({"units": 0}, {"layers": 0}, {"units": 16385}, {"layers": 2.5}):
        with pytest.raises(ModelError, match=next(iter(invalid))):
            HeadConfig(**invalid)
