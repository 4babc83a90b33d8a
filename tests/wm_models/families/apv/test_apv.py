"""APV: the contract of both phases, what videos teach, what learns when, and every flag."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.wm_models.families.apv.apv_tiny import (
    ACTIONS,
    TINY,
    TINY_CONCAT,
    TINY_VIDEO,
    with_learner,
    with_model,
)
from wm_models.errors import ModelError
from wm_models.families.apv.learner import APVLearner, rewarded
from wm_models.families.apv.presets import APVPreset
from wm_models.families.apv.video import VideoModel, VideoPreset
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import BatchSpec, arrival, without_context
from wm_models.interface.world_model import WorldModel
from wm_models.nets.optimizer import keras_adam
from wm_models.registry import PRESETS
from wm_models.testing.contracts import WorldModelContract, seeded
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore, read_weights

NAIVE = with_model(stack="naive")


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


class TestContract(WorldModelContract):
    preset = TINY

    def make_model(self) -> WorldModel:
        return self.preset.build(ACTIONS, seed=2)


class TestConcat(TestContract):
    preset = TINY_CONCAT


class TestNaive(TestContract):
    preset = NAIVE


class TestVideo(TestContract):
    preset = TINY_VIDEO

    def training(self, model: WorldModel) -> Callable[[], float]:
        fast = replace(TINY_VIDEO.learner, optimizer=keras_adam(3e-3))
        preset = replace(TINY_VIDEO, learner=fast)
        learner = preset.build_learner(model)
        frames = torch.full((2, 3, 64, 64, 3), 220, dtype=torch.uint8)
        batch = {"videos": {"image": frames, "is_first": torch.zeros(2, 3).bool()}}
        return lambda: learner.update(batch)["wm/image_loss"]

    def test_actions_change_nothing(self, model: WorldModel) -> None:
        state = self.lived(model, 2)
        results = [
            model.step(state, torch.full((2, ACTIONS), a), generator=seeded()).feat
            for a in (-1.0, 1.0)
        ]
        assert results[0].equal(results[1])


# Sizes --------------------------------------------------------------------------------------------


def test_published_counts() -> None:
    model = PRESETS["apv"].build(4)
    world = model.dynamics
    for rssm in (world.af_rssm, world.rssm):
        assert count(rssm.img_in) == 1_100_800
        assert count(rssm.gru, rssm.gru_norm) == 6_300_672
        assert count(rssm.prior) == 2_099_200
    assert count(world.af_rssm.post_in, world.af_rssm.post_out) == 3_672_064
    assert count(world.rssm.post_in, world.rssm.post_out) == 4_196_352
    assert count(model, model.critic) == 44_780_958  # with the slow critic
    dmc = PRESETS["apv_dmc"].build(6).dynamics.rssm
    assert count(dmc.post_in, dmc.post_out) == 5_769_216


def test_cpu_presets_stay_small_and_fit_each_other() -> None:
    apv, video = PRESETS["apv_cpu"], PRESETS["apv_cpu_pretrain"]
    assert count(apv.build(4)) < 3e6
    assert (apv.model.observation, apv.model.rssm) == (video.model.observation, video.model.rssm)


def test_published_settings() -> None:
    meta_world, dmc, video = (PRESETS[n] for n in ("apv", "apv_dmc", "apv_pretrain"))
    for preset, batch, scale, hold, prefill in (
        (meta_world, 50, 1.0, 100, 5000),
        (dmc, 16, 0.1, 0, 1000),
    ):
        c = preset.learner
        assert (c.agent_batch, preset.pace.initial) == (BatchSpec(batch, 51), 100)
        assert (c.bonus.scale, c.bonus.window, c.bonus.neighbours) == (scale, 5, 16)
        assert (c.bonus.queue, c.bonus.width) == (4096, 128)
        assert (c.pretrained_parts.lr, c.pretrained_parts.hold) == (3e-4, hold)
        assert (c.prefill, preset.model.af_kl_scale) == (prefill, 0.0)
    assert (video.learner.batch, video.model.kl.scale) == (BatchSpec(16, 25), 0.1)
    assert (meta_world.model.kl.free, dmc.model.kl.free) == (0.0, 1.0)
    assert (meta_world.model.concat_embed, dmc.model.concat_embed) == (False, True)


# From videos to fine-tuning -----------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, VideoModel]:
    """A store with weights of a tiny model of videos, and the model."""
    monkeypatch.setitem(PRESETS, TINY_VIDEO.name, TINY_VIDEO)
    return stored(tmp_path / "videos", TINY_VIDEO)


def stored(folder: Path, preset: VideoPreset | APVPreset) -> tuple[Path, WorldModel]:
    model = preset.build(1, seed=7)
    manifest = Manifest(
        version=3, step=600, preset=preset.name, action_dim=1, body=Embodiment.unit(1).to_json()
    )
    WeightStore(folder).save(model.modules_by_name(), manifest)
    return folder, model


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(x.shape == y.shape and x.equal(y) for x, y in pairs)


PARTS = ("encoder", "decoder", "af_rssm")


@pytest.mark.parametrize("load", [PARTS, ("encoder", "decoder"), ("af_rssm",)])
def test_fine_tuning_begins_with_what_videos_taught(weights, load: tuple[str, ...]) -> None:
    folder, video = weights
    preset = with_learner(pretrained=str(folder), load=load)
    model, fresh = preset.build(ACTIONS, seed=1), preset.build(ACTIONS, seed=1)
    facts = preset.pretrain(model, read_weights)["pretrained"]
    assert (facts["preset"], facts["step"], facts["parts"]) == ("apv_pretrain", 600, list(load))
    for part, mine, taught, new in (
        ("encoder", model.encoder, video.encoder, fresh.encoder),
        ("decoder", model.dynamics.decoder, video.dynamics.decoder, fresh.dynamics.decoder),
        ("af_rssm", model.dynamics.af_rssm, video.dynamics.rssm, fresh.dynamics.af_rssm),
    ):
        assert equal(mine, taught if part in load else new), part
    for part in ("rssm", "reward"):
        assert equal(getattr(model.dynamics, part), getattr(fresh.dynamics, part)), part
    assert equal(model.actor, fresh.actor) and equal(model.critic, fresh.critic)


def test_without_pre_training_nothing_is_loaded() -> None:
    model = TINY.build(ACTIONS, seed=1)
    assert TINY.pretrain(model, read_weights) == {}
    assert equal(model, TINY.build(ACTIONS, seed=1))


def test_the_naive_stack_keeps_fresh_weights_on_actions_alone(weights) -> None:
    folder, video = weights
    preset = replace(NAIVE, learner=replace(NAIVE.learner, pretrained=str(folder)))
    model, fresh = preset.build(ACTIONS, seed=1), preset.build(ACTIONS, seed=1)
    preset.pretrain(model, read_weights)
    mine, taught, new = (m.dynamics.rssm for m in (model, video, fresh))
    latent = mine.config.stoch * mine.config.classes
    assert mine.img_in.weight[:, :latent].equal(taught.img_in.weight[:, :latent])
    assert mine.img_in.weight[:, latent:].equal(new.img_in.weight[:, latent:])
    assert equal(mine.prior, taught.prior) and equal(mine.post_in, taught.post_in)


def test_other_weights_are_refused(weights, tmp_path: Path, monkeypatch) -> None:
    folder, _ = weights
    other = replace(TINY, model=replace(TINY.model, rssm=replace(TINY.model.rssm, deter=8)),
                    learner=replace(TINY.learner, pretrained=str(folder)))  # fmt: skip
    with pytest.raises(ModelError, match="expected encoder and RSSM of the sizes of 'apv'"):
        other.pretrain(other.build(ACTIONS), read_weights)
    monkeypatch.setitem(PRESETS, TINY.name, TINY)
    folder, _ = stored(tmp_path / "robot", TINY)
    preset = with_learner(pretrained=str(folder))
    with pytest.raises(ModelError, match="weights of 'apv', expected those of a pre-training"):
        preset.pretrain(preset.build(ACTIONS), read_weights)


def test_pre_training_sees_images_alone(rows) -> None:
    learner = TINY_VIDEO.build_learner(TINY_VIDEO.build(ACTIONS, seed=1))
    assert learner.fields == {"image", "is_first"}
    batch = {k: v for k, v in rows(2, 6, 64).items() if k in learner.fields}
    other = copy.deepcopy(learner)
    for seed in (0, 1):
        learner.update({"videos": batch})
        if not seed:
            file = io.BytesIO()
            saved = {"model": learner.model.state_dict(), "learner": learner.state_dict()}
            torch.save(saved, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other.model.load_state_dict(saved["model"])
    other.load_state_dict(saved["learner"])
    other.update({"videos": batch})
    assert equal(learner.model, other.model) and other.updates == 2


# What learns --------------------------------------------------------------------------------------


def moved(learner: APVLearner, update: Callable[[], object]) -> set[str]:
    world = learner.model.dynamics
    parts = {"encoder": learner.model.encoder, **dict(world.named_children())}
    parts |= {"actor": learner.model.actor, "critic": learner.model.critic}
    before = copy.deepcopy(parts)
    update()
    return {name for name, part in parts.items() if not equal(part, before[name])}


EVERYTHING = {"encoder", "af_rssm", "rssm", "decoder", "reward", "actor", "critic"}


def still(preset: APVPreset) -> APVPreset:
    """Without weight decay, which moves what a learning rate of 0 holds still."""
    parts = replace(preset.learner.pretrained_parts, decay=0.0)
    return replace(preset, learner=replace(preset.learner, pretrained_parts=parts))


def test_pre_trained_parts_hold_still_at_first(rows) -> None:
    preset = still(TINY)
    learner = preset.build_learner(preset.build(ACTIONS, seed=1))
    found = [moved(learner, lambda: learner.update({"agent": rows(2, 7, 64)})) for _ in range(3)]
    assert found == [EVERYTHING - {"encoder", "af_rssm"}] * 2 + [EVERYTHING]


def test_frozen_parts_never_change(rows) -> None:
    preset = with_learner(af_frozen=True, pretrained_parts=keras_adam(3e-4))
    learner = preset.build_learner(preset.build(ACTIONS, seed=1))
    assert "enc" not in learner.optimizers
    for _ in range(2):
        found = moved(learner, lambda: learner.update({"agent": rows(2, 7, 64)}))
        assert found == EVERYTHING - {"encoder", "af_rssm"}
    with pytest.raises(ModelError, match="af_frozen: got True, expected False with stack 'naive'"):
        frozen = replace(NAIVE, learner=replace(NAIVE.learner, af_frozen=True))
        frozen.build_learner(frozen.build(ACTIONS))


def batch_of(learner: APVLearner, rows: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    return without_context(learner.prepare(rows(2, 7, 64)), keep_resets=True)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_image_and_reward_teach_the_action_free_rssm_its_kl_only_with_a_weight(
    rows, scale: float
) -> None:
    preset = with_model(af_kl_scale=scale)
    learner = preset.build_learner(preset.build(ACTIONS, seed=1))
    learner.update_world_model(batch_of(learner, rows))
    rssm = learner.model.dynamics.af_rssm
    assert rssm.gru.weight.grad.abs().sum() > 0
    assert learner.model.encoder.cnn.net[0].weight.grad.abs().sum() > 0
    assert bool(rssm.prior[0].weight.grad.abs().sum() > 0) == bool(scale)


def test_imagination_leaves_the_action_free_state_alone() -> None:
    model = TINY.build(ACTIONS, seed=1)
    obs = {"image": torch.rand(2, 3, 64, 64, generator=seeded())}
    state = model.observe(
        model.initial(2), torch.zeros(2, ACTIONS), obs, torch.ones(2).bool(), generator=seeded()
    )
    after = model.step(state, torch.ones(2, ACTIONS), generator=seeded())
    assert after.free is state.free and not after.feat.equal(state.feat)


def test_the_embedding_reaches_the_second_rssm_only_if_asked() -> None:
    for preset, width in ((TINY, 24), (TINY_CONCAT, 64 + 24)):
        world = preset.build(ACTIONS).dynamics
        assert world.rssm.post_in.in_features == 12 + width


def test_stepwise_filtering_equals_the_training_pass(rows) -> None:
    """One row: the noise of a window is drawn at once, that of steps one by one."""
    model, batch = TINY_CONCAT.build(ACTIONS, seed=1), arrival(rows(1, 1, 64))
    with torch.no_grad():
        features, generator = model.features(batch), seeded()
        stage = model.dynamics.stage(features, batch["is_first"], generator)
        _, post, _ = model.dynamics.loss(stage.inputs, batch, generator)
        obs = {"image": batch["image"][:, 0]}
        state = model.observe(
            model.initial(1), batch["action"][:, 0], obs, batch["is_first"][:, 0],
            generator=seeded(),
        )  # fmt: skip
    assert_close(state.free.feat, stage.feat[:, 0])
    assert_close(state.feat, post.feat[:, 0])


# The bonus in the learner -------------------------------------------------------------------------


def test_rewards_get_the_bonus_as_far_as_it_reaches() -> None:
    batch = {"reward": torch.ones(2, 6), "reward_known": torch.ones(2, 6).bool()}
    out = rewarded(batch, torch.full((2, 4), 0.5))
    assert out["reward"].tolist() == [[1.5] * 4 + [1.0] * 2] * 2
    assert out["reward_known"].tolist() == [[True] * 4 + [False] * 2] * 2
    assert batch["reward"].equal(torch.ones(2, 6)) and batch["reward_known"].all()


@pytest.mark.parametrize("window", [1, 3, 6])
def test_every_window_trains(rows, window: int) -> None:
    preset = with_learner(bonus=replace(TINY.learner.bonus, window=window))
    learner = preset.build_learner(preset.build(ACTIONS, seed=1))
    metrics = learner.update({"agent": rows(2, 7, 64)})
    assert metrics["wm/bonus"] > 0 or window == 6
    assert int(learner.bonus.filled) == min(2 * (6 - window + 1), 14)


def test_a_window_longer_than_the_batch_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got .*, expected windows of 8 rows or more"):
        with_learner(bonus=replace(TINY.learner.bonus, window=7))


@pytest.mark.parametrize("preset", [TINY, NAIVE])
def test_without_a_bonus_every_reward_is_learned(rows, preset: APVPreset) -> None:
    off = replace(
        preset, learner=replace(preset.learner, bonus=replace(preset.learner.bonus, scale=0.0))
    )
    for each, there in ((preset, True), (off, False)):
        learner = each.build_learner(each.build(ACTIONS, seed=1))
        assert (learner.bonus is not None) == there
        metrics = learner.update({"agent": rows(2, 7, 64)})
        assert ("wm/bonus" in metrics) == there and ("enc/grad_norm" in metrics)


@pytest.mark.parametrize("field", ["reward", "action"])
def test_a_batch_that_is_not_finite_changes_nothing(rows, field: str) -> None:
    learner = TINY.build_learner(TINY.build(ACTIONS, seed=1))
    learner.update({"agent": rows(2, 7, 64)})
    before, bonus = copy.deepcopy(learner.model), copy.deepcopy(learner.bonus.state_dict())
    bad = rows(2, 7, 64)
    bad[field][:, 1] = float("nan")
    with pytest.raises(FloatingPointError, match="training diverged"):
        learner.update({"agent": bad})
    assert equal(learner.model, before)
    assert all(v.equal(bonus[k]) for k, v in learner.bonus.state_dict().items())


def test_training_resumes_exactly(rows) -> None:
    learner = TINY.build_learner(TINY.build(ACTIONS, seed=1), seed=5)
    learner.update({"agent": rows(2, 7, 64, 0)})
    file = io.BytesIO()
    torch.save({"model": learner.model.state_dict(), "learner": learner.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = TINY.build_learner(TINY.build(ACTIONS, seed=9), seed=0)
    other.model.load_state_dict(saved["model"])
    other.load_state_dict(saved["learner"])
    for each in (learner, other):
        each.update({"agent": rows(2, 7, 64, 1)})
    assert equal(learner.model, other.model)
    assert learner.bonus.queue.equal(other.bonus.queue)


def test_settings_are_checked() -> None:
    with pytest.raises(ModelError, match="concat_embed: got True, expected False with stack"):
        with_model(stack="naive", concat_embed=True)
    with pytest.raises(ModelError, match=r"load: got \('actor',\), expected some of encoder"):
        with_learner(load=("actor",))
    with pytest.raises(ModelError, match="posterior_norm: got 'batch', expected 'same'"):
        TINY_VIDEO.varied({"model.rssm.posterior_norm": "batch"})
    changed = TINY.varied({"learner.load": "encoder,decoder", "learner.pretrained": "/runs/a"})
    assert changed.learner.load == ("encoder", "decoder")
    assert changed.learner.pretrained == "/runs/a"


def test_the_world_model_steps_before_behaviour() -> None:
    """One step of all parts would leave out the action-free RSSM and the bonus."""
    with pytest.raises(ModelError, match=r"APVLearnerConfig\.joint: got True"):
        with_learner(joint=True)
