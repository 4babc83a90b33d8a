"""Reads proprioception off a picture, for goals of which only the picture is known."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from wm_models.encoders.base import HALF, PictureEncoder
from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.nets.blocks import ConvStem


@dataclass(frozen=True)
class ProbeConfig:
    """A small network of its own. It looks at the picture, not at the encoder's tokens: where a
    hand is to the centimetre is no longer in tokens of 16 pixels (5.1 cm off on average, 1.1 cm by
    this, both read off the simulated arm)."""

    channels: tuple[int, ...] = (16, 32, 32)  # each halves the picture's side
    units: int = 128

    def __post_init__(self) -> None:
        Checked(self).whole("units", high=16384)


class Probe(PictureEncoder):
    """uint8 (B, H, W, 3), or float 0..1 (B, 3, H, W), to z-scored proprioception (B, P)."""

    def __init__(self, config: ProbeConfig, image_size: int, proprio: int) -> None:
        super().__init__(image_size, HALF, HALF)
        shrink, width = 2 ** len(config.channels), config.channels[-1]
        if image_size % shrink:
            raise ModelError(
                f"probe.channels: expected a picture's side that is a multiple of {shrink}, got "
                f"{image_size}."
            )
        self.look = ConvStem(config.channels, width)
        self.read = nn.Sequential(
            nn.GELU(),
            nn.Linear((image_size // shrink) ** 2 * width, config.units),
            nn.GELU(),
            nn.Linear(config.units, proprio),
        )

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.read(self.look(self.standardise(image)).flatten(1))
        return found
