"""Convolutions of DreamerV3 (Nature 2025): max-pooling down, nearest neighbours up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.nets.blocks import (
    ACTIVATIONS,
    INITIALIZERS,
    NORMS,
    BlockLinear,
    hidden,
    initialize_output_,
)
from wm_models.nets.cnn import CENTRE, ChannelNorm, centred


@dataclass(frozen=True)
class PooledCNNConfig:
    """Convolutions with stride 1, each with a pooling or an upsampling by 2. The defaults are those
    of DreamerV3 (Nature 2025) with 12M parameters."""

    image_size: int = 64  # side of the images [px]
    depth: int = 16  # channels, times mults
    mults: tuple[int, ...] = (2, 3, 4, 4)  # channels of the encoder's layers, in units of depth
    kernel: int = 5  # side of the convolutions [px]
    units: int = 256  # the decoder's hidden layer on the latents has twice as many
    blocks: int = 8  # of the decoder's layer on the recurrent state
    act: str = "silu"  # activation: elu, relu, silu or none
    norm: str = "rms"  # over the channels of each pixel: rms, layer or none
    init: str = "truncated_normal_in"  # of the weights

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("image_size", "depth", "units", "blocks", high=16384)
        check.whole("kernel", high=15)
        check.choice("act", tuple(ACTIVATIONS))
        check.choice("norm", NORMS)
        check.choice("init", tuple(INITIALIZERS))
        if not self.mults or min(self.mults) < 1:
            check.refuse("mults", "whole numbers of at least 1")
        if self.kernel % 2 == 0:
            check.refuse("kernel", "an odd number")
        if self.image_size % 2 ** len(self.mults):
            check.refuse("image_size", f"a multiple of {2 ** len(self.mults)}, for its poolings")
        if self.channels[-1] % self.blocks:
            check.refuse("depth", f"the last channels a multiple of blocks, {self.blocks}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of each convolution of the encoder."""
        return tuple(self.depth * mult for mult in self.mults)

    @property
    def grid(self) -> int:
        """Side of the encoder's last grid."""
        return self.image_size >> len(self.mults)

    @property
    def width(self) -> int:
        """Numbers that the encoder makes of an image."""
        return self.channels[-1] * self.grid**2

    def encoder(self, channels: int = 3) -> PooledEncoder:
        return PooledEncoder(self, channels)

    def decoder(self, feat: int, deter: int, channels: int = 3) -> PooledDecoder:
        """A decoder of features of which the last ``deter`` are the recurrent state's. ModelError:
        these cannot be split into ``blocks``."""
        if deter % self.blocks:
            Checked(self).refuse("blocks", f"a divisor of the recurrent state's {deter} numbers")
        return PooledDecoder(self, feat, deter, channels)


class PooledEncoder(nn.Module):
    """Images to numbers: uint8 (B, H, W, C), or float 0..1 (B, C, H, W), -> (B, width).

    C: ``channels``, 3 for each image.
    """

    def __init__(self, config: PooledCNNConfig, channels: int = 3) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        layers: list[nn.Module] = []
        for a, b in pairwise((channels, *config.channels)):
            conv = nn.Conv2d(a, b, config.kernel, padding=config.kernel // 2)
            layers += [conv, nn.MaxPool2d(2), *_normed(config, b)]
        self.net = nn.Sequential(*layers)
        INITIALIZERS[config.init](self)

    def forward(self, image: Tensor) -> Tensor:
        x = centred(image, self.config.image_size, self.channels)
        flat: Tensor = self.net(x.contiguous(memory_format=torch.channels_last)).flatten(1)
        return flat


class PooledDecoder(nn.Module):
    """State features (..., F) -> images around 0, -0.5..0.5: (..., C, H, W).

    C: ``channels_out``, 3 for each image. The recurrent state enters by blocks of channels, the
    latents through a hidden layer.
    """

    def __init__(
        self, config: PooledCNNConfig, feat: int, deter: int, channels_out: int = 3
    ) -> None:
        super().__init__()
        self.config, self.latent = config, feat - deter
        channels, width = config.channels[::-1], config.width
        self.from_deter = BlockLinear(deter, width, config.blocks)
        self.from_stoch = nn.Sequential(
            *hidden(self.latent, 2 * config.units, config.act, config.norm),
            nn.Linear(2 * config.units, width),
        )
        layers: list[nn.Module] = [*_normed(config, channels[0])]
        for a, b in pairwise(channels):
            layers += [UpsampledConv(a, b, config.kernel), *_normed(config, b)]
        layers.append(UpsampledConv(channels[-1], channels_out, config.kernel))
        self.net = nn.Sequential(*layers)
        INITIALIZERS[config.init](self)
        initialize_output_(self.net[-1], config.init, 1.0)

    def forward(self, feat: Tensor) -> Tensor:
        lead, c = feat.shape[:-1], self.config
        stoch, deter = feat.reshape(-1, feat.shape[-1]).tensor_split([self.latent], -1)
        x = self.from_deter(deter).unflatten(-1, (c.blocks, c.grid, c.grid, -1))
        x = x.permute(0, 2, 3, 1, 4).flatten(-2)  # (N, grid, grid, channels)
        x = x + self.from_stoch(stoch).reshape(x.shape)
        image: Tensor = self.net(x.permute(0, 3, 1, 2))
        image = torch.sigmoid(image.float()) - CENTRE
        return image.reshape(*lead, *image.shape[1:])


class UpsampledConv(nn.Conv2d):
    """A convolution of the image enlarged by 2: (B, C, H, W) -> (B, C', 2 H, 2 W).

    Computed as one transposed convolution of the small image, with the same result: of the kernel's
    k * k products per pixel of the output, those that meet the same pixel of the input are added
    before they are multiplied, which leaves (k + 1)^2 / 4.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int) -> None:
        super().__init__(width_in, width_out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.transpose(0, 1).flip(-1, -2)
        kernel = F.pad(kernel, (0, 1, 0, 0)) + F.pad(kernel, (1, 0, 0, 0))
        kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
        return F.conv_transpose2d(x, kernel, self.bias, 2, self.kernel_size[0] // 2)


def _normed(config: PooledCNNConfig, channels: int) -> list[nn.Module]:
    """Norm and activation of a grid."""
    norms = [] if config.norm == "none" else [ChannelNorm(config.norm, channels)]
    return [*norms, ACTIVATIONS[config.act]()]
