"""DINO-WM's learner: parameters of each loss, exact resuming, and cached features."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.tensors import assert_same_tensors
from tests.wm_models.families.dino_wm.dino_tiny import EMBODIMENT, TINY, build, rows
from wm_models.encoders.feature_cache import BLOCK, FeatureCache
from wm_models.errors import ModelError
from wm_models.families.dino_wm.learner import DinoLearner, DinoLearnerConfig
from wm_models.families.dino_wm.model import DinoWorldModel
from wm_models.families.dino_wm.scale import TokenScale
from wm_models.families.dino_wm.tokens import TokenConfig

F = TINY.model.frameskip


def batches(learner: DinoLearner, seed: int) -> dict[str, dict[str, Tensor]]:
    return {n: rows(s.batch, s.length, seed) for n, s in learner.batch_specs.items()}


def run(learner: DinoLearner, first: int, last: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for seed in range(first, last):
        metrics = learner.update(batches(learner, seed))
    return metrics


def weights(model: DinoWorldModel) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """The parts of the model whose weights differ."""
    names = (k for k in before if not torch.equal(before[k], after[k]))
    return {".".join(k.split(".")[:2]) if k[0] == "e" else k.split(".")[0] for k in names}


def test_each_phase_changes_its_own_parts_only() -> None:
    model = build()
    learner = TINY.build_learner(model)
    assert learner.phase == "encoder" and learner.initial_updates == 3
    start = weights(model)
    run(learner, 0, 2)
    encoder_trained = weights(model)
    assert changed(start, encoder_trained) == {"encoder.picture", "decoder"}
    assert learner.phase == "scale"
    run(learner, 2, 3)
    scaled = weights(model)
    assert changed(encoder_trained, scaled) == {"encoder.scale"}
    assert learner.phase == "world_model"
    run(learner, 3, 4)
    predicted = weights(model)
    # proprioception's embedding is fixed
    assert changed(scaled, predicted) == {"dynamics", "probe"}
    run(learner, 4, 5)  # the decoder's turn
    assert changed(predicted, weights(model)) == {"dynamics", "decoder", "probe"}


def test_the_embedding_of_proprioception_is_trained_where_it_is_not_fixed() -> None:
    model = build(tokens=TokenConfig())
    learner = TINY.build_learner(model)
    learner.begin_with(3)
    start = weights(model)
    run(learner, 3, 4)
    assert "encoder.proprio" in changed(start, weights(model))
    assert "encoder.picture" not in changed(start, weights(model))


def losses(model: DinoWorldModel, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Visual tokens, proprioception and actions of a window."""
    batch = rows(2, 7, seed)
    with torch.no_grad():
        visual = model.encoder.visual(batch["image"][:, ::F].flatten(0, 1)).unflatten(0, (2, 4))
    action = batch["action"][:, :-1].unflatten(1, (3, F)).flatten(-2)
    return visual, batch["proprio"][:, ::F], action


def test_losses_of_decoder_and_probe_train_only_decoder_and_probe() -> None:
    model = build()
    learner = TINY.build_learner(model)
    visual, proprio, _ = losses(model)
    model.zero_grad()
    visual.requires_grad_()
    images = rows(2, 7)["image"][:, ::F]
    learner._update_decoder(visual, images)
    learner._update_probe(images, proprio)
    assert visual.grad is None
    reached = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None}
    assert reached == {"decoder", "probe"}


@pytest.mark.parametrize("concat_dim", [0, 1])
def test_the_loss_ignores_the_actions_of_its_targets(concat_dim: int) -> None:
    """The action at a window's last frame is not read; the tokens of predicted actions do not
    enter the loss."""
    model = build(tokens=replace(TINY.model.tokens, concat_dim=concat_dim)).eval()
    learner = TINY.build_learner(model)
    model.eval()
    visual, proprio, action = losses(model)
    loss, _ = learner.loss(visual, proprio, action)
    embedded = model.encoder.proprio(proprio)  # type: ignore[misc]
    observed = model.layout.observe(visual, embedded)
    tokens = model.dynamics.predictor(model.tokens(observed[:, :-1], action))
    rows_, width = model.layout.observed
    error = tokens[..., :rows_, :width] - observed[:, 1:]
    assert_close(loss, error.square().mean())
    altered = tokens.clone()
    if concat_dim:
        altered[..., width:] = 1e3
    else:
        altered[..., rows_:, :] = 1e3
    assert torch.equal(model.layout.without_action(altered), model.layout.without_action(tokens))


def test_actions_of_one_model_step_are_those_after_its_frame() -> None:
    """A model step takes the actions of the rows from its frame to the next."""
    model, batch = build(), rows(4, 7)
    learner = TINY.build_learner(model)
    learner.begin_with(3)
    actions: list[Tensor] = []
    model.tokens = lambda observed, action: (  # type: ignore[method-assign]
        actions.append(action),
        DinoWorldModel.tokens(model, observed, action),
    )[1]
    learner.update({"windows": batch})
    for t in range(3):
        expected_value = torch.cat([batch["action"][:, t * F + i] for i in range(F)], -1)
        assert torch.equal(actions[0][:, t], expected_value)


