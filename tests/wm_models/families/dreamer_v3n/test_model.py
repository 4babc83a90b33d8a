"""The model contract, sizes, and what the states must predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3n.v3n_tiny import ACTIONS, TINY, log_rows
from wm_models.errors import ModelError
from wm_models.families.dreamer_v3n.model import redundancy_loss
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import arrival
from wm_models.interface.world_model import WorldModel
from wm_models.registry import PRESETS
from wm_models.testing.contracts import WorldModelContract


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(**changes: object):
    return replace(TINY, model=replace(TINY.model, **changes))


class TestReconstructing(WorldModelContract):
    def make_model(self) -> WorldModel:
        return TINY.build(ACTIONS, seed=1)

    def training(self, model: WorldModel) -> Callable[[], float]:
        learner = TINY.build_learner(model)
        rows = {"agent": log_rows(2, 5)}
        return lambda: learner.update(rows)["wm/image_loss"]


class TestTwoCameras(WorldModelContract):
    preset, loss = TINY, "wm/image_loss"

    def make_model(self) -> WorldModel:
        embodiment = replace(Embodiment.unit(ACTIONS), cameras=("front", "wrist"))
        return self.preset.build(embodiment, seed=1)

    def training(self, model: WorldModel) -> Callable[[], float]:
        learner = self.preset.build_learner(model)
        assert {"image/front", "image/wrist"} < learner.fields and "image" not in learner.fields
        rows = {"agent": log_rows(2, 5, images=model.spec.image_keys)}
        return lambda: learner.update(rows)[self.loss]


class TestTwoCamerasR2(TestTwoCameras):
    preset, loss = tiny(representation="r2"), "wm/r2_loss"


class TestR2(WorldModelContract):
    def make_model(self) -> WorldModel:
        return tiny(representation="r2").build(ACTIONS, seed=1)

    def training(self, model: WorldModel) -> Callable[[], float]:
        learner = tiny(representation="r2").build_learner(model)
        rows = {"agent": log_rows(2, 5)}
        return lambda: learner.update(rows)["wm/r2_loss"]


COUNTS = {  # at 6 actions, without the slow critic
    "dreamer_v3n_1m": 0.69e6,
    "dreamer_v3n": 10.5e6,
    "dreamer_v3n_12m": 10.5e6,
    "dreamer_v3n_25m": 23.5e6,
    "dreamer_v3n_50m": 41.7e6,
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str) -> None:
    with torch.device("meta"):  # shapes are enough
        model = PRESETS[name].build(6)
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(COUNTS[name], rel=0.02)


def test_counts_by_part() -> None:
    with torch.device("meta"):
        model = PRESETS["dreamer_v3n"].build(6)
    parts = {
        "encoder": model.encoder,
        "decoder": model.dynamics.decoder,
        "rssm": model.dynamics.rssm,
        "reward": model.dynamics.reward,
        "continue": model.dynamics.discount,
        "actor": model.actor,
        "critic": model.critic,
    }
    assert {n: sum(p.numel() for p in m.parameters()) for n, m in parts.items()} == {
        "encoder": 220_416,
        "decoder": 1_272_003,
        "rssm": 5_979_648,
        "reward": 721_407,
        "continue": 656_129,
        "actor": 791_052,
        "critic": 853_503,
    }


def test_the_small_preset_stays_small() -> None:
    assert sum(p.numel() for p in PRESETS["dreamer_v3n_cpu"].build(6).parameters()) < 3e6


def test_rewards_and_values_are_exactly_0_at_first() -> None:
    model = TINY.build(ACTIONS, seed=1)
    feat = torch.randn(7, model.config.rssm.feat, generator=seeded())
    assert not model.dynamics.reward.predict(feat).any()
    assert not model.critic.predict(feat).any()


def test_the_policy_at_first_is_wide_and_nearly_without_a_mean() -> None:
    """Standard deviation .9 sigmoid(2) + .1, entropy 1.305 per dimension."""
    model = TINY.build(ACTIONS, seed=1)
    policy = model.actor(torch.randn(7, model.config.rssm.feat, generator=seeded()))
    assert_close(policy.std, torch.full((7, ACTIONS), 0.8927), atol=0.02, rtol=0)
    assert policy.mean.abs().max() < 0.05
    assert_close(policy.entropy() / ACTIONS, torch.full((7,), 1.305), atol=0.02, rtol=0)


def test_actions_stay_in_the_box_though_samples_leave_it() -> None:
    model = TINY.build(ACTIONS, seed=1)
    state = model.initial(200)
    sample = model.actor(state.feat).sample(seeded())
    action = model.act(state, mode=False, generator=seeded())
    assert sample.abs().max() > 1.0
    assert_close(action, sample.clamp(-1.0, 1.0))


def test_actions_outside_the_box_count_as_its_edge() -> None:
    model = TINY.build(ACTIONS, seed=1)
    rssm, start = model.dynamics.rssm, model.initial(2)
    far = torch.tensor([[3.0, -0.5, -7.0], [0.2, 1.5, 0.0]])
    moved = rssm.recur(start, rssm.project_action(far))
    edge = rssm.recur(start, rssm.project_action(far.clamp(-1.0, 1.0)))
    assert_close(moved, edge)


def test_the_continue_head_predicts_the_discount() -> None:
    """Trained to 1 - 1/333 where an episode goes on, so that nothing else discounts."""
    model = TINY.build(ACTIONS, seed=1)
    assert model.dynamics.gamma == model.dynamics.continues_as == 1.0 - 1.0 / 333.0
    feat = torch.randn(7, model.config.rssm.feat, generator=seeded())
    assert_close(model.dynamics.imagined_discount(feat), model.dynamics.discount.predict(feat))


def test_a_state_that_says_all_and_nothing_twice_has_no_redundancy_loss() -> None:
    embedding = torch.linalg.qr(torch.randn(64, 5, generator=seeded()))[0]
    embedding = torch.linalg.qr(embedding - embedding.mean(0))[0]  # without mean, uncorrelated
    exact = (64 - 1) / 64  # of the correlations: deviations divide by N - 1, the mean by N
    got = redundancy_loss(3.0 * embedding + 1.0, embedding, 1.0)
    assert_close(got, torch.tensor(5 * (1 - exact) ** 2), atol=1e-5, rtol=0)
    twice = embedding[:, [0, 0, 2, 3, 4]]  # output 1 says what output 0 says
    worse = redundancy_loss(twice, embedding, 0.5) - redundancy_loss(embedding, embedding, 0.5)
    right = torch.tensor(1 - (1 - exact) ** 2 + 0.5 * exact**2)
    assert_close(worse, right, atol=1e-4, rtol=0)


def test_the_r2_term_gives_the_encoder_no_gradient_of_its_own() -> None:
    model = tiny(representation="r2").build(ACTIONS, seed=1)
    batch = arrival(log_rows(2, 5))
    features = model.features(batch)
    state = model.dynamics.rssm.observe(
        model.initial(2),
        batch["action"],
        model.dynamics.embed(features).detach(),
        batch["is_first"],
        seeded(),
    )[0]
    model.dynamics.target_losses(features, state, batch)["wm/r2_loss"].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.dynamics.projector.weight.grad.abs().sum() > 0
    assert model.dynamics.rssm.gru.weight.grad.abs().sum() > 0


def test_r2_decodes_nothing() -> None:
    model = tiny(representation="r2").build(ACTIONS, seed=1)
    assert not model.spec.has_decoder and not hasattr(model.dynamics, "decoder")
    with pytest.raises(ModelError, match="no decoder"):
        model.decode(model.initial(1))


def test_settings_are_checked() -> None:
    with pytest.raises(ModelError, match="representation: got 'none', expected 'reconstruction'"):
        tiny(representation="none")


@pytest.mark.parametrize("inputs", ["image", "proprio", "both"])
@pytest.mark.parametrize("representation", ["reconstruction", "r2"])
def test_images_and_proprioception_alone_or_together(inputs: str, representation: str) -> None:
    observation = replace(TINY.model.observation, inputs=inputs)
    preset = tiny(observation=observation, representation=representation)
    body = Embodiment(
        (-1.0,) * ACTIONS, (1.0,) * ACTIONS, (0.0,) * ACTIONS, (1.0,) * ACTIONS,
        (0.0,) * 4, (1.0,) * 4,
    )  # fmt: skip
    model = preset.build(body, seed=1)
    metrics = preset.build_learner(model).update({"agent": log_rows(2, 5, proprio=4)})
    seen = {n for n in metrics if n in ("wm/image_loss", "wm/proprio_loss", "wm/r2_loss")}
    each = {"image": {"wm/image_loss"}, "proprio": {"wm/proprio_loss"}}
    both = each | {"both": each["image"] | each["proprio"]}
    assert seen == (both[inputs] if representation == "reconstruction" else {"wm/r2_loss"})
    assert model.spec.has_decoder == (representation == "reconstruction" and inputs != "proprio")


def test_discrete_actions() -> None:
    preset = tiny(actor=replace(TINY.model.actor, kind="onehot"))
    model = preset.build(ACTIONS, seed=1)
    metrics = preset.build_learner(model).update({"agent": log_rows(2, 5, discrete=True)})
    assert metrics["ac/entropy"] == pytest.approx(math.log(3.0), abs=0.01)
    action = model.act(model.initial(5), mode=False, generator=seeded())
    assert_close(action.sum(-1), torch.ones(5))
    assert set(action.round(decimals=5).flatten().tolist()) <= {0.0, 1.0}
