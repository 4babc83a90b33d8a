"""Patches, positions and initialisation."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_models.nets.blocks import (
    Block,
    ConvStem,
    PatchStem,
    Transformer,
    glorot_,
    mlp,
    patchify,
    sincos_2d,
    truncated_normal_,
    uniform_,
    unpatchify,
)


def test_patches_are_in_row_column_channel_order() -> None:
    image = torch.arange(2 * 3 * 16 * 24, dtype=torch.float32).reshape(2, 3, 16, 24)
    patches = patchify(image, 8)
    assert patches.shape == (2, 6, 192)
    row, col, channel = 5, 2, 1
    expected = image[1, channel, 8 + row, 16 + col]
    assert patches[1, 3 + 2, (row * 8 + col) * 3 + channel] == expected


def test_unpatchify_is_the_inverse() -> None:
    image = torch.rand(2, 3, 32, 32)
    assert unpatchify(patchify(image, 8), 8, 4).equal(image)


def test_position_table() -> None:
    grid, corner = sincos_2d(16, 8)
    assert grid.shape == (64, 16) and corner.shape == (16,)

    def expected(row: int, col: int) -> torch.Tensor:
        omega = [10000.0 ** (-i / 4) for i in range(4)]
        halves = [[f(p * w) for f in (math.sin, math.cos) for w in omega] for p in (col, row)]
        return torch.tensor(halves[0] + halves[1])

    assert_close(grid[3 * 8 + 5], expected(3, 5))
    assert_close(corner, expected(8, 8))
    assert len(torch.cat([grid, corner[None]]).unique(dim=0)) == 65
    with pytest.raises(ValueError, match="got width 6, expected a multiple of 4"):
        sincos_2d(6, 8)


def test_initialisation_is_that_of_keras() -> None:
    net = nn.Sequential(nn.Linear(30, 50), nn.Conv2d(3, 8, 4))
    glorot_(net)
    limit = math.sqrt(6 / 80)
    assert 0.9 * limit < net[0].weight.abs().max() <= limit
    assert not net[0].bias.any() and not net[1].bias.any()


@pytest.mark.parametrize(("width", "heads", "ratio"), [(64, 4, 4.0), (48, 2, 3.0)])
def test_the_block_is_timm_s(width: int, heads: int, ratio: float) -> None:
    """Same names, initial values of a seed and outputs, so that shipped weights stay valid."""
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    norm = partial(nn.LayerNorm, eps=1e-6)
    torch.manual_seed(0)
    theirs = vision_transformer.Block(width, heads, ratio, qkv_bias=True, norm_layer=norm)
    torch.manual_seed(0)
    ours = Block(width, heads, ratio)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert ours.state_dict()[name].equal(value), name
    x = torch.randn(2, 9, width)
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="got 64, expected a multiple of 3 heads"):
        Block(64, 3, 4.0)


@pytest.mark.parametrize(
    ("layers", "shapes"),
    [(0, [(3, 7)]), (1, [(5, 7), (3, 5)]), (3, [(5, 7), (5, 5), (5, 5), (3, 5)])],
)
def test_an_mlp_has_so_many_hidden_layers_and_a_linear_output(layers: int, shapes: list) -> None:
    net = mlp(7, 5, layers, 3, "relu")
    assert [tuple(m.weight.shape) for m in net if isinstance(m, nn.Linear)] == shapes
    assert len(net) == 2 * layers + 1 and all(isinstance(m, nn.ReLU) for m in net[1::2])


@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_position_table_is_that_of_its_size(size: int) -> None:
    grid, corner = sincos_2d(8, size)
    larger, _ = sincos_2d(8, 9)
    assert grid.reshape(size, size, 8).equal(larger.reshape(9, 9, 8)[:size, :size])
    assert corner.equal(larger.reshape(9, 9, 8)[size, size])


def test_stems_give_one_token_per_patch() -> None:
    image = torch.rand(2, 3, 16, 32)
    assert ConvStem((4, 5, 6), 7)(image).shape == (2, 2 * 4, 7)
    stem = PatchStem(8, 7)
    assert_close(stem(image), stem.proj(patchify(image, 8)))
    assert len(Transformer(8, 3, 2)) == 4


def test_output_layers_begin_as_small_as_their_scale() -> None:
    """Uniform, with the variance of the fan average times the scale."""
    layer = nn.Linear(60, 20)
    nn.init.ones_(layer.bias)
    for scale in (0.1, 0.9):
        uniform_(layer, scale)
        bound = (3.0 * scale / 40.0) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.min() < -0.9 * bound and not layer.bias.any()
    uniform_(layer, 0.0)
    assert not layer.weight.any()


def test_truncated_normal_weights() -> None:
    """Variance 1 / fan average although the tails are cut, and no value beyond two std."""
    conv = nn.Conv2d(30, 50, 4)
    nn.init.ones_(conv.bias)
    truncated_normal_(conv)
    fan = 16 * (30 + 50) / 2
    assert_close(conv.weight.std(), torch.tensor(fan**-0.5), rtol=0.02, atol=0)
    assert conv.weight.abs().max() <= 2 * fan**-0.5 / 0.8796 and not conv.bias.any()


def test_a_normed_hidden_layer_has_no_bias() -> None:
    net = mlp(4, 8, 2, 3, "silu", "layer")
    assert [type(m).__name__ for m in net] == [*["Linear", "LayerNorm", "SiLU"] * 2, "Linear"]
    assert net[0].bias is None and net[-1].bias is not None
