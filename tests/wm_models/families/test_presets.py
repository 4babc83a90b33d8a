"""Presets: parameter counts per module, and errors that help."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from wm_models.errors import ModelError
from wm_models.families.mwm.autoencoder import AutoencoderConfig, MaskedAutoencoder
from wm_models.families.mwm.presets import MWM_PUBLISHED, MWM_SMALL
from wm_models.interface.embodiment import Embodiment
from wm_models.planners import CEM, GD, GoalCost, ReturnCost, planner
from wm_models.registry import (
    ENTRIES,
    PRESETS,
    preset,
    refusal_of_cameras,
    takes_discrete,
    takes_several_cameras,
)


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


def test_published_counts(paper) -> None:
    ae, wm = paper.autoencoder, paper.dynamics
    rssm = wm.rssm
    assert count(ae.stem) == 198_624
    assert count(ae.encoder) + ae.cls.numel() == 3_159_808
    decoder = (ae.embed, ae.decoder, ae.to_pixels, ae.to_reward)
    assert count(*decoder) + ae.mask_token.numel() == 2_485_377
    assert count(ae) == 5_843_809
    assert count(wm.encoder) == 429_696
    assert count(wm.decoder) == 692_224
    assert count(rssm.img_in) == 1_100_800
    assert count(rssm.gru, rssm.gru_norm) == 6_300_672
    assert count(rssm.prior) == 2_099_200
    assert count(rssm.post_in, rssm.post_out) == 2_230_272
    assert count(wm.reward) == 1_837_569
    assert count(wm) == 14_690_433
    assert count(paper.actor) == 1_841_160
    assert count(paper.critic) == 1_837_569
    assert count(paper) + count(paper.critic) == 26_050_540  # with the slow critic


@pytest.mark.parametrize(("source", "size"), [("token", 2_485_441), ("last_patch", 2_485_377)])
def test_the_decoder_of_paper_and_release(source: str, size: int) -> None:
    """The reward comes from 256 features of the reward token, or from 192 predicted pixels."""
    ae = MaskedAutoencoder(AutoencoderConfig(reward_from=source))
    decoder = (ae.embed, ae.decoder, ae.to_pixels, ae.to_reward)
    assert count(*decoder) + ae.mask_token.numel() == size


def test_published_presets_are_as_released_small_ones_as_their_weights() -> None:
    for published in MWM_PUBLISHED:
        assert published.model.autoencoder.reward_from == "last_patch"
        assert published.learner.behavior.sample_gradient == "released"
    for small in MWM_SMALL:
        assert small.model.autoencoder.reward_from == "token"
    for c in (p.learner for p in (*MWM_PUBLISHED, *MWM_SMALL)):
        assert all(o.epsilon_hat for o in (c.autoencoder, c.world_model, c.actor, c.critic))


def test_counts_of_variants() -> None:
    assert count(MaskedAutoencoder(AutoencoderConfig(stem="patch")).stem) == 49_408
    rlbench = PRESETS["mwm_rlbench"].build(8).dynamics
    assert count(rlbench) == 14_690_433 + 1_837_569


@pytest.mark.parametrize("name", [name for name in PRESETS if not PRESETS[name].discrete])
def test_a_continuous_model_is_not_built_for_discrete_actions(name: str) -> None:
    with pytest.raises(ModelError, match=f"model: got '{name}'.*continuous actions only"):
        PRESETS[name].build(Embodiment.one_hot(3))


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].discrete])
def test_a_discrete_model_is_not_built_for_continuous_actions(name: str) -> None:
    with pytest.raises(ModelError, match=f"model: got '{name}'.*discrete actions only"):
        PRESETS[name].build(Embodiment.unit(3))


@pytest.mark.parametrize("name", ENTRIES)
def test_the_registry_knows_the_kind_of_actions_without_loading_a_family(name: str) -> None:
    assert takes_discrete(name) == PRESETS[name].discrete


@pytest.mark.parametrize("name", ENTRIES)
def test_the_registry_knows_which_models_see_several_cameras(name: str) -> None:
    able = PRESETS[name].several_cameras
    assert takes_several_cameras(name) == able
    assert bool(refusal_of_cameras(name, ("front", "wrist"))) != able
    assert not refusal_of_cameras(name, ("front",))


@pytest.mark.parametrize(
    "name", ["dreamer_v2_cpu", "dreamer_v3_cpu", "dreamer_v3n_cpu", "mudreamer_cpu"]
)
def test_only_the_first_and_last_convolutions_depend_on_the_cameras(name: str) -> None:
    one = PRESETS[name].build(Embodiment.unit(3))
    two = PRESETS[name].build(replace(Embodiment.unit(3), cameras=("front", "wrist")))
    assert two.spec.cameras == ("front", "wrist") and one.spec.cameras == ()
    assert two.spec.image_size == one.spec.image_size
    shapes = zip(one.named_parameters(), two.named_parameters(), strict=True)
    differing = [key for (key, a), (_, b) in shapes if a.shape != b.shape]
    decodes = 2 if two.spec.has_decoder else 0  # weights and bias
    assert len(differing) == 1 + decodes, differing


@pytest.mark.parametrize("name", ["mwm_cpu", "apv_cpu", "apv_cpu_pretrain", "dino_wm_cpu"])
def test_a_model_of_one_camera_is_not_built_for_two(name: str) -> None:
    kind = replace(Embodiment.unit(3), cameras=("front", "wrist"))
    with pytest.raises(ModelError, match=f"camera: got front, wrist for model '{name}'"):
        PRESETS[name].build(kind)


def test_a_discrete_model_acts_with_one_hot_vectors() -> None:
    model = PRESETS["dreamer_v3_cpu_discrete"].build(Embodiment.one_hot(3), seed=1)
    assert model.spec.discrete and (model.spec.action_low[0], model.spec.action_high[0]) == (0, 1)
    action = model.act(model.initial(5), mode=False, generator=torch.Generator().manual_seed(0))
    assert set(action.unique().tolist()) == {0.0, 1.0} and action.sum(-1).eq(1).all()


def test_cpu_preset_stays_small() -> None:
    assert count(PRESETS["mwm_cpu"].build(4)) < 3e6


@pytest.mark.parametrize("name", PRESETS)
def test_equal_seeds_give_equal_weights(name: str) -> None:
    if not name.endswith("_cpu"):
        pytest.skip("the same code, larger")
    a, b, c = (PRESETS[name].build(4, seed=s) for s in (3, 3, 4))
    same = [x.equal(y) for x, y in zip(a.parameters(), b.parameters(), strict=True)]
    assert all(same)
    assert not all(x.equal(y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_schedule_of_the_published_preset() -> None:
    c = PRESETS["mwm"].learner
    assert (c.agent_batch.batch, c.agent_batch.length - 1) == (50, 50)
    assert c.autoencoder_batch.batch * (c.autoencoder_batch.length - 1) == 1024
    assert (c.autoencoder_init, c.prefill, c.train_every) == (5000, 5000, 5)
    assert (c.behavior.horizon, c.behavior.starts, c.behavior.lam) == (15, 0, 0.95)


def test_dino_wm_repo_plans_as_released() -> None:
    """conf/planner/{cem,gd}.yaml and conf/plan.yaml; the MPC's n_taken_actions is goal_H = 5."""
    planning = PRESETS["dino_wm_repo"].planning
    cem, gd = (planner(name, **planning.planners[name]) for name in ("cem", "gd"))
    assert cem == CEM(
        horizon=5, samples=300, elites=30, iterations=10, sigma0=1.0, sigma_min=0.0,
        momentum_mean=0.0, momentum_std=0.0, clip=False, output="last",
    )  # fmt: skip
    assert gd == GD(
        horizon=5, steps=1000, lr=1.0, optimiser="sgd", noise=0.003, init=1.0, restarts=1,
        from_warm=False, clip=False, output="last",
    )  # fmt: skip
    assert (planning.objective, planning.execute) == ("last", 25)
    ours = PRESETS["dino_wm"].planning
    assert (ours.objective, ours.execute) == ("all", 0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_s_planner_settings_are_accepted(name: str) -> None:
    planning = PRESETS[name].planning
    for kind, options in planning.planners.items():
        assert planner(kind, **options).horizon >= 1
    GoalCost(reduce=planning.objective)
    assert 0.9 < ReturnCost(planning.gamma, planning.use_value).gamma < 1.0


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"one of mwm, .*'mwm_cpu'\?"):
        preset("mwm_cpus")
