"""What the tests against released code share: weights, batches and noise from fixed numbers.

Everything is drawn by NumPy's RandomState, whose streams do not change between versions, so that
only the results of the released code are stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from wm_models.behaviors.dreamer_learner import DreamerLearner

BATCH, LENGTH = 2, 6


def fill(model: nn.Module) -> nn.Module:
    """Weights by name: of variance 1 / inputs, vectors near their usual values."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = np.random.RandomState(zlib.crc32(name.encode()))
            values = draw.standard_normal(tuple(parameter.shape))
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                if parameter.ndim == 4 and "decoder" in name:  # a transposed convolution
                    fan_in = parameter.numel() / parameter.shape[1] / 4
                values /= fan_in**0.5
            else:
                values = 0.1 * values + float("norm" in name and name.endswith("weight"))
            parameter.copy_(torch.tensor(values, dtype=torch.float32))
    return model


def arrived(actions: int, *, discrete: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Windows (2, 6) in arrival form; in the first an episode ends for good and another begins."""
    draw = np.random.RandomState(seed)
    shape = (BATCH, LENGTH)
    image = draw.randint(0, 256, (*shape, 64, 64, 3)).astype(np.uint8)
    action = draw.uniform(-1, 1, (*shape, actions)).astype(np.float32)
    if discrete:
        action = np.eye(actions, dtype=np.float32)[action.argmax(-1)]
    reward = draw.uniform(-2, 2, shape).astype(np.float32)
    first, terminal = np.zeros(shape, bool), np.zeros(shape, bool)
    first[:, 0] = first[0, 3] = terminal[0, 2] = True
    action[first] = 0
    reward[first] = 0
    rows = {
        "image": image,
        "action": action,
        "reward": reward,
        "is_first": first,
        "is_terminal": terminal,
        "reward_known": np.ones(shape, bool),
    }
    return {name: torch.from_numpy(value) for name, value in rows.items()}


@contextmanager
def fixed_noise(seed: int = 3) -> Iterator[None]:
    """Let torch.rand give the numbers of a RandomState."""
    draw, real = np.random.RandomState(seed), torch.rand

    def rand(*shape: object, **_: object) -> Tensor:
        size = tuple(shape[0]) if isinstance(shape[0], (tuple, torch.Size)) else shape
        return torch.from_numpy(draw.random_sample(size).astype(np.float32))

    torch.rand = rand
    try:
        yield
    finally:
        torch.rand = real


def gradients(learner: DreamerLearner) -> dict[str, Tensor]:
    """Gradients of the latest update by the names of weights, as clipped."""
    named = learner.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def three_updates(
    learner: DreamerLearner, batch: Mapping[str, Tensor]
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Metrics of three updates on one batch, and the gradients of the first."""
    metrics, first = [], {}
    for _ in range(3):
        post, world = learner.update_world_model(batch)
        metrics.append(world | learner.update_behavior(post, batch))
        first = first or gradients(learner)
    return metrics, first


def assert_agrees(
    stored: Mapping[str, Tensor],
    case: str,
    metrics: list[dict[str, float]],
    found: Mapping[str, Tensor],
) -> None:
    """Compare with what the released code gave: metrics of each update, gradients of the first."""
    names = [n.removeprefix(f"{case}/metrics/") for n in stored if n.startswith(f"{case}/metrics/")]
    for name in names:
        mine = torch.tensor([each[name] for each in metrics])
        assert_close(mine, stored[f"{case}/metrics/{name}"], rtol=1e-4, atol=1e-6)
    assert len(names) >= 3
    for key, gradient in stored.items():
        if key.startswith(f"{case}/gradients/"):
            mine = found[key.removeprefix(f"{case}/gradients/")]
            assert float((mine - gradient).norm()) < 1e-4 * float(gradient.norm()) + 1e-9, key
