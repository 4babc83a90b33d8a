"""MuDreamer: counts, the contract with every input, what predicts what, and where BatchNorm is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import (
    ACTIONS,
    DISCRETE,
    EMBODIMENT,
    log_rows,
)
from tests.wm_models.families.mudreamer.mudreamer_tiny import TINY, batch_for, learner_of
from wm_models.errors import ModelError
from wm_models.families.mudreamer.model import spread
from wm_models.interface.learner import arrival
from wm_models.interface.overrides import settings_of
from wm_models.interface.world_model import WorldModel
from wm_models.registry import PRESETS
from wm_models.testing.contracts import WorldModelContract
from wm_models.weights.averaging import average
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore, load_model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


class Contract(WorldModelContract):
    settings: ClassVar[dict[str, object]] = {}
    cameras: tuple[str, ...] = ()

    def make_model(self) -> WorldModel:
        learner = learner_of(self.settings, cameras=self.cameras)
        learner.update(batch_for(learner))  # running statistics are no longer the first ones
        return learner.model

    def training(self, model: WorldModel) -> Callable[[], float]:
        rates = {f"learner.{name}.lr": 3e-3 for name in ("world_model", "actor", "critic")}
        learner = TINY.varied({**self.settings, **rates}).build_learner(model)
        batch = batch_for(learner)

        def update() -> float:
            metrics = learner.update(batch)
            names = ("action", "value", "reward", "discount", "kl")
            return sum(metrics.get(f"wm/{name}_loss", 0.0) for name in names)

        return update


class TestImages(Contract):
    pass


class TestProprioception(Contract):
    settings: ClassVar = {"model.observation.inputs": "proprio"}


class TestBothWithProbe(Contract):
    settings: ClassVar = {"model.observation.inputs": "both", "model.decoder_probe": True}


class TestTwoCamerasWithProbe(Contract):
    settings: ClassVar = {"model.decoder_probe": True}
    cameras = ("front", "wrist")


class TestDiscreteActions(Contract):
    settings: ClassVar = DISCRETE


class TestLayerNorm(Contract):
    settings: ClassVar = {"model.rssm.posterior_norm": "same"}


def test_published_counts() -> None:
    """The paper states 15.3 million; six actions, slow copies are not counted."""
    model = PRESETS["mudreamer"].build(6)
    world, rssm = model.dynamics, model.dynamics.rssm
    assert count(model.encoder) == 690_624
    assert count(rssm) == 528_384 + 1_575_936 + 788_480 + 2_885_632 + 512
    assert isinstance(rssm.post_norm, nn.BatchNorm1d)
    assert (rssm.post_norm.momentum, rssm.post_norm.eps) == (0.1, 1e-5)
    assert count(world.value) == count(world.reward) == count(model.critic) == 1_181_439
    assert count(world.action) == 3_153_932
    assert count(model) == 15_275_734


def test_presets() -> None:
    paper, backgrounds = PRESETS["mudreamer"], PRESETS["mudreamer_backgrounds"]
    assert (paper.model.kl.dyn, paper.model.kl.rep, paper.model.kl.free) == (0.95, 0.05, 1.0)
    assert (paper.model.reward_scale, backgrounds.model.reward_scale) == (1.0, 100.0)
    assert paper.learner.value_rate == 0.01
    assert count(PRESETS["mudreamer_cpu"].build(6)) == 2_010_302
    atari = PRESETS["mudreamer_atari"]
    assert atari.model.actor.discrete and atari.learner.behavior.actor_grad == "reinforce"
    assert (paper.learner.train_every, atari.learner.train_every) == (2, 1)


def test_what_differs_from_dreamer_v3() -> None:
    ours, theirs = (settings_of(PRESETS[name]) for name in ("mudreamer", "dreamer_v3"))
    assert {name for name in theirs if ours[name].value != theirs[name].value} == {
        "model.rssm.posterior_norm", "model.kl.dyn", "model.kl.rep"
    }  # fmt: skip
    assert ours.keys() - theirs.keys() == {
        "model.value_predictor", "model.action_predictor", "model.decoder_probe",
        "learner.value_rate",
    }  # fmt: skip


def test_actions_are_predicted_from_what_lies_about_them() -> None:
    """The action between two rows, from the state of the first and the features of the second."""
    model = learner_of().model
    batch = arrival(log_rows(3, 6))
    lead = batch["is_first"].shape
    features = torch.randn(*lead, 1, 128, generator=seeded())
    post = model.dynamics.rssm.initial(1, features)
    post = type(post)(*(torch.randn(*lead, *x.shape[1:], generator=seeded(1)) for x in post))
    post = type(post)(*(x.requires_grad_(True) for x in post))
    features.requires_grad_(True)
    loss = model.dynamics.target_losses(features, post, batch)["wm/action_loss"]

    terms = []
    for b in range(lead[0]):
        for t in range(1, lead[1]):
            if not batch["is_first"][b, t]:
                inputs = torch.cat([features[b, t, 0], post.feat[b, t - 1]])
                terms.append(-model.dynamics.action(inputs).log_prob(batch["action"][b, t]))
    assert_close(loss, torch.stack(terms).mean())
    loss.backward()
    for b in range(lead[0]):
        for t in range(lead[1]):
            used = t > 0 and not bool(batch["is_first"][b, t])
            assert bool(features.grad[b, t].any()) == used
            follows = t + 1 < lead[1] and not bool(batch["is_first"][b, t + 1])
            assert bool(post.deter.grad[b, t].any()) == follows  # s_t itself is never seen


def test_the_floor_of_the_action_loss() -> None:
    """Per dimension ln(0.1 sqrt(2 pi)): certain, and right."""
    policy = learner_of().model.dynamics.action
    with torch.no_grad():
        policy.mean.weight.zero_()
        policy.std.weight.zero_()
        policy.std.bias.fill_(-40.0)
        loss = -policy(torch.zeros(128 + 28)).log_prob(torch.zeros(ACTIONS)) / ACTIONS
    assert_close(loss, torch.tensor(math.log(0.1 * math.sqrt(2 * math.pi))), atol=1e-4, rtol=0)


def test_there_is_nothing_to_look_at_without_a_probe() -> None:
    model = TINY.build(EMBODIMENT)
    assert not model.spec.has_decoder and "decoder" not in model.modules_by_name()
    with pytest.raises(ModelError, match=r"train it with model\.decoder_probe=true"):
        model.decode(model.initial(1))
    probed = TINY.varied({"model.decoder_probe": True}).build(EMBODIMENT)
    assert probed.parts_for("decode") == ("encoder", "world_model", "decoder")
    assert "decoder" not in probed.parts_for("encode", "filter", "act", "plan")


def test_acting_and_imagining_use_running_statistics() -> None:
    """A row's state does not depend on the rows beside it, and statistics do not move."""
    model = learner_of().model
    norm = model.dynamics.rssm.post_norm
    before = norm.running_mean.clone()
    obs = {"image": torch.rand(3, 3, 16, 16, generator=seeded())}
    first, action = torch.ones(3).bool(), torch.zeros(3, ACTIONS)
    features = model.encode(obs)

    def logits(rows: slice) -> torch.Tensor:
        embed = model.dynamics.embed(features[rows])[:, None]
        start = model.initial(1)
        return model.dynamics.rssm.observe(
            start, action[rows, None], embed, first[rows, None], seeded()
        )[1]

    with torch.no_grad():
        assert_close(logits(slice(0, 1)), logits(slice(0, 3))[:1])
        model.step(model.observe(model.initial(3), action, obs, first), action)
    assert norm.running_mean.equal(before) and int(norm.num_batches_tracked) == 0


