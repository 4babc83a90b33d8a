"""DreamerV3 (2023) gives the numbers of the public PyTorch port; see `port` for what is stored."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import embodiment_of
from tests.wm_models.families.dreamer_v3.port import PORTED, SEED, STORED, port_batch
from wm_models.behaviors.dreamer import Dreamer
from wm_models.behaviors.dreamer_learner import DreamerLearner
from wm_models.nets.distributions import TwoHot
from wm_models.nets.freezing import frozen

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
CASES = [("normal", "dynamics"), ("normal", "reinforce"), ("onehot", "reinforce")]
SETTINGS = {
    "normal": {},
    "onehot": {"model.actor.kind": "onehot"},
}


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return load_file(STORED)


def part(stored: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def made(stored: dict[str, Tensor], kind: str, gradient: str) -> tuple[Dreamer, DreamerLearner]:
    settings = {**SETTINGS[kind], "learner.behavior.actor_grad": gradient,
                "learner.behavior.entropy": 0.0,
                "learner.behavior.detach_action": kind == "onehot"}  # fmt: skip
    preset = PORTED.varied(settings)
    model = preset.build(embodiment_of(preset))
    weights = part(stored, "weights.")
    if kind == "onehot":
        weights = {k: v for k, v in weights.items() if not k.startswith("actor.")}
        weights |= part(stored, "onehot.")
    missing, foreign = model.load_state_dict(weights, strict=False)
    assert missing == ["critic.scale"] and not foreign
    learner = preset.build_learner(model, seed=SEED)
    learner.behavior.target.load_state_dict(part(stored, "slow."), strict=False)
    if gradient == "dynamics":
        learner.behavior.return_scale.range.fill_(5.0)
    return model, learner


def world_model_loss(model: Dreamer, learner: DreamerLearner, kind: str):
    batch = port_batch(kind)
    return learner.world_model_loss(model.features(batch), batch)


@pytest.mark.parametrize(("kind", "gradient"), CASES)
def test_posterior_and_losses_of_the_world_model(stored, kind: str, gradient: str) -> None:
    model, learner = made(stored, kind, gradient)
    theirs = part(stored, f"{kind}_{gradient}.")
    loss, post, terms = world_model_loss(model, learner, kind)
    if "post" in theirs:
        assert_close(post.feat, theirs["post"], **CLOSE)
    for ours, name in {
        "wm/image_loss": "image_loss",
        "wm/proprio_loss": "proprio_loss",
        "wm/reward_loss": "reward_loss",
        "wm/discount_loss": "cont_loss",
        "wm/kl": "kl",
    }.items():
        assert_close(terms[ours], theirs[name], **CLOSE)
    kl_loss = 0.5 * theirs["dyn_loss"] + 0.1 * theirs["rep_loss"]
    assert_close(terms["wm/kl_loss"], kl_loss, **CLOSE)
    assert kl_loss > 0.6 * theirs["kl"]  # in some steps KL lies below the free nat
    assert_close(loss, theirs["model_loss"], **CLOSE)


def test_gradients_of_the_world_model(stored) -> None:
    model, learner = made(stored, "normal", "dynamics")
    world_model_loss(model, learner, "normal")[0].backward()
    expected = part(stored, "normal_dynamics.grad.")
    for name, parameter in model.named_parameters():
        if name.startswith(("actor.", "critic.")):
            assert parameter.grad is None
        else:
            scale = float(expected[name].abs().max())
            assert scale > 0
            assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4 * scale, msg=name)


@pytest.mark.parametrize(("kind", "gradient"), CASES)
def test_returns_and_losses_of_actor_and_critic(stored, kind: str, gradient: str) -> None:
    """Where the port departs from the paper, the test follows it: it takes the predicted discount
    of the first state too, its entropy term counts the states after an end as much as others and
    passes a gradient through the states, and so does a continuous action inside log pi."""
    model, learner = made(stored, kind, gradient)
    theirs = part(stored, f"{kind}_{gradient}.")
    behavior, world, batch = learner.behavior, model.imagination, port_batch(kind)
    _, post, _ = world_model_loss(model, learner, kind)
    with frozen(model.dynamics):
        trajectory = behavior.trajectory(
            world, model.actor, model.critic, post, batch["is_terminal"], learner.generator
        )
        trajectory = trajectory._replace(discount=world.discount(trajectory.rollout.feat))
        behavior.update_scales(trajectory, model.critic)
        actor_loss, critic_loss, _ = behavior.losses(model.actor, model.critic, trajectory)
        entropy = model.actor(trajectory.rollout.feat[:-1]).entropy()
        actor_loss = actor_loss - 3e-4 * entropy.mean()
    assert_close(trajectory.rollout.action, theirs["action"], **CLOSE)
    assert_close(behavior._returns(trajectory), theirs["target"], **CLOSE)
    assert (behavior.return_scale.divisor > 4.9) == (gradient == "dynamics")
    assert_close(actor_loss, theirs["actor_loss"], **CLOSE)
    assert_close(critic_loss, theirs["value_loss"], **CLOSE)
    actor_loss.backward()
    critic_loss.backward()
    expected = {k: v for k, v in part(stored, f"{kind}_{gradient}.grad.").items()
                if k.startswith(("actor.", "critic."))}  # fmt: skip
    parameters = dict(model.named_parameters())
    assert {k for k in parameters if k.startswith("actor.")} <= expected.keys()
    for own in ("actor.", "critic."):  # a bias may cancel to nothing but rounding
        grads = {name: grad for name, grad in expected.items() if name.startswith(own)}
        scale = max((float(grad.abs().max()) for grad in grads.values()), default=0.0)
        for name, grad in grads.items():
            assert_close(parameters[name].grad, grad, rtol=1e-4, atol=1e-4 * scale, msg=name)


def test_two_hot(stored) -> None:
    """Of numbers beyond the last bin too."""
    g = torch.Generator().manual_seed(3)
    x = torch.tensor([0.0, 0.3, -7.0, 1e3, -1e6, 0.08, 5e8, -5e8])
    dist = TwoHot(torch.randn(8, TwoHot.BINS, generator=g))
    assert_close(dist.loss(x), stored["twohot.loss"], **CLOSE)
    assert_close(dist.mean(), stored["twohot.mean"], **CLOSE)
