"""Layers and core of the block GRU."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.block_gru import BlockRSSM, make_rssm
from wm_models.nets.blocks import BlockLinear, RMSNorm, truncated_normal_in_
from wm_models.nets.rssm import RSSM, RSSMConfig, RSSMState

BLOCK = RSSMConfig(
    core="block", deter=16, hidden=6, stoch=3, classes=4, blocks=4, prior_layers=2, action_pad=0,
    act="silu", norm="rms", unimix=0.01, init="truncated_normal_in",
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_block_layer_is_a_full_layer_of_a_block_diagonal_matrix() -> None:
    layer = BlockLinear(8, 12, 4, shared=5)
    with torch.no_grad():
        layer.bias.normal_()
    full = torch.zeros(13, 12)
    for i in range(4):
        full[2 * i : 2 * i + 2, 3 * i : 3 * i + 3] = layer.weight[i, :2]
        full[8:, 3 * i : 3 * i + 3] = layer.weight[i, 2:]
    x, shared = torch.randn(7, 8), torch.randn(7, 5)
    assert_close(layer(x, shared), torch.cat([x, shared], -1) @ full + layer.bias)
    plain = BlockLinear(8, 12, 4)
    plain.load_state_dict({"weight": layer.weight[:, :2], "bias": layer.bias})
    assert_close(plain(x), x @ full[:8] + layer.bias)


def test_initial_weights_have_the_variance_of_the_fan_in() -> None:
    linear = torch.nn.Linear(400, 300)
    truncated_normal_in_(linear)
    assert float(linear.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert linear.weight.abs().max() <= 2 / 0.8796 * 400**-0.5 and not linear.bias.any()
    block = BlockLinear(400, 400, 4, shared=100)  # as a full layer of 400 + 4 * 100 inputs
    assert float(block.weight.detach().std()) == pytest.approx(800**-0.5, rel=0.02)


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    x = 100.0 * torch.randn(3, 8, generator=seeded()) + 50.0
    norm = RMSNorm(8)
    assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt())
    assert [n for n, _ in norm.named_parameters()] == ["weight"]
    assert_close(norm(torch.full((1, 8), 1e-2)), torch.full((1, 8), 0.5**0.5))  # eps counts there


def test_the_core_follows_its_formula() -> None:
    rssm = make_rssm(BLOCK, 2, 5)
    assert isinstance(rssm, BlockRSSM)
    g = seeded()
    state = RSSMState(torch.randn(3, 16, generator=g), torch.randn(3, 3, 4, generator=g))
    action = torch.rand(3, 2, generator=g)
    inputs = (state.deter, state.stoch.flatten(1), action)
    layers = (rssm.deter_in, rssm.stoch_in, rssm.action_in)
    shared = torch.cat([layer(x) for layer, x in zip(layers, inputs, strict=True)], -1)
    mixed = torch.nn.functional.silu(rssm.mix_norm(rssm.mix(state.deter, shared)))
    gates = rssm.gru(mixed).reshape(3, 4, 12)  # in each block: reset, candidate, update, 4 each
    reset, cand, update = (gates[..., 4 * i : 4 * i + 4].reshape(3, 16) for i in range(3))
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * state.deter
    assert_close(rssm.recur(state, rssm.project_action(action)), expected)


def test_the_plain_core_is_the_default() -> None:
    assert type(make_rssm(RSSMConfig(deter=8, hidden=8, action_pad=0), 2, 5)) is RSSM


def test_settings_are_checked() -> None:
    with pytest.raises(ModelError, match="deter: got 18, expected a multiple of blocks, 4"):
        RSSMConfig(core="block", deter=18, blocks=4, action_pad=0)
    with pytest.raises(ModelError, match="action_pad: got 50, expected 0 with core 'block'"):
        RSSMConfig(core="block")
