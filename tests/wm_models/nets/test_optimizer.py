"""Adam with warm-up, clipping and decay; a loss that is not finite changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.blocks import BlockLinear
from wm_models.nets.optimizer import Optimizer, OptimizerConfig, keras_adam, laprop, minimise


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
        rates.append(optimizer.rule.param_groups[0]["lr"])
    assert_close(torch.tensor(rates), torch.tensor([0.025, 0.05, 0.075, 0.1, 0.1]))


def test_the_rate_falls_to_a_tenth_and_stays(layer) -> None:
    config = OptimizerConfig(lr=0.1, warmup=2, anneal=4)
    optimizer = Optimizer("x", [layer], config)
    rates = []
    for _ in range(9):
        optimizer.step(layer(torch.ones(1, 3)).sum())
        rates.append(optimizer.rule.param_groups[0]["lr"])
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


def test_layers_that_are_diagonal_in_blocks_decay_as_others_do() -> None:
    net = BlockLinear(4, 6, 2)
    before = net.weight.clone()
    Optimizer("x", [net], OptimizerConfig(lr=0.0, decay=0.01)).step(net(torch.ones(1, 4)).sum())
    assert_close(net.weight, 0.99 * before)


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


def gradients(steps: int) -> torch.Tensor:
    """(steps, 2, 3), of about the size of epsilon, so that its place matters."""
    return 1e-4 * torch.randn(steps, 2, 3, generator=torch.Generator().manual_seed(1))


def moved(start: torch.Tensor, grads: torch.Tensor, config: OptimizerConfig) -> torch.Tensor:
    """Adam in float64, by the formulas of Kingma and Ba (2015), algorithm 1, and with
    ``epsilon_hat`` in the order given at the end of its section 2."""
    x, m, v = start.double(), torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for t, g in enumerate(grads.double(), 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        if config.epsilon_hat:
            rate = config.lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            x = x - rate * m / (v.sqrt() + config.eps)
        else:
            at, bt = m / (1 - 0.9**t), v / (1 - 0.999**t)
            x = x - config.lr * at / (bt.sqrt() + config.eps)
    return x - start.double()


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("steps", [1, 6, 40])
def test_the_position_of_epsilon(layer, hat: bool, steps: int) -> None:
    with torch.no_grad():
        layer.weight.zero_()  # so that float32 keeps the small movements
    config = OptimizerConfig(lr=1e-3, decay=0.0, epsilon_hat=hat)
    optimizer = Optimizer("x", [layer], config)
    for g in gradients(steps):
        optimizer.step((layer.weight * g).sum())
    expected = moved(torch.zeros(2, 3), gradients(steps), config)
    assert_close(layer.weight.double(), expected, rtol=2e-5, atol=1e-9)


def test_the_position_of_epsilon_changes_the_first_updates() -> None:
    """By 20 % and more here; the difference vanishes later."""
    keras, torchs = keras_adam(1e-3), OptimizerConfig(lr=1e-3)
    for steps, different in ((1, True), (6, True), (3000, False)):
        a, b = (moved(torch.zeros(2, 3), gradients(steps), c) for c in (keras, torchs))
        assert ((a - b).norm() > 0.2 * b.norm()) == different, steps


@pytest.mark.parametrize("hat", [False, True])
def test_a_saved_optimiser_continues_exactly(hat: bool) -> None:
    """Also one saved by PyTorch's place of epsilon: only the denominator differs."""
    grads, config = gradients(8), OptimizerConfig(lr=1e-3, epsilon_hat=hat)

    def run(net: nn.Linear, optimizer: Optimizer, gradients_of_run: torch.Tensor) -> torch.Tensor:
        for g in gradients_of_run:
            optimizer.step((net.weight * g).sum())
        return net.weight.detach().clone()

    torch.manual_seed(0)
    one = nn.Linear(3, 2)
    first = Optimizer("x", [one], config)
    run(one, first, grads[:4])
    saved, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(one.state_dict())
    expected = run(one, first, grads[4:])
    saved["adam"]["param_groups"][0]["eps"] = 1e-5  # as in a file from before epsilon_hat
    other = nn.Linear(3, 2)
    other.load_state_dict(weights)
    second = Optimizer("x", [other], config)
    second.load_state_dict(saved)
    assert run(other, second, grads[4:]).equal(expected)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_not_finite_changes_nothing(layer, part: str) -> None:
    optimizer = Optimizer("x", [layer], OptimizerConfig())
    optimizer.step(layer(torch.ones(1, 3)).sum())
    before = [p.clone() for p in layer.parameters()]
    out = layer(torch.zeros(1, 3)).square().sum()
    loss = out * float("nan") if part == "loss" else (out - out.detach()).sqrt()
    with pytest.raises(FloatingPointError, match="x/loss" if part == "loss" else "x/grad_norm"):
        optimizer.step(loss)
    assert all(p.equal(q) for p, q in zip(layer.parameters(), before, strict=True))
    assert optimizer.updates == 1


