"""The CNN with pooling and nearest neighbours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.pooled_cnn import PooledCNNConfig, UpsampledConv


def test_shapes() -> None:
    config = PooledCNNConfig(depth=2, units=8)
    assert config.channels == (4, 6, 8, 8) and config.grid == 4 and config.width == 128
    encoder, decoder = config.encoder(), config.decoder(40, 24)
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert encoder(image).shape == (2, 128)
    out = decoder(torch.randn(2, 5, 40))
    assert out.shape == (2, 5, 3, 64, 64)
    assert out.abs().max() < 0.5  # 0..1 around 0


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_transposed_convolution_is_a_convolution_of_the_enlarged_image(kernel: int) -> None:
    layer = UpsampledConv(3, 4, kernel).double()
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    large = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(large, layer.weight, layer.bias, padding=kernel // 2)
    got = layer(x)
    assert_close(got, expected)
    loss = torch.randn_like(got)
    inputs = (x, layer.weight, layer.bias)
    grads = [torch.autograd.grad((y * loss).sum(), inputs) for y in (got, expected)]
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


def test_uint8_and_float_images_are_encoded_alike() -> None:
    encoder = PooledCNNConfig(image_size=16, depth=2, mults=(2, 4), units=8).encoder()
    image = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    assert_close(encoder(image), encoder(image.permute(0, 3, 1, 2).float() / 255.0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"image_size": 40}, "image_size: got 40, expected a multiple of 16"),
        ({"kernel": 4}, "kernel: got 4, expected an odd number"),
        ({"mults": ()}, "mults: got"),
        ({"depth": 3}, "depth: got 3, expected the last channels a multiple of blocks, 8"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        PooledCNNConfig(**settings)


def test_the_decoder_needs_a_recurrent_state_that_its_blocks_divide() -> None:
    with pytest.raises(ModelError, match=r"PooledCNNConfig\.blocks: got 8, expected a divisor"):
        PooledCNNConfig(image_size=16, depth=4).decoder(120, 100)
