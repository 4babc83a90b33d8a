"""Our own small convolutional encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from wm_models.encoders.base import HALF, RGB, ImageEncoder
from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.nets.blocks import ConvStem


@dataclass(frozen=True)
class ConvConfig:
    """A small encoder of our own: stride-2 convolutions, and a norm without weights.

    It is first trained to reconstruct its images, or left random.
    """

    image_size: int = 64  # side of the images [px]
    channels: tuple[int, ...] = (16, 32, 48, 64)  # each halves the image's side
    width: int = 64  # of a token
    mean: RGB = HALF  # of each channel, subtracted
    std: RGB = HALF  # of each channel, divided by

    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("image_size", "width", high=16384)
        if not self.channels or not all(0 < c <= 16384 for c in self.channels):
            check.refuse("channels", "numbers from 1 to 16384")
        if self.image_size % 2 ** len(self.channels):
            raise ModelError(
                f"encoder.image_size: got {self.image_size}, expected a multiple of "
                f"{2 ** len(self.channels)}."
            )

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return self.image_size // (1 << len(self.channels))

    def make(self) -> ConvEncoder:
        return ConvEncoder(self)


class ConvEncoder(ImageEncoder):
    """Tokens (B, N, d) of our own convolutions, each of zero mean and unit variance."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(config.image_size, config.mean, config.std)
        self.stem = ConvStem(config.channels, config.width)
        for layer in self.stem.modules():  # so that small objects in an image are not lost
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.stem(self.standardise(image)))
        return tokens
