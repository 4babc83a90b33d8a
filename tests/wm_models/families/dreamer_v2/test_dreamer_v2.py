"""DreamerV2: the contract, its losses, its flags, and the schedule of its learner."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v2.dreamer_v2_tiny import (
    ACTIONS,
    TINY,
    TINY_ATARI,
    TINY_BOTH,
    changed,
)
from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import arrival
from wm_models.interface.world_model import WorldModel
from wm_models.nets.kl import AveragedFreeKL
from wm_models.testing.contracts import WorldModelContract, seeded

ROBOT = Embodiment(
    (-1.0,) * ACTIONS, (1.0,) * ACTIONS, (0.0,) * ACTIONS, (1.0,) * ACTIONS, (0.5, 1.0), (1.0, 2.0)
)


def seeing(inputs: str) -> DreamerPreset:
    observation = replace(TINY.model.observation, inputs=inputs)
    return changed(TINY, model={"observation": observation})


class TestContract(WorldModelContract):
    preset, embodiment = TINY, Embodiment.unit(ACTIONS)

    @pytest.fixture(autouse=True)
    def _use(self, rows) -> None:
        self.rows = rows

    def make_model(self) -> WorldModel:
        return self.preset.build(self.embodiment, seed=2)

    def training(self, model: WorldModel) -> Callable[[], float]:
        """The world model on one bright picture."""
        lr = replace(self.preset.learner.world_model, lr=3e-3, eps=1e-8)
        learner = changed(self.preset, learner={"world_model": lr}).build_learner(model)
        batch = arrival(self.rows(2, 3, 64))
        batch["image"].fill_(220)
        return lambda: learner.update_world_model(batch)[1]["wm/image_loss"]


class OtherContract(TestContract):
    __test__ = False

    def training(self, model: WorldModel) -> None:
        """As above."""


class TestDiscrete(OtherContract):
    __test__ = True
    preset, embodiment = TINY_ATARI, Embodiment.one_hot(ACTIONS)


class TestImageAndProprioception(OtherContract):
    __test__ = True
    preset, embodiment = seeing("both"), ROBOT


class TestProprioception(OtherContract):
    __test__ = True
    preset, embodiment = seeing("proprio"), ROBOT


class TestTwoCamerasAndProprioception(OtherContract):
    __test__ = True
    preset, embodiment = seeing("both"), replace(ROBOT, cameras=("front", "wrist"))


def loss_of(preset: DreamerPreset, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model = preset.build(ACTIONS, seed=1)
    with torch.no_grad():
        total, _, metrics = model.dynamics.loss(model.features(batch), batch, seeded())
    return total, metrics


def test_losses_are_weighed_and_summed(rows) -> None:
    batch = arrival(rows(2, 5, 64))
    total, terms = loss_of(TINY_ATARI, batch)
    expected = (
        0.5 * terms["wm/image_loss"]
        + terms["wm/reward_loss"]
        + 5.0 * terms["wm/discount_loss"]
        + terms["wm/kl_loss"]
    )
    assert_close(total, expected)
    assert_close(terms["wm/kl_loss"], 0.1 * terms["wm/kl"])
    heavy, _ = loss_of(changed(TINY_ATARI, model={"reward_scale": 100.0}), batch)
    assert_close(heavy - total, 99.0 * terms["wm/reward_loss"])


def test_squashed_rewards_are_the_tanh_of_rewards(rows) -> None:
    batch = arrival(rows(2, 5, 64))
    _, squashed = loss_of(changed(TINY, model={"squash_reward": True}), batch)
    _, plain = loss_of(TINY, {**batch, "reward": torch.tanh(batch["reward"])})
    assert_close(squashed["wm/reward_loss"], plain["wm/reward_loss"])
    assert float(squashed["wm/reward_loss"]) < float(loss_of(TINY, batch)[1]["wm/reward_loss"])


def test_free_bits_count_for_means_over_the_batch() -> None:
    torch.manual_seed(0)
    post, prior = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))

    def gradients(free: float) -> tuple[float, Tensor, Tensor]:
        loss, _ = AveragedFreeKL(free=free).loss(post, prior)
        return float(loss.detach()), *torch.autograd.grad(loss, (post, prior))

    mean, to_post, to_prior = gradients(0.0)
    loss, none_post, none_prior = gradients(mean + 0.1)  # some steps are above, the mean is not
    assert_close(loss, mean + 0.1)
    assert not none_post.any() and not none_prior.any()
    assert_close(gradients(mean - 0.1)[0], mean)  # and above, no step is cut off
    assert_close(gradients(mean - 0.1)[1], to_post)
    plain = [torch.distributions.Categorical(logits=logits) for logits in (post, prior)]
    kl = torch.distributions.kl_divergence(*plain).sum(-1).mean()
    whole = torch.autograd.grad(kl, (post, prior))
    assert_close(to_post, 0.2 * whole[0])
    assert_close(to_prior, 0.8 * whole[1])


@pytest.mark.parametrize("term", ["wm/image_loss", "wm/reward_loss", "wm/kl_loss"])
def test_every_term_reaches_encoder_and_recurrent_state(rows, term: str) -> None:
    preset, batch = changed(TINY, model={"kl": AveragedFreeKL()}), arrival(rows(2, 5, 64))
    model = preset.build(ACTIONS, seed=1)
    _, _, terms = model.dynamics.loss(model.features(batch), batch, seeded())
    terms[term].backward()
    assert model.dynamics.rssm.gru.weight.grad.abs().sum() > 0
    assert model.encoder.cnn.net[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in (*model.actor.parameters(), *model.critic.parameters()))


def test_proprioception_decides_state_and_reconstruction(rows) -> None:
    batch = arrival(rows(2, 5, 64)) | {"proprio": torch.randn(2, 5, 2, generator=seeded())}
    model = seeing("both").build(ROBOT, seed=1)
    _, _, terms = model.dynamics.loss(model.features(batch), batch, seeded())
    assert terms["wm/proprio_loss"].item() > 0 and terms["wm/image_loss"].item() > 0
    other = {**batch, "proprio": batch["proprio"] + 1.0}
    assert not model.features(other).equal(model.features(batch))
    with pytest.raises(ModelError, match="expected 'image' for a robot without proprioception"):
        seeing("both").build(ACTIONS)


def test_the_discrete_actor_acts_by_one_hot_vectors() -> None:
    model = TINY_ATARI.build(ACTIONS, seed=1)
    state = model.initial(50)
    for mode in (True, False):
        action = model.act(state, mode=mode, generator=seeded())
        assert action.sum(-1).equal(torch.ones(50)) and ((action == 0) | (action == 1)).all()
    assert len(model.act(state, mode=False, generator=seeded()).argmax(-1).unique()) > 1


@pytest.mark.parametrize("preset", [TINY, TINY_ATARI, TINY_BOTH])
def test_one_update_moves_every_part(rows, preset: DreamerPreset) -> None:
    model = preset.build(ACTIONS, seed=1)
    learner = preset.build_learner(model)
    before = copy.deepcopy(model.state_dict())
    learner.update({"agent": rows(2, 6, 64)})
    for name in ("encoder", "dynamics", "actor", "critic"):
        assert any(
            not v.equal(before[k]) for k, v in model.state_dict().items() if k.startswith(name)
        ), name


def test_a_reward_normaliser_that_is_off_changes_nothing(rows) -> None:
    def scale(momentum: float) -> float:
        preset = changed(TINY, behavior={"reward_norm": momentum})
        learner = preset.build_learner(preset.build(ACTIONS, seed=1))
        for seed in range(3):
            learner.update({"agent": rows(2, 6, 64, seed)})
        return float(learner.behavior.reward_norm.mag)

    assert scale(1.0) == 1.0 and scale(0.9) < 1.0


def test_the_slow_critic_is_a_copy_every_so_many_updates(rows) -> None:
    preset = changed(TINY, behavior={"target_every": 3})
    learner = preset.build_learner(preset.build(ACTIONS, seed=1))
    equal = []
    for seed in range(5):
        learner.update({"agent": rows(2, 6, 64, seed)})
        slow = learner.behavior.target.parameters()
        pairs = zip(slow, learner.model.critic.parameters(), strict=True)
        equal.append(all(a.equal(b) for a, b in pairs))
    assert equal == [True, False, False, True, False]


def test_behaviour_begins_after_the_world_model_and_then_does_not_wait(rows) -> None:
    preset = changed(TINY, learner={"world_model_init": 2, "behavior_init": 3})
    learner = preset.build_learner(preset.build(ACTIONS, seed=1))
    assert learner.initial_updates == preset.pace.initial == 5
    seen = []
    for seed in range(4):
        phase = learner.phase
        metrics = learner.update({"agent": rows(2, 6, 64, seed)})
        seen.append((phase, "ac/actor_loss" in metrics))
    assert seen == [("world_model", False)] * 2 + [("behaviour", True)] * 2


@pytest.mark.parametrize("preset", [TINY, TINY_ATARI])
def test_training_resumes_exactly(rows, preset: DreamerPreset) -> None:
    learner = preset.build_learner(preset.build(ACTIONS, seed=1), seed=5)
    learner.update({"agent": rows(2, 6, 64, 0)})
    file = io.BytesIO()
    torch.save({"model": learner.model.state_dict(), "learner": learner.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = preset.build_learner(preset.build(ACTIONS, seed=9), seed=0)
    other.model.load_state_dict(saved["model"])
    other.load_state_dict(saved["learner"])
    for each in (learner, other):
        each.update({"agent": rows(2, 6, 64, 1)})
    pairs = zip(learner.model.parameters(), other.model.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"learner.behavior.returns": "next"}, r"behavior\.returns: got 'next'"),
        ({"model.critic_counts_arrival": False}, r"behavior\.returns: got 'arrival'"),
        ({"model.rssm.posterior_norm": "batch"}, r"posterior_norm: got 'batch'"),
    ],
)
def test_model_and_learner_fit_each_other(settings: dict[str, object], match: str) -> None:
    preset = TINY.varied(settings)
    with pytest.raises(ModelError, match=match):
        preset.build_learner(preset.build(ACTIONS))
