"""Image reconstruction from visual tokens, for inspection; trained on detached tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.interface.checked import Checked


@dataclass(frozen=True)
class DecoderConfig:
    """VQ-VAE-2's decoder without the quantiser. The defaults are DINO-WM's."""

    channels: int = 384  # between the stages
    blocks: int = 4  # residual blocks per stage
    narrow: int = 128  # channels inside them

    def __post_init__(self) -> None:
        Checked(self).whole("channels", "narrow", high=16384)
        Checked(self).whole("blocks", low=0, high=64)


class Residual(nn.Module):
    """x + 1x1(ReLU(3x3(ReLU(x))))."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.net(x)
        return out


class Upsampler(nn.Sequential):
    """(B, c, h, w) to (B, c', 4h, 4w)."""

    def __init__(self, config: DecoderConfig, width_in: int, width_out: int) -> None:
        wide = config.channels
        super().__init__(
            nn.Conv2d(width_in, wide, 3, padding=1),
            *[Residual(wide, config.narrow) for _ in range(config.blocks)],
            nn.ReLU(),
            nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(wide // 2, width_out, 4, 2, 1),
        )


class Decoder(nn.Module):
    """Visual tokens (..., g * g, d) to images (..., 3, S, S) in the scale [-1, 1]."""

    def __init__(self, config: DecoderConfig, width: int, grid: int, image_size: int) -> None:
        super().__init__()
        self.grid, self.image_size = grid, image_size
        self.net = nn.Sequential(
            Upsampler(config, width, config.channels), Upsampler(config, config.channels, 3)
        )

    def forward(self, visual: Tensor) -> Tensor:
        lead, width = visual.shape[:-2], visual.shape[-1]
        flat = visual.reshape(-1, self.grid, self.grid, width).permute(0, 3, 1, 2)
        image: Tensor = self.net(flat)
        if image.shape[-1] != self.image_size:
            image = F.interpolate(image, (self.image_size,) * 2, mode="bilinear")
        return image.reshape(*lead, *image.shape[1:])
