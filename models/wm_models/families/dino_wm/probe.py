"""Estimates proprioception from an image, for goals without measured proprioception."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from wm_models.encoders.base import HALF, ImageEncoder
from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.nets.blocks import ConvStem


@dataclass(frozen=True)
class ProbeConfig:
    """A small network on the image, not on the encoder's tokens: tokens of 16 pixels do not hold
    the position of an end effector to the centimetre (mean error on the simulated arm: 5.1 cm from
    tokens, 1.1 cm from the image)."""

    channels: tuple[int, ...] = (16, 32, 32)  # each halves the image's side
    units: int = 128  # of the hidden layer

    def __post_init__(self) -> None:
        Checked(self).whole("units", high=16384)


class Probe(ImageEncoder):
    """uint8 (B, H, W, 3), or float 0..1 (B, 3, H, W), to z-scored proprioception (B, P)."""

    def __init__(self, config: ProbeConfig, image_size: int, proprio: int) -> None:
        super().__init__(image_size, HALF, HALF)
        shrink, width = 2 ** len(config.channels), config.channels[-1]
        if image_size % shrink:
            raise ModelError(
                f"probe.channels: got an image side of {image_size}, expected a multiple of "
                f"{shrink}."
            )
        self.look = ConvStem(config.channels, width)
        self.read = nn.Sequential(
            nn.GELU(),
            nn.Linear((image_size // shrink) ** 2 * width, config.units),
            nn.GELU(),
            nn.Linear(config.units, proprio),
        )

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.read(self.look(self.standardise(image)).flatten(1))
        return scores
