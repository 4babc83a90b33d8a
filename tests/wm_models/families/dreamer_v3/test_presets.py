"""DreamerV3's presets: parameter counts, settings of the paper, small sizes."""

from __future__ import annotations

import pytest
from torch import nn

from wm_models.nets.distributions import TwoHot
from wm_models.registry import PRESETS


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


def test_counts_of_size_s() -> None:
    """The paper states 17.9 million; six actions, the slow critic is not counted."""
    model = PRESETS["dreamer_v3"].build(6)
    world, rssm = model.dynamics, model.dynamics.rssm
    assert count(model.encoder) == 690_624
    assert count(world.decoder) == 6_985_667
    assert count(rssm.img_in, rssm.img_in_norm) == 528_384
    assert count(rssm.gru, rssm.gru_norm) == 1_575_936
    assert count(rssm.prior) == 788_480
    assert count(rssm.post_in, rssm.post_norm, rssm.post_out) == 2_885_632
    assert rssm.deter_0.numel() == 512
    assert count(world.reward) == 1_181_439
    assert count(world.discount) == 1_051_137
    assert count(model.actor) == 1_056_780
    assert count(model.critic) == 1_181_439
    assert count(model) == 17_926_030


@pytest.mark.parametrize(
    ("name", "count_of"), [("dreamer_v3_cpu", 2_747_358), ("dreamer_v3_cpu_xs", 1_998_062)]
)
def test_cpu_presets_stay_small(name: str, count_of: int) -> None:
    assert count(PRESETS[name].build(6)) == count_of < 3e6


def test_settings_of_the_paper() -> None:
    c, m = PRESETS["dreamer_v3"].learner, PRESETS["dreamer_v3"].model
    assert (c.agent_batch.batch, c.agent_batch.length - 1, c.train_every) == (16, 64, 2)
    assert c.agent_batch.batch * (c.agent_batch.length - 1) / c.train_every == 512
    assert (c.world_model.lr, c.world_model.eps, c.world_model.clip) == (1e-4, 1e-8, 1000)
    for o in (c.actor, c.critic):
        assert (o.lr, o.eps, o.clip) == (3e-5, 1e-5, 100)
    for o in (c.world_model, c.actor, c.critic):
        assert o.decay == 0 and not o.epsilon_hat
    b = c.behavior
    assert (b.horizon, b.starts, b.lam, b.entropy) == (15, 0, 0.95, 3e-4)
    assert (b.target, b.target_rate, b.slow_regularizer) == ("ema", 0.02, 1.0)
    assert b.return_norm and (b.actor_grad, b.returns, b.bootstrap) == (
        "dynamics", "next", "online"
    )  # fmt: skip
    assert (m.gamma, m.kl.dyn, m.kl.rep, m.kl.free) == (0.997, 0.5, 0.1, 1.0)
    assert TwoHot.BINS == 255


def test_atari_has_discrete_actions_and_twice_the_updates() -> None:
    preset = PRESETS["dreamer_v3_atari"]
    c = preset.learner
    assert preset.model.actor.discrete and c.behavior.actor_grad == "reinforce"
    assert c.agent_batch.batch * (c.agent_batch.length - 1) / c.train_every == 1024


def test_small_presets_keep_every_mechanism() -> None:
    """Only sizes, rates and the schedule differ."""
    may = ("cnn.depth", "deter", "hidden", "stoch", "classes", "units", "layers", "lr", "starts",
           "horizon", "batch", "length", "world_model_init", "prefill", "train_every")  # fmt: skip
    from wm_models.interface.overrides import settings_of

    paper = settings_of(PRESETS["dreamer_v3"])
    for name in ("dreamer_v3_cpu", "dreamer_v3_cpu_xs"):
        for key, setting in settings_of(PRESETS[name]).items():
            if not key.endswith(may):
                assert setting.value == paper[key].value, (name, key)
