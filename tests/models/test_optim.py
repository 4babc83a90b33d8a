"""Around Adam: warm-up, clipping, decay, and a loss that is not finite changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_models.optim import Optimizer, OptimizerConfig


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_warm_up_starts_at_zero(layer) -> None:
    optimizer = Optimizer("x", [layer], OptimizerConfig(lr=0.1, warmup=4, decay=0.0))
    before = layer.weight.clone()
    optimizer.step(layer(torch.ones(1, 3)).sum())
    assert layer.weight.equal(before)
    rates = []
    for _ in range(5):
        optimizer.step(layer(torch.ones(1, 3)).sum())
        rates.append(optimizer.adam.param_groups[0]["lr"])
    assert_close(torch.tensor(rates), torch.tensor([0.025, 0.05, 0.075, 0.1, 0.1]))


def test_the_rate_falls_to_a_tenth_and_stays(layer) -> None:
    config = OptimizerConfig(lr=0.1, warmup=2, anneal=4)
    optimizer = Optimizer("x", [layer], config)
    rates = []
    for _ in range(9):
        optimizer.step(layer(torch.ones(1, 3)).sum())
        rates.append(optimizer.adam.param_groups[0]["lr"])
    assert_close(rates[2], 0.1)
    assert rates[2:7] == sorted(set(rates[2:7]), reverse=True)
    assert_close(torch.tensor(rates[6:]), torch.full((3,), 0.01))


@pytest.mark.parametrize("everything", [False, True])
def test_decay_ignores_the_learning_rate(layer, everything: bool) -> None:
    with torch.no_grad():
        layer.bias.fill_(1.0)
    config = OptimizerConfig(lr=0.0, decay=0.01, decay_all=everything)
    before = layer.weight.clone()
    Optimizer("x", [layer], config).step(layer(torch.ones(1, 3)).sum())
    assert_close(layer.weight, 0.99 * before)
    assert_close(layer.bias, torch.full((2,), 0.99 if everything else 1.0))


def test_tokens_are_no_kernels() -> None:
    net = nn.Linear(4, 4)
    net.token = nn.Parameter(torch.ones(1, 1, 4))
    loss = net(net.token).sum()
    Optimizer("x", [net], OptimizerConfig(lr=0.0, decay=0.01)).step(loss)
    assert net.token.equal(torch.ones(1, 1, 4))


def test_the_norm_that_is_clipped_is_reported(layer) -> None:
    optimizer = Optimizer("x", [layer], OptimizerConfig(clip=1.0))
    metrics = optimizer.step(1e3 * layer(torch.ones(1, 3)).sum())
    assert metrics["x/grad_norm"] > 1e3
    norm = torch.stack([p.grad.norm() for p in layer.parameters()]).norm()
    assert_close(norm, torch.tensor(1.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_not_finite_changes_nothing(layer, bad: str) -> None:
    optimizer = Optimizer("x", [layer], OptimizerConfig())
    optimizer.step(layer(torch.ones(1, 3)).sum())
    before = [p.clone() for p in layer.parameters()]
    out = layer(torch.zeros(1, 3)).square().sum()
    loss = out * float("nan") if bad == "loss" else (out - out.detach()).sqrt()
    with pytest.raises(FloatingPointError, match="x/loss" if bad == "loss" else "x/grad_norm"):
        optimizer.step(loss)
    assert all(p.equal(q) for p, q in zip(layer.parameters(), before, strict=True))
    assert optimizer.updates == 1