def test_adaptive_clipping_is_per_tensor_in_units_of_its_norm() -> None:
    """The first step of momentum of normalised gradients hides the clip; plain norms show it."""
    net = nn.Module()
    net.large, net.small = nn.Parameter(torch.full((4,), 2.0)), nn.Parameter(torch.zeros(4))
    optimizer = Optimizer("x", [net], laprop())
    net.large.grad, net.small.grad = torch.full((4,), 50.0), torch.full((4,), 1e-5)
    norm = optimizer.clip()
    assert_close(norm, 100.0)
    assert_close(net.large.grad.norm(), torch.tensor(0.3 * 4.0))
    assert_close(net.small.grad, torch.full((4,), 1e-5))  # below .3 of the smallest norm, 1e-3
    net.small.grad.fill_(1.0)
    optimizer.clip()
    assert_close(net.small.grad.norm(), torch.tensor(0.3 * 1e-3))


def test_steps_of_laprop_are_as_long_as_the_rate(layer) -> None:
    """Of the first update exactly, whatever the gradient's scale."""
    for scale in (1e-6, 1.0):
        before = layer.weight.detach().clone()
        Optimizer("x", [layer], laprop(1e-3, warmup=0)).step(scale * layer(torch.ones(1, 3)).sum())
        assert_close((before - layer.weight).detach(), torch.full((2, 3), 1e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("config", [OptimizerConfig(lr=1e-2), laprop(1e-2, warmup=0)])
def test_optimisers_of_parts_move_as_one_of_all_from_one_backward(config) -> None:
    """Clipping is per tensor, or of no effect here."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    other = copy.deepcopy(net)
    whole = Optimizer("all", [net], config)
    parts = [Optimizer(str(i), [other[i]], config) for i in range(2)]
    for _ in range(3):
        x = torch.randn(5, 3)
        whole.step(net(x).square().mean())
        norms = minimise(other(x).square().mean(), parts)
    assert set(norms) == {"0/grad_norm", "1/grad_norm"}
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert_close(a, b)


def test_a_gradient_of_one_part_that_is_not_finite_moves_none() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    before = [p.detach().clone() for p in net.parameters()]
    parts = [Optimizer(str(i), [net[i]], OptimizerConfig()) for i in range(2)]
    bad = (net[0](torch.ones(1)) - net[0](torch.ones(1))).abs().sqrt().sum()  # infinite slope at 0
    with pytest.raises(FloatingPointError, match="0/grad_norm"):
        minimise(bad + net[1](torch.ones(1)).sum(), parts)
    assert all(p.equal(q) for p, q in zip(net.parameters(), before, strict=True))
    assert [part.updates for part in parts] == [0, 0]


def test_laprop_resumes_exactly(layer) -> None:
    optimizer = Optimizer("x", [layer], laprop(1e-2, warmup=3))
    for _ in range(2):
        optimizer.step(layer(torch.randn(4, 3)).square().sum())
    state, twin = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(layer)
    other = Optimizer("x", [twin], laprop(1e-2, warmup=3))
    other.load_state_dict(state)
    x = torch.randn(4, 3)
    for each, net in ((optimizer, layer), (other, twin)):
        each.step(net(x).square().sum())
    assert layer.weight.equal(twin.weight)


def test_the_place_of_epsilon_is_adam_s() -> None:
    with pytest.raises(ModelError, match="epsilon_hat: got True, expected False"):
        OptimizerConfig(algorithm="laprop", epsilon_hat=True)


def test_a_held_rate_is_zero_while_adam_s_means_already_learn(layer) -> None:
    optimizer = Optimizer("x", [layer], OptimizerConfig(lr=0.1, hold=2, decay=0.0))
    before, rates = layer.weight.clone(), []
    for _ in range(3):
        assert len(rates) == 3 or layer.weight.equal(before)
        optimizer.step(layer(torch.ones(1, 3)).sum())
        rates.append(optimizer.rule.param_groups[0]["lr"])
    assert rates == [0.0, 0.0, 0.1]
    assert optimizer.rule.state[layer.weight]["step"] == 3


def test_one_loss_moves_the_weights_of_two_optimisers_as_each_alone(layer) -> None:
    """Each clips by the norm of its own gradient."""
    torch.manual_seed(1)
    net = nn.Sequential(layer, nn.Linear(2, 1))

    def stepped(*parts: int) -> nn.Sequential:
        copied = copy.deepcopy(net)
        config = OptimizerConfig(lr=0.1, eps=1.0, clip=0.01)
        optimizers = [Optimizer(f"{i}", [copied[i]], config) for i in parts]
        norms = minimise(copied(torch.ones(1, 3)).sum(), optimizers)
        assert list(norms) == [f"{i}/grad_norm" for i in parts]
        return copied

    both = stepped(0, 1)
    for i in (0, 1):
        assert both[i].weight.equal(stepped(i)[i].weight)
        assert not both[i].weight.equal(net[i].weight)


def test_of_two_optimisers_none_steps_when_one_gradient_is_not_finite(layer) -> None:
    second = nn.Linear(2, 1)
    optimizers = [Optimizer(n, [m], OptimizerConfig()) for n, m in (("a", second), ("b", layer))]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    before = copy.deepcopy([layer.state_dict(), second.state_dict()])
    loss = second(layer(torch.ones(1, 3)).abs().sqrt()).sum()  # the root's slope at 0 is infinite
    with pytest.raises(FloatingPointError, match="b/grad_norm"):
        minimise(loss, optimizers)
    for module, old in zip((layer, second), before, strict=True):
        assert all(v.equal(old[k]) for k, v in module.state_dict().items())
