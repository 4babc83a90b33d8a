"""DreamerV3 (2023): the contract with every input, figures at the start, and its flags."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import (
    ACTIONS,
    DISCRETE,
    DISCRETE_EMBODIMENT,
    PIXELS,
    TINY,
    embodiment_of,
    log_rows,
)
from wm_models.behaviors.dreamer import Dreamer
from wm_models.behaviors.dreamer_learner import DreamerLearner
from wm_models.errors import ModelError
from wm_models.interface.learner import arrival
from wm_models.interface.world_model import WorldModel
from wm_models.nets.distributions import unimix
from wm_models.registry import PRESETS
from wm_models.testing.contracts import WorldModelContract


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner_of(settings: dict[str, object] | None = None, seed: int = 1) -> DreamerLearner:
    preset = TINY.varied(settings or {})
    return preset.build_learner(preset.build(embodiment_of(preset), seed=seed), seed=seed)


def batch_for(learner: DreamerLearner, seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    spec, discrete = learner.config.agent_batch, learner.model.actor.config.discrete
    return {"agent": log_rows(spec.batch, spec.length, seed, discrete)}


class Contract(WorldModelContract):
    settings: ClassVar[dict[str, object]] = {}

    def make_model(self) -> WorldModel:
        preset = TINY.varied(self.settings)
        return preset.build(embodiment_of(preset), seed=1)

    def training(self, model: WorldModel) -> Callable[[], float]:
        rates = {f"learner.{name}.lr": 3e-3 for name in ("world_model", "actor", "critic")}
        learner = TINY.varied({**self.settings, **rates}).build_learner(model)
        batch = batch_for(learner)

        def update() -> float:
            metrics = learner.update(batch)
            names = ("image", "proprio", "reward", "discount", "kl")
            return sum(metrics.get(f"wm/{name}_loss", 0.0) for name in names)

        return update


class TestImages(Contract):
    pass


class TestProprioception(Contract):
    settings: ClassVar = {"model.observation.inputs": "proprio"}


class TestBoth(Contract):
    settings: ClassVar = {"model.observation.inputs": "both"}


class TestDiscreteActions(Contract):
    settings: ClassVar = DISCRETE


@pytest.mark.parametrize(
    ("inputs", "losses"),
    [
        ("image", {"wm/image_loss"}),
        ("proprio", {"wm/proprio_loss"}),
        ("both", {"wm/image_loss", "wm/proprio_loss"}),
    ],
)
def test_what_is_seen_is_reconstructed(inputs: str, losses: set[str]) -> None:
    learner = learner_of({"model.observation.inputs": inputs})
    metrics = learner.update(batch_for(learner))
    assert losses == metrics.keys() & {"wm/image_loss", "wm/proprio_loss"}
    assert ("image" in learner.fields, "proprio" in learner.fields) == (
        inputs != "proprio", inputs != "image"
    )  # fmt: skip


def test_inputs_that_the_robot_lacks_are_refused() -> None:
    preset = TINY.varied({"model.observation.inputs": "both"})
    with pytest.raises(ModelError, match="got 'both', expected 'image' for a robot without"):
        preset.build(ACTIONS)


def test_figures_at_the_start() -> None:
    """Reward and value are 0, their losses ln 255; where the actor says nothing its std is
    .893, its entropy 1.305 per dimension."""
    model = PRESETS["dreamer_v3_cpu"].build(6, seed=0)
    feat = torch.randn(5, model.config.rssm.feat, generator=seeded())
    with torch.no_grad():
        assert model.dynamics.reward.predict(feat).abs().max() < 1e-6
        assert model.critic.predict(feat).abs().max() < 1e-6
        loss = model.dynamics.reward.loss(feat, torch.tensor([0.0, 0.3, -7.0, 1e3, -1e6]))
        model.actor.std.weight.zero_()
        policy = model.actor(feat)
    assert_close(loss, torch.full((5,), math.log(255)))
    assert_close(policy.std, torch.full((5, 6), 0.893), atol=1e-3, rtol=0)
    assert_close(policy.entropy() / 6, torch.full((5,), 1.305), atol=1e-3, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_unimix_bounds_every_categorical(share: float) -> None:
    """Prior, posterior and discrete actor; the largest gap is ln((1 - u + u / K) / (u / K))."""
    settings: ClassVar = {**DISCRETE, "model.rssm.unimix": share, "model.actor.unimix": share}
    model = TINY.varied(settings).build(DISCRETE_EMBODIMENT, seed=1)
    rssm = model.dynamics.rssm
    with torch.no_grad():
        for layer in (rssm.prior[-1], rssm.post_out, model.actor.mean):
            layer.weight.mul_(1e3)
        feat = torch.randn(4, model.config.rssm.feat, generator=seeded())
        logits = {"prior": rssm.prior_logits(feat[:, -12:]), "actor": model.actor(feat).log_p}
        _, logits["posterior"] = rssm.observe(
            rssm.initial(4, feat), torch.zeros(4, 1, ACTIONS), torch.randn(4, 1, 128),
            torch.ones(4, 1).bool(), seeded(),
        )  # fmt: skip
    for name, value in logits.items():
        count = value.shape[-1]
        gap = float((value.max(-1).values - value.min(-1).values).max())
        if share:
            largest = math.log((1 - share + share / count) / (share / count))
            assert_close(gap, largest, rtol=1e-3, atol=0, msg=name)
        else:
            assert gap > 10, name


def test_the_published_unimix_gap() -> None:
    gap = unimix(torch.tensor([1e3] + [0.0] * 31), 0.01)
    assert_close(gap[0] - gap[1], torch.tensor(8.06), atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", ["zeros", "learned"])
def test_initial_state(kind: str) -> None:
    """A learned one learns, and begins every episode, also inside a window."""
    learner = learner_of({"model.rssm.initial": kind})
    rssm = learner.model.dynamics.rssm
    assert (rssm.deter_0 is None) == (kind == "zeros")
    if kind == "learned":
        for i in range(2):
            learner.update(batch_for(learner, i))
        assert rssm.deter_0.abs().sum() > 0
    with torch.no_grad():
        start, like = rssm.initial(2, torch.zeros(1)), torch.zeros(2, 1, 128)
        assert bool(start.stoch.any()) == bool(start.deter.any()) == (kind == "learned")
        elsewhere = start._replace(deter=start.deter + 1.0)
        action, first = torch.zeros(2, 1, ACTIONS), torch.ones(2, 1).bool()
        here, _ = rssm.observe(start, action, like, first, seeded())
        there, _ = rssm.observe(elsewhere, action, like, first, seeded())
    assert_close(here.feat, there.feat)


@pytest.mark.parametrize("form", ["twohot", "symlog", "mse"])
def test_forms_of_reward_and_critic(form: str) -> None:
    settings: ClassVar = {
        "model.reward": form,
        "model.critic": form,
        "learner.world_model.lr": 1e-2,
    }
    learner = learner_of(settings)
    model = learner.model
    first = learner.update(batch_for(learner))["wm/reward_loss"]
    if form == "twohot":  # nothing is predicted at first
        assert_close(first, math.log(255), rtol=1e-5, atol=0)
    for _ in range(20):
        metrics = learner.update(batch_for(learner))
    assert metrics["wm/reward_loss"] < 0.95 * first
    feat = torch.randn(3, model.config.rssm.feat, generator=seeded())
    assert model.critic.predict(feat).shape == model.dynamics.reward.predict(feat).shape == (3,)


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce", "both"])
@pytest.mark.parametrize("kind", ["clipped_normal", "onehot"])
def test_every_gradient_moves_the_actor(kind: str, gradient: str) -> None:
    learner = learner_of({"model.actor.kind": kind, "learner.behavior.actor_grad": gradient})
    before = [p.detach().clone() for p in learner.model.actor.parameters()]
    for i in range(2):  # at the first update every return is 0 but for the entropy
        learner.update(batch_for(learner, i))
    after = learner.model.actor.parameters()
    assert all(not p.equal(q) for p, q in zip(after, before, strict=True))


@pytest.mark.parametrize("on", [True, False])
def test_returns_are_normalised_by_their_percentiles(on: bool) -> None:
    learner = learner_of({"learner.behavior.return_norm": on})
    batch = batch_for(learner)
    batch["agent"]["reward"] *= 1000
    for _ in range(10):
        learner.update(batch)
    assert (learner.behavior.return_scale.range > 0) == on


def test_a_discrete_policy_acts_in_onehot_actions() -> None:
    learner = learner_of(DISCRETE)
    learner.update(batch_for(learner))
    state = learner.model.initial(64)
    with torch.no_grad():
        for mode in (True, False):
            action = learner.model.act(state, mode=mode, generator=seeded())
            assert_close(action.sum(-1), torch.ones(64))
            assert set(action.unique().tolist()) == {0.0, 1.0}
    assert len(action.argmax(-1).unique()) == ACTIONS  # at first all of them are drawn


def test_training_resumes_exactly() -> None:
    learner = learner_of()
    for i in range(2):
        learner.update(batch_for(learner, i))
    other = learner_of(seed=9)
    other.model.load_state_dict(learner.model.state_dict())
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for i in range(2, 4):
        learner.update(batch_for(learner, i))
        other.update(batch_for(other, i))
    for own in ("model", "behavior"):
        ours, theirs = getattr(learner, own).state_dict(), getattr(other, own).state_dict()
        assert all(value.equal(theirs[name]) for name, value in ours.items())


def test_nothing_before_a_reset_counts() -> None:
    model = learner_of().model
    batch = arrival(log_rows(2, 6))
    image = batch["image"].float().permute(0, 1, 4, 2, 3) / 255
    assert image.shape[-1] == PIXELS
    image.requires_grad_(True)
    features = model.encode({"image": image.flatten(0, 1)}).unflatten(0, (2, 6))
    start = model.dynamics.rssm.initial(2, features)
    post, _ = model.dynamics.rssm.observe(
        start, batch["action"], model.dynamics.embed(features), batch["is_first"], seeded()
    )
    (grad,) = torch.autograd.grad(post.feat[:, -1].square().sum(), image)
    assert not grad[:, :3].any() and grad[:, 3:].any()


def test_values_count_what_comes_after() -> None:
    """The critic's value is the contract's: the reward of arriving is not part of it."""
    model: Dreamer = learner_of().model
    with torch.no_grad():
        model.critic.net[-1].weight.normal_(generator=seeded())
        state = model.step(model.initial(4), torch.zeros(4, ACTIONS), generator=seeded())
        out = model.readout(state, frozenset({"value"}))
    assert_close(out["value"], model.critic.predict(state.feat))


def test_actions_that_leave_the_box_need_a_core_that_clips_them() -> None:
    with pytest.raises(ModelError, match=r"ActorConfig\.kind: got 'normal'"):
        TINY.varied({"model.actor.kind": "normal"})
    TINY.varied({"model.actor.kind": "normal", "model.rssm.core": "block", "model.rssm.blocks": 4})
