"""Convolutional encoders and decoders of the Dreamer family."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.nets.blocks import (
    ACTIVATIONS,
    INITIALIZERS,
    NORMS,
    biased,
    initialize_output_,
    norm_layer,
)

CENTRE = 0.5  # images are shifted by this, to -0.5..0.5
SMALLEST = 4  # side of the grid behind the last "same" convolution


@dataclass(frozen=True)
class CNNConfig:
    """Convolutions with kernel 4 and stride 2. The defaults are DreamerV2's.

    padding: "valid", four convolutions of 64 x 64 pixels down to 2 x 2; the decoder has kernels 5,
    5, 6, 6 (DreamerV2, APV). "same": each convolution halves the side, down to 4 (DreamerV3). Each
    layer has twice the channels of the one before, ``depth`` in the first.
    """

    image_size: int = 64  # side of the images [px]
    depth: int = 48  # channels of the first convolution
    padding: str = "valid"  # "valid" or "same"
    act: str = "elu"  # activation: elu, relu, silu or none
    norm: str = "none"  # "layer", "rms": over the channels of each pixel
    init: str = "glorot"  # of the weights: glorot, truncated_normal or truncated_normal_in

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("image_size", "depth", high=16384)
        check.choice("padding", ("valid", "same"))
        check.choice("act", tuple(ACTIVATIONS))
        check.choice("norm", NORMS)
        check.choice("init", tuple(INITIALIZERS))
        if self.padding == "valid" and self.image_size != 64:
            check.refuse("image_size", "64 with padding 'valid'; use padding 'same'")
        if self.padding == "same" and self.image_size != SMALLEST * 2**self.layers:
            check.refuse("image_size", "a power of two from 8 with padding 'same'")

    @property
    def layers(self) -> int:
        if self.padding == "valid":
            return 4
        return max((self.image_size // SMALLEST).bit_length() - 1, 1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of each convolution of the encoder."""
        return tuple(self.depth * 2**i for i in range(self.layers))

    @property
    def grid(self) -> int:
        """Side of the encoder's last grid."""
        return 2 if self.padding == "valid" else SMALLEST

    @property
    def width(self) -> int:
        """Numbers that the encoder makes of an image."""
        return self.channels[-1] * self.grid**2

    def encoder(self, channels: int = 3) -> CNNEncoder:
        return CNNEncoder(self, channels)

    def decoder(self, feat: int, deter: int, channels: int = 3) -> CNNDecoder:
        """A decoder of features of which the last ``deter`` are the recurrent state's."""
        return CNNDecoder(self, feat, channels)


class CNNEncoder(nn.Module):
    """Images to numbers: uint8 (B, H, W, C), or float 0..1 (B, C, H, W), -> (B, width).

    C: ``channels``, 3 for each image.
    """

    def __init__(self, config: CNNConfig, channels: int = 3) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        pad = 0 if config.padding == "valid" else 1
        layers: list[nn.Module] = []
        for a, b in pairwise((channels, *config.channels)):
            conv = nn.Conv2d(a, b, 4, 2, pad, bias=biased(config.norm))
            layers += [conv, *_norm(config, b), ACTIVATIONS[config.act]()]
        self.net = nn.Sequential(*layers)
        INITIALIZERS[config.init](self)

    def forward(self, image: Tensor) -> Tensor:
        flat: Tensor = self.net(centred(image, self.config.image_size, self.channels)).flatten(1)
        return flat


class CNNDecoder(nn.Module):
    """State features (..., F) -> images around 0, -0.5..0.5: (..., C, H, W).

    C: ``channels_out``, 3 for each image.
    """

    def __init__(self, config: CNNConfig, feat: int, channels_out: int = 3) -> None:
        super().__init__()
        self.config = config
        channels = config.channels[::-1]
        if config.padding == "valid":
            self.shape = (4 * channels[0], 1, 1)
            widths = (4 * channels[0], *channels[1:], channels_out)
            kernels: tuple[int, ...] = (5, 5, 6, 6)
            pad = 0
        else:
            self.shape = (channels[0], SMALLEST, SMALLEST)
            widths = (*channels, channels_out)
            kernels, pad = (4,) * config.layers, 1
        self.inputs = nn.Linear(feat, self.shape[0] * self.shape[1] * self.shape[2])
        layers: list[nn.Module] = []
        for (a, b), kernel in zip(pairwise(widths[:-1]), kernels[:-1], strict=True):
            conv = nn.ConvTranspose2d(a, b, kernel, 2, pad, bias=biased(config.norm))
            layers += [conv, *_norm(config, b), ACTIVATIONS[config.act]()]
        layers.append(nn.ConvTranspose2d(widths[-2], widths[-1], kernels[-1], 2, pad))
        self.net = nn.Sequential(*layers)
        INITIALIZERS[config.init](self)
        if config.init != "glorot":  # Glorot's is an output layer's
            initialize_output_(self.inputs, config.init, 1.0)
            initialize_output_(self.net[-1], config.init, 1.0)

    def forward(self, feat: Tensor) -> Tensor:
        lead = feat.shape[:-1]
        x = self.inputs(feat.reshape(-1, feat.shape[-1]))
        if self.config.padding == "same":  # the release's order of the first layer's outputs
            x = x.unflatten(-1, (SMALLEST, SMALLEST, -1)).permute(0, 3, 1, 2)
        image: Tensor = self.net(x.reshape(-1, *self.shape))
        return image.reshape(*lead, *image.shape[1:])


class ChannelNorm(nn.Module):
    """A norm over the channels of each pixel, (B, C, H, W)."""

    def __init__(self, norm: str, channels: int) -> None:
        super().__init__()
        self.norm = norm_layer(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def _norm(config: CNNConfig, channels: int) -> list[nn.Module]:
    return [] if config.norm == "none" else [ChannelNorm(config.norm, channels)]


def centred(image: Tensor, size: int, channels: int = 3) -> Tensor:
    """uint8 (B, H, W, C), or float 0..1 (B, C, H, W), as float -0.5..0.5 (B, C, H, W)."""
    raw = image.dtype == torch.uint8
    x = image.permute(0, 3, 1, 2) if raw else image
    if x.shape[1:] != (channels, size, size):
        raise ValueError(
            f"image: got {tuple(x.shape)} after moving channels first, expected "
            f"(B, {size}, {size}, {channels}) uint8 or (B, {channels}, {size}, {size}) float."
        )
    return (x.float() / 255.0 if raw else x) - CENTRE
