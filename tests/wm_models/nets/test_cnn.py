"""Convolutional encoders and decoders: published sizes, scales of images, and settings."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.nets.cnn import ChannelNorm, CNNConfig, CNNDecoder, CNNEncoder

V3 = CNNConfig(64, 32, "same", "silu", "layer", "truncated_normal")


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("config", "width", "feat", "encoder", "decoder"),
    [
        (CNNConfig(), 1536, 2048, 1_551_312, 11_152_275),
        (CNNConfig(), 1536, 1224, 1_551_312, 9_886_611),
        (V3, 4096, 1536, 690_624, 6_985_667),
    ],
)
def test_published_sizes(
    config: CNNConfig, width: int, feat: int, encoder: int, decoder: int
) -> None:
    assert config.width == width
    assert count(CNNEncoder(config)) == encoder
    assert count(CNNDecoder(config, feat)) == decoder


@pytest.mark.parametrize("config", [CNNConfig(depth=2), CNNConfig(32, 2, "same", norm="layer")])
def test_images_in_bytes_and_in_floats_are_the_same(config: CNNConfig) -> None:
    torch.manual_seed(0)
    encoder, size = CNNEncoder(config), config.image_size
    raw = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    floats = raw.permute(0, 3, 1, 2).float() / 255.0
    assert_close(encoder(raw), encoder(floats))
    assert encoder(raw).shape == (2, config.width)
    decoded = CNNDecoder(config, 5)(torch.randn(2, 3, 5))
    assert decoded.shape == (2, 3, 3, size, size)
    with pytest.raises(ValueError, match=r"image: got \(2, 3, 16, 16\)"):
        encoder(torch.zeros(2, 3, 16, 16))


def test_channel_norm_is_of_each_pixel() -> None:
    x = torch.randn(2, 8, 3, 3) * 5 + 2
    out = ChannelNorm("layer", 8)(x)
    assert_close(out.mean(1), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    assert_close(out.var(1, unbiased=False), torch.ones(2, 3, 3), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 96},
        {"image_size": 48, "padding": "same"},
        {"image_size": 4, "padding": "same"},
        {"padding": "full"},
        {"depth": 0},
        {"norm": "batch"},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        CNNConfig(**wrong)


def test_sizes_of_images_that_double() -> None:
    for size, layers in ((8, 1), (16, 2), (128, 5)):
        config = CNNConfig(size, 2, "same")
        assert config.layers == layers
        assert CNNDecoder(config, 4)(torch.zeros(1, 4)).shape == (1, 3, size, size)