def test_spread_tells_a_collapse() -> None:
    alike = torch.randn(1, 1, 64, generator=seeded()).expand(4, 5, 64)
    assert spread(alike) < 1e-6 and spread(alike * torch.rand(4, 5, 1, generator=seeded())) < 1e-6
    apart = spread(torch.randn(40, 50, 64, generator=seeded()))
    assert_close(apart, torch.tensor(1 / 8), atol=5e-3, rtol=0)


def test_statistics_are_stored_loaded_and_averaged(tmp_path) -> None:
    name = "mudreamer_cpu"
    means = []
    for version in (1, 2):
        model = PRESETS[name].build(4, seed=version)
        norm = model.dynamics.rssm.post_norm
        with torch.no_grad():
            norm.running_mean.normal_(generator=seeded(version))
            norm.num_batches_tracked.fill_(version)
        means.append(norm.running_mean.clone())
        manifest = Manifest(version, name, 4, step=version)
        WeightStore(tmp_path / "run").save(model.modules_by_name(), manifest)
    norm = load_model(tmp_path / "run")[0].dynamics.rssm.post_norm
    assert norm.running_mean.equal(means[1]) and int(norm.num_batches_tracked) == 2
    assert not norm.training
    average(tmp_path / "run", 2, tmp_path / "mean")
    norm = load_model(tmp_path / "mean")[0].dynamics.rssm.post_norm
    assert_close(norm.running_mean, (means[0] + means[1]) / 2)
    assert int(norm.num_batches_tracked) == 2
