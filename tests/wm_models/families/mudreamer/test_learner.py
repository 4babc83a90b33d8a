"""MuDreamer's learner: replayed returns, the slow copy, BatchNorm's modes, the probe, resume."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import DISCRETE
from tests.wm_models.families.mudreamer.mudreamer_tiny import batch_for, learner_of
from wm_models.behaviors.returns import replay_return
from wm_models.errors import ModelError
from wm_models.families.mudreamer.learner import MuDreamerLearner
from wm_models.interface.learner import without_context


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def window(learner: MuDreamerLearner, seed: int = 0) -> dict[str, Tensor]:
    """Rows to learn from, in arrival form."""
    rows = learner.prepare(batch_for(learner, seed)["agent"])
    return without_context(rows, learner.keep_resets)


def state_of(learner: MuDreamerLearner) -> dict[str, Tensor]:
    """Weights, buffers, slow copies."""
    parts = {"model": learner.model, "behavior": learner.behavior, "slow": learner.slow_value}
    return {
        f"{name}.{key}": value.clone()
        for name, part in parts.items()
        if part is not None
        for key, value in part.state_dict().items()
    }


# Replayed returns -----------------------------------------------------------------------------


def rows(**changes: Tensor) -> dict[str, Tensor]:
    none = torch.zeros(1, 6).bool()
    return {"reward": torch.ones(1, 6), "is_first": none, "is_terminal": none, **changes}


def at(*places: int) -> Tensor:
    mask = torch.zeros(1, 6).bool()
    mask[0, list(places)] = True
    return mask


def test_replayed_returns_follow_their_recursion() -> None:
    reward, value = torch.randn(1, 6, generator=seeded()), torch.randn(1, 6, generator=seeded(1))
    got = replay_return(rows(reward=reward), value, 0.9, 0.7)[0]
    r, v = reward[0], value[0]
    assert got[5] == v[5]
    for t in range(5):
        assert_close(got[t], r[t + 1] + 0.9 * (0.3 * v[t + 1] + 0.7 * got[t + 1]))


def test_a_constant_value_is_a_fixed_point() -> None:
    got = replay_return(rows(), torch.full((1, 6), 10.0), 0.9, 0.95)
    assert_close(got, torch.full((1, 6), 10.0))


def test_an_episode_s_end_cuts_the_recursion() -> None:
    """Truncated, its last row has the slow value; what follows another reset counts for nothing."""
    value = torch.randn(1, 6, generator=seeded())
    reward = torch.ones(1, 6)
    reward[0, 3] = 0.0  # the reset row's
    cut = rows(reward=reward, is_first=at(3))
    got = replay_return(cut, value, 0.9, 0.7)
    assert got[0, 2] == value[0, 2]
    other_value, other_reward = value.clone(), reward.clone()
    other_value[:, 3:], other_reward[:, 3:] = 50.0, -50.0
    other = replay_return({**cut, "reward": other_reward}, other_value, 0.9, 0.7)
    assert other[:, :3].equal(got[:, :3])


@pytest.mark.parametrize("first", [at(3), at()])
def test_nothing_comes_after_a_terminal_state(first: Tensor) -> None:
    """Where the window goes on after it, and where it ends with it."""
    place = 2 if first.any() else 5
    value = torch.full((1, 6), 100.0)
    got = replay_return(rows(is_first=first, is_terminal=at(place)), value, 0.9, 1.0)[0]
    assert got[place] == 0.0 and got[place - 1] == 1.0
    assert_close(got[place - 2], torch.tensor(1.9))


# The value predictor --------------------------------------------------------------------------


def test_value_loss_at_the_start_is_that_of_255_even_bins() -> None:
    learner = learner_of()
    assert_close(
        learner.update(batch_for(learner))["wm/value_loss"], math.log(255), rtol=1e-5, atol=0
    )


def test_value_loss_by_hand() -> None:
    """Targets come from the slow copy alone, and the gradient reaches the encoder."""
    learner = learner_of({"model.action_predictor": False})
    model, batch = learner.model, window(learner)
    for module in (model.dynamics.value, learner.slow_value):
        torch.nn.init.normal_(module.net[-1].weight, std=0.5, generator=seeded())
    with torch.no_grad():
        learner.slow_value.net[-1].bias.normal_(generator=seeded(2))
    _, post, terms = learner.world_model_loss(model.features(batch), batch)
    slow = learner.slow_value.predict(post.feat)
    target = replay_return(batch, slow, 0.997, 0.95).detach()
    assert_close(terms["wm/value_loss"], model.dynamics.value.loss(post.feat, target).mean())
    terms["wm/value_loss"].backward()
    assert all(p.grad is None for p in learner.slow_value.parameters())
    for part in (model.encoder, model.dynamics.rssm.gru, model.dynamics.value):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters())


def test_the_slow_copy_follows_by_one_percent() -> None:
    learner = learner_of()
    value = learner.model.dynamics.value.net[-1].weight
    slow = learner.slow_value.net[-1].weight
    expected = slow.clone()
    for i in range(3):
        learner.update(batch_for(learner, i))
        expected = 0.99 * expected + 0.01 * value.detach()
        assert_close(slow, expected)
    assert not slow.equal(value)
    learner.begin_with(3)
    assert slow.equal(value)


# BatchNorm ------------------------------------------------------------------------------------


def test_statistics_of_each_time_step_in_the_world_model_s_loss_alone() -> None:
    learner = learner_of()
    norm, batch = learner.model.dynamics.rssm.post_norm, window(learner)
    modes: list[tuple[bool, int]] = []
    norm.register_forward_hook(lambda m, inputs, _: modes.append((m.training, len(inputs[0]))))
    post, _ = learner.update_world_model(batch)
    steps = batch["reward"].shape[1]
    assert modes == [(True, 4)] * steps and int(norm.num_batches_tracked) == steps
    assert not any(module.training for module in learner.model.modules())
    before = norm.running_mean.clone()
    learner.update_behavior(post, batch)
    assert len(modes) == steps and norm.running_mean.equal(before)


def test_the_posterior_is_normalised_by_its_batch() -> None:
    learner = learner_of()
    norm, outputs = learner.model.dynamics.rssm.post_norm, []
    norm.register_forward_hook(lambda m, _, out: outputs.append(out.detach()))
    learner.update_world_model(window(learner))
    for out in outputs:  # the first affine parameters are 1 and 0
        assert_close(out.mean(0), torch.zeros(out.shape[1]), atol=1e-5, rtol=0)
        assert_close(out.var(0, unbiased=False), torch.ones(out.shape[1]), atol=5e-2, rtol=0)


@pytest.mark.parametrize("field", ["reward", "proprio"])
def test_a_batch_that_is_not_finite_changes_nothing(field: str) -> None:
    """Running statistics too, which the forward pass moves before the loss is known."""
    learner = learner_of({"model.observation.inputs": "both"})
    learner.update(batch_for(learner))
    before = state_of(learner)
    bad = batch_for(learner)
    bad["agent"][field][:, 2] = float("nan")
    with pytest.raises(FloatingPointError, match="training diverged"):
        learner.update(bad)
    assert all(value.equal(before[name]) for name, value in state_of(learner).items())
    assert not learner.model.dynamics.training and learner.updates == 1
    learner.update(batch_for(learner))


def test_one_window_has_no_statistics() -> None:
    with pytest.raises(ModelError, match=r"agent_batch\.batch: got 1, expected 2 or more"):
        learner_of({"learner.agent_batch.batch": 1})
    learner = learner_of({"learner.agent_batch.batch": 1, "model.rssm.posterior_norm": "same"})
    learner.update(batch_for(learner))


# The probe ------------------------------------------------------------------------------------


def test_the_probe_changes_nothing_but_itself() -> None:
    """With and without it, everything else learns the same bits."""
    probed, plain = learner_of({"model.decoder_probe": True}), learner_of()
    names = plain.model.state_dict().keys()
    plain.model.load_state_dict({n: probed.model.state_dict()[n] for n in names})
    plain.begin_with(0)
    before = [p.detach().clone() for p in probed.model.probe.parameters()]
    for i in range(3):
        probed.update(batch_for(probed, i))
        plain.update(batch_for(plain, i))
    assert all(value.equal(state_of(probed)[name]) for name, value in state_of(plain).items())
    after = probed.model.probe.parameters()
    assert all(not p.equal(q) for p, q in zip(after, before, strict=True))


def test_the_probe_s_loss_reaches_no_encoder() -> None:
    learner = learner_of({"model.decoder_probe": True})
    learner.update_world_model(window(learner))
    others = [p for n, p in learner.model.named_parameters() if not n.startswith("probe.")]
    for parameter in others:
        parameter.grad = None
    learner.optimizers["wm"].step = lambda loss: {}  # type: ignore[method-assign]
    learner.update_world_model(window(learner))
    assert all(p.grad is None for p in others)


def test_the_probe_learns_to_show() -> None:
    learner = learner_of({"model.decoder_probe": True, "learner.world_model.lr": 1e-2})
    losses = [learner.update(batch_for(learner))["wm/image_loss"] for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


# Flags and resume -----------------------------------------------------------------------------

FLAGS: dict[str, tuple[dict[str, object], set[str]]] = {
    "as published": ({}, set()),
    "no value predictor": ({"model.value_predictor": False}, {"wm/value_loss"}),
    "no action predictor": ({"model.action_predictor": False}, {"wm/action_loss"}),
    "neither": (
        {"model.value_predictor": False, "model.action_predictor": False},
        {"wm/value_loss", "wm/action_loss"},
    ),
    "layer norm": ({"model.rssm.posterior_norm": "same"}, set()),
    "discrete": (DISCRETE, set()),
}


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_trains_and_resumes_exactly(name: str) -> None:
    settings, absent = FLAGS[name]
    learner = learner_of(settings)
    metrics = learner.update(batch_for(learner, 0))
    assert not absent & metrics.keys()
    assert {"wm/value_loss", "wm/action_loss"} - absent <= metrics.keys()
    learner.update(batch_for(learner, 1))
    file = io.BytesIO()
    torch.save({"model": learner.model.state_dict(), "learner": learner.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = learner_of(settings, seed=9)
    other.model.load_state_dict(saved["model"])
    other.load_state_dict(saved["learner"])
    for i in range(2, 4):
        learner.update(batch_for(learner, i))
        other.update(batch_for(other, i))
    theirs = state_of(other)
    assert all(value.equal(theirs[key]) for key, value in state_of(learner).items())


@pytest.mark.parametrize(("dyn", "rep"), [(0.95, 0.05), (0.5, 0.1), (0.8, 0.2), (1.0, 1.0)])
def test_kl_weights(dyn: float, rep: float) -> None:
    """Both terms are of equal value: the loss is their weights' sum, and the share of the gradient
    that the prior gets is ``dyn``."""

    def prior_gradient(settings: dict[str, object]) -> tuple[float, float, Tensor]:
        learner = learner_of({**settings, "model.kl.free": 0.0})
        batch = window(learner)
        _, _, terms = learner.world_model_loss(learner.model.features(batch), batch)
        terms["wm/kl_loss"].backward()
        grad = learner.model.dynamics.rssm.prior[-1].weight.grad
        return float(terms["wm/kl_loss"].detach()), float(terms["wm/kl"].detach()), grad

    loss, kl, grad = prior_gradient({"model.kl.dyn": dyn, "model.kl.rep": rep})
    plain = prior_gradient({"model.kl.dyn": 1.0, "model.kl.rep": 0.0})[2]
    assert_close(loss, (dyn + rep) * kl, rtol=1e-4, atol=0)
    assert_close(grad, dyn * plain, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
def test_reward_loss_scale(scale: float) -> None:
    totals = []
    for each in (0.0, scale):
        learner = learner_of({"model.reward_scale": each})
        batch = window(learner)
        total, _, terms = learner.world_model_loss(learner.model.features(batch), batch)
        totals.append(total)
    assert_close(totals[1] - totals[0], scale * terms["wm/reward_loss"], rtol=1e-3, atol=1e-3)


def test_the_world_model_steps_before_behaviour() -> None:
    """One step of all parts would leave out the slow copy and BatchNorm's statistics."""
    with pytest.raises(ModelError, match=r"MuDreamerLearnerConfig\.joint: got True"):
        learner_of({"learner.joint": True})
