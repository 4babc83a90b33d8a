"""Presets of DreamerV2: parameter counts per module, and published settings."""

from __future__ import annotations

import pytest
from torch import nn

from wm_models.errors import ModelError
from wm_models.registry import PRESETS


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


COUNTS = {  # encoder, decoder, img_in, GRU, prior, posterior, reward, actor, critic, with target
    ("dreamer_v2", 4): (1_551_312, 11_152_275, 1_100_800, 6_300_672, 2_099_200, 3_672_064,
                        1_837_569, 1_841_160, 1_837_569, 33_230_190),
    ("dreamer_v2_large", 4): (1_551_312, 11_152_275, 1_100_800, 6_300_672, 2_099_200, 3_672_064,
                              1_301_201, 1_304_008, 1_301_201, 31_083_934),
    ("dreamer_v2_dmc", 6): (1_551_312, 9_886_611, 206_200, 241_800, 246_024, 553_224,
                            971_601, 976_012, 971_601, 16_575_986),
}  # fmt: skip


@pytest.mark.parametrize(("name", "actions"), COUNTS)
def test_published_counts(name: str, actions: int) -> None:
    model = PRESETS[name].build(actions)
    world, rssm = model.dynamics, model.dynamics.rssm
    found = (
        count(model.encoder),
        count(world.decoder),
        count(rssm.img_in),
        count(rssm.gru, rssm.gru_norm),
        count(rssm.prior),
        count(rssm.post_in, rssm.post_out),
        count(world.reward),
        count(model.actor),
        count(model.critic),
        count(model, model.critic),
    )
    assert found == COUNTS[name, actions]


def test_the_cpu_preset_stays_small() -> None:
    assert count(PRESETS["dreamer_v2_cpu"].build(6)) < 3e6


def test_atari_counts_its_discount_head_and_takes_discrete_actions() -> None:
    model = PRESETS["dreamer_v2_atari"].build(18)
    assert model.actor.config.discrete and model.spec.has_continue
    assert count(model.dynamics.discount) == count(model.dynamics.reward)


@pytest.mark.parametrize(
    ("name", "rates", "batch", "initial", "prefill", "train_every", "ends"),
    [
        ("dreamer_v2", (3e-4, 8e-5, 8e-5), (50, 50), 0, 5000, 5, 50),
        ("dreamer_v2_large", (3e-4, 8e-5, 8e-5), (50, 50), 100, 5000, 5, 50),
        ("dreamer_v2_dmc", (3e-4, 8e-5, 8e-5), (16, 50), 100, 1000, 5, 0),
        ("dreamer_v2_atari", (2e-4, 4e-5, 1e-4), (16, 50), 1, 50_000, 16, 50),
    ],
)
def test_published_settings(name, rates, batch, initial, prefill, train_every, ends) -> None:
    preset = PRESETS[name]
    c, b = preset.learner, preset.learner.behavior
    optimizers = (c.world_model, c.actor, c.critic)
    assert tuple(o.lr for o in optimizers) == rates
    for o in optimizers:
        assert (o.eps, o.epsilon_hat, o.clip, o.decay, o.decay_all) == (1e-5, True, 100, 1e-6, True)
    assert (c.agent_batch.batch, c.agent_batch.length - 1) == batch
    assert (preset.pace.initial, c.prefill, c.train_every) == (initial, prefill, train_every)
    assert (c.sampling.per_episode, c.sampling.ends) == (True, ends)
    assert (b.horizon, b.lam, b.starts, b.reward_norm, b.target_every) == (15, 0.95, 0, 1.0, 100)
    discrete = name.endswith("atari")
    assert (b.actor_grad, b.entropy) == (("reinforce", 1e-3) if discrete else ("dynamics", 1e-4))
    assert preset.model.kl.scale == (0.1 if discrete else 1.0)
    assert preset.model.kl.free == (1.0 if name.endswith("dmc") else 0.0)


def test_too_many_actions_for_the_padding_are_refused() -> None:
    with pytest.raises(ValueError, match="action_pad: got 50, expected 0 or at least the 51"):
        PRESETS["dreamer_v2"].build(51)


def test_settings_are_checked() -> None:
    with pytest.raises(ModelError, match=r"reward: got 'huber', expected 'mse' or"):
        PRESETS["dreamer_v2"].varied({"model.reward": "huber"})