def test_an_update_is_a_function_of_its_arguments() -> None:
    uninterrupted = TINY.build_learner(build())
    metrics = run(uninterrupted, 0, 6)
    interrupted = TINY.build_learner(build())
    run(interrupted, 0, 3)
    model = build(seed=9)
    model.load_state_dict(interrupted.model.state_dict())
    resumed = TINY.build_learner(model, seed=5)
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    torch.rand(3)  # the global generator has no influence
    assert run(resumed, 3, 6) == metrics
    ours, theirs = weights(uninterrupted.model), weights(model)
    assert_same_tensors(ours, theirs)


def test_the_global_generator_is_not_used() -> None:
    learner = TINY.build_learner(build())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(learner, 0, 4)
    assert torch.equal(torch.rand(4), expected)


def test_overfits_a_small_batch() -> None:
    learner = TINY.build_learner(build(residual=True))
    run(learner, 0, 3)
    windows = {"windows": rows(4, 7)}
    metrics = [learner.update(windows) for _ in range(120)]
    assert metrics[-1]["wm/loss"] < 0.7 * metrics[0]["wm/still_loss"]
    assert metrics[-1]["decoder/pixel_loss"] < metrics[1]["decoder/pixel_loss"]
    assert metrics[-1]["probe/loss"] < metrics[1]["probe/loss"]


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    learner = TINY.build_learner(build())
    learner.begin_with(3)
    start, batch = weights(learner.model), rows(4, 7)
    batch["proprio"][0, 0] = float("nan")
    with pytest.raises(FloatingPointError):
        learner.update({"windows": batch})
    assert not changed(start, weights(learner.model))


def test_an_encoder_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ModelError, match=r"encoder_updates: got .*, expected 0"):
        DinoLearner(build(decoder=None, standardise=False), DinoLearnerConfig(encoder_updates=3))
    with pytest.raises(ModelError, match=r"measure_updates: got .*, expected more than 0"):
        DinoLearner(build(), DinoLearnerConfig())


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 5, 1)])
def test_the_scale_is_that_of_all_measured_tokens(sizes: tuple[int, ...]) -> None:
    tokens = 3.0 + 2.0 * torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(1))
    tokens[:, 2] = 1.5  # a token that never changes
    scale = TokenScale(4, 5)
    assert torch.equal(scale(tokens), tokens)
    for part in tokens.split(list(sizes)):
        scale.measure(part)
    assert_close(scale.mean, tokens.mean(0))
    assert_close(scale.variance, tokens.var(0, correction=0), rtol=1e-4, atol=1e-5)
    scaled = scale(tokens)
    assert_close(scaled.mean(0), torch.zeros(4, 5), rtol=0, atol=1e-5)
    assert not scaled[:, 2].abs().gt(1e-4).any()
    assert 0.6 < float(scaled[:, [0, 1, 3]].std()) < 1.0


# Cached features ------------------------------------------------------------------------------


@pytest.fixture
def images() -> Tensor:
    return rows(3, 7)["image"].flatten(0, 1)


def test_cached_features_equal_recomputed_features(images: Tensor) -> None:
    visual = build().encoder.visual
    cache = FeatureCache(visual, 1 << 20)
    first = cache(images[:5])
    assert torch.equal(cache(images)[:5], first)
    assert (cache.hits, cache.misses) == (5, len(images))
    reversed_order = FeatureCache(visual, 1 << 20)(images.flip(0)).flip(0)  # other blocks
    assert torch.equal(cache(images), reversed_order)
    with torch.no_grad():
        assert_close(first, visual(images[:5]), rtol=1e-5, atol=1e-6)


def test_features_that_do_not_fit_are_recomputed(images: Tensor) -> None:
    visual = build().encoder.visual
    one = FeatureCache(visual, 1 << 20)(images[:1])
    small = FeatureCache(visual, 3 * one.numel() * 4)
    small(images)
    assert torch.equal(small(images), FeatureCache(visual, 1 << 20)(images))
    assert small.hits == 3


def test_images_are_encoded_in_blocks_of_one_size(images: Tensor) -> None:
    sizes: list[int] = []
    visual = build().encoder.visual
    cache = FeatureCache(lambda x: (sizes.append(len(x)), visual(x))[1], 1 << 20)
    cache(images)
    assert set(sizes) == {BLOCK}


def test_an_embodiment_decides_the_scale_of_actions() -> None:
    spec = build(embodiment=replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(2.0, 0.5))).spec
    assert spec.action_low == (-0.5, -1.0) * F and spec.action_high == (0.5, 3.0) * F
    assert spec.model_dt == pytest.approx(0.1 * F) and spec.frameskip == F
