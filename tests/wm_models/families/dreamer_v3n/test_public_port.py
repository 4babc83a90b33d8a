"""Losses and gradients against numbers computed with a public implementation.

The numbers in public_port.safetensors come from NM512/r2dreamer at commit
546e4fab8146ea4b14e1d7726bbc1a8a1d50322f, a PyTorch port of DreamerV3 (Nature 2025) with R2-Dreamer,
run in float32 with its own small random weights. Three things were replaced there: its noise, by
that of a generator with the seed below; and by what danijar/dreamerv3 computes, the gradient of its
latent samples (that of the probabilities; the port has Gumbel-softmax's) and its KL (of
distributions with their uniform share; the port leaves it out). Its continue head predicts 1 where
an episode goes on, and free bits are set to .02 so that the KL has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from tests.wm_models.families.dreamer_v3n.v3n_tiny import ACTIONS, TINY
from wm_models.nets.distributions import SymexpTwoHot
from wm_models.nets.kl import EachFreeKL
from wm_models.nets.optimizer import Optimizer, laprop

STORED = load_file(Path(__file__).parent / "public_port.safetensors")
SEED = 11
RANGE = 5.0  # of returns before the update: percentiles -2 and 3
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
TERMS = {  # ours -> the port's
    "wm/image_loss": "image",
    "wm/r2_loss": "barlow",
    "wm/reward_loss": "rew",
    "wm/discount_loss": "con",
    "ac/actor_loss": "policy",
    "ac/critic_loss": "value",
    "ac/replay_value_loss": "repval",
}
CHANGES = {
    "reconstruction": {},
    "r2": {"representation": "r2"},
    "discrete": {"actor": replace(TINY.model.actor, kind="onehot", unimix=0.01)},
}


def anything(name: str) -> bool:
    return True


COMPARED: dict[str, Callable[[str], bool]] = {  # whose gradients are stored
    "reconstruction": anything,
    "r2": lambda n: n.startswith("encoder") or "rssm" in n or "projector" in n,
    "discrete": lambda n: n.startswith("actor") or "rssm" in n,
}


def flat(module: nn.Module, keep: Callable[[str], bool] = anything) -> dict[str, Tensor]:
    return {n: p for n, p in sorted(module.named_parameters()) if keep(n)}


def fill(parameters: dict[str, Tensor], numbers: Tensor) -> None:
    """Put numbers into parameters, in the order of their names."""
    assert sum(p.numel() for p in parameters.values()) == len(numbers)
    parts = numbers.split([p.numel() for p in parameters.values()])
    for parameter, part in zip(parameters.values(), parts, strict=True):
        parameter.data.copy_(part.reshape(parameter.shape))


def learner_of(case: str):
    base = replace(TINY.model, kl=EachFreeKL(1.0, 0.1, 0.02), continues_as_gamma=False)
    preset = replace(TINY, model=replace(base, **CHANGES[case]))
    full = replace(TINY, model=base).build(ACTIONS)
    fill(flat(full), STORED["weights"])
    made = preset.build_learner(preset.build(ACTIONS), seed=SEED)
    own, given = made.model.state_dict(), full.state_dict()
    made.model.load_state_dict({n: given.get(n, v) for n, v in own.items()}, strict=True)
    if case == "r2":
        made.model.dynamics.projector.weight.data.copy_(STORED["r2.projector"])
    if case == "discrete":
        fill(flat(made.model.actor), STORED["discrete.actor"])
        made.model.dynamics.rssm.action_in[0].weight.data.copy_(STORED["discrete.action_in"])
    fill(flat(made.behavior.target), STORED["slow"])
    made.behavior.return_scale.range.fill_(RANGE)
    return made


def batch_of(case: str) -> dict[str, Tensor]:
    names = ("image", "action", "reward", "is_first", "is_last", "is_terminal")
    batch = {n: STORED.get(f"{case}.batch.{n}", STORED[f"batch.{n}"]) for n in names}
    return {**batch, "reward_known": torch.ones_like(batch["is_first"])}


@pytest.mark.parametrize("case", CHANGES)
def test_one_joint_loss_and_its_gradients(case: str) -> None:
    learner = learner_of(case)
    total, metrics = learner.joint_loss(batch_of(case))
    losses = {n: metrics[ours] for ours, n in TERMS.items() if ours in metrics}
    assert ("barlow" in losses) == (case == "r2") and ("image" in losses) == (case != "r2")
    for name, value in losses.items():
        assert_close(value.detach(), STORED[f"{case}.loss.{name}"].squeeze(), **CLOSE, msg=name)
    kl = STORED[f"{case}.loss.dyn"] + 0.1 * STORED[f"{case}.loss.rep"]
    assert_close(metrics["wm/kl_loss"].detach(), kl.squeeze(), **CLOSE)
    assert float(metrics["wm/kl"].detach()) > 0.02  # above the free bits
    assert_close(total.detach(), STORED[f"{case}.loss.total"].squeeze(), **CLOSE)
    assert_close(learner.behavior.return_scale.range, STORED[f"{case}.scale"].squeeze(), **CLOSE)
    total.backward()
    parameters = flat(learner.model, COMPARED[case])
    expected = STORED[f"{case}.grads"].split([p.numel() for p in parameters.values()])
    for (name, parameter), right in zip(parameters.items(), expected, strict=True):
        assert parameter.grad is not None, name
        error = (parameter.grad.flatten() - right).norm()
        assert error <= 1e-4 * right.norm() + 1e-7, (name, float(error), float(right.norm()))


def test_the_two_hot_distribution() -> None:
    two_hot = SymexpTwoHot(STORED["twohot.logits"])
    assert_close(two_hot.mean(), STORED["twohot.mean"], rtol=1e-4, atol=1e-3)
    assert_close(two_hot.loss(STORED["twohot.target"]), -STORED["twohot.log_prob"], **CLOSE)


def test_laprop_with_adaptive_clipping() -> None:
    module = nn.Module()
    for i in range(3):
        module.register_parameter(str(i), nn.Parameter(STORED[f"laprop.before.{i}"].clone()))
    optimizer = Optimizer("test", [module], laprop(1e-2, warmup=0))
    for t in range(4):
        grads = [STORED[f"laprop.grad.{t}.{i}"] for i in range(3)]
        optimizer.step(sum((p * g).sum() for p, g in zip(module.parameters(), grads, strict=True)))
    for i, parameter in enumerate(module.parameters()):
        assert_close(parameter.detach(), STORED[f"laprop.after.{i}"], **CLOSE)
