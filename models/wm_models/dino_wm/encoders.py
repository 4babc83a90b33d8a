"""From a picture to the visual tokens that DINO-WM predicts; frozen while it learns to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.autoencoder import IMAGENET_MEAN, IMAGENET_STD
from wm_models.blocks import ConvStem
from wm_models.dino_wm.zoo import HALF, RGB, entry, find_weights, load_backbone, make_backbone
from wm_models.encoders.layouts import SMOOTH
from wm_models.interface import ModelError

POSITIONS = ("released", "antialias")
__all__ = ["HALF", "IMAGENET_MEAN", "IMAGENET_STD", "ConvConfig", "ConvEncoder", "TimmConfig"]


@dataclass(frozen=True)
class TimmConfig:
    """A frozen network of the zoo. The defaults are DINO-WM's: DINOv2-S patches of 196 pixels."""

    name: str = "dinov2_s"
    image_size: int = 224  # of the pictures that come in
    input_size: int = 196  # that the network sees: (image_size // 16) * patch
    mean: RGB | None = (
        None  # of its images; None: as DINO-WM's authors feed this network, see zoo.py
    )
    std: RGB | None = None
    tokens: str = "patch"  # "cls": one token, CLS or the mean of a convolutional map (ablation)
    weights: str | None = None  # a file; None: looked up, see zoo.py
    # How a position table of another size is resampled: "released", as the encoder's own authors do
    # (DINOv2: bicubic, no antialiasing, an offset of 0.1), or "antialias" (timm's default).
    positions: str = "released"

    trains: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.tokens not in ("patch", "cls"):
            raise ModelError(f"encoder.tokens: expected 'patch' or 'cls', got {self.tokens!r}.")
        if self.positions not in POSITIONS:
            raise ModelError(
                f"encoder.positions: expected {' or '.join(POSITIONS)}, got {self.positions!r}."
            )
        if self.input_size % entry(self.name).patch:
            raise ModelError(
                f"encoder.input_size: expected a multiple of {entry(self.name).patch}, the patch "
                f"of {self.name}, got {self.input_size}."
            )

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return 1 if self.tokens == "cls" else self.input_size // entry(self.name).patch

    @property
    def width(self) -> int:
        return entry(self.name).width

    def make(self) -> TimmEncoder:
        return TimmEncoder(self)


@dataclass(frozen=True)
class ConvConfig:
    """A small encoder of our own: stride-2 convolutions, and a norm without weights.

    It is first trained to paint its pictures again, or left random.
    """

    image_size: int = 64
    channels: tuple[int, ...] = (16, 32, 48, 64)  # each halves the picture's side
    width: int = 64
    mean: RGB = HALF
    std: RGB = HALF

    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.image_size % 2 ** len(self.channels):
            raise ModelError(
                f"encoder.image_size: expected a multiple of {2 ** len(self.channels)}, "
                f"got {self.image_size}."
            )

    @property
    def grid(self) -> int:
        """Tokens per side."""
        return self.image_size // 2 ** len(self.channels)

    def make(self) -> ConvEncoder:
        return ConvEncoder(self)


class PictureEncoder(nn.Module):
    """What both have in common: the size and scale of pictures."""

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, mean: RGB, std: RGB) -> None:
        super().__init__()
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def standardise(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), or float 0..1 (B, 3, H, W), to standardised (B, 3, H, W)."""
        if image.dtype == torch.uint8:
            image = image.permute(0, 3, 1, 2).to(self.mean.dtype) / 255.0
        size = self.image_size
        if image.shape[1:] != (3, size, size):
            raise ModelError(
                f"image: expected (B, {size}, {size}, 3) uint8 or (B, 3, {size}, {size}) float, "
                f"got {tuple(image.shape)} after moving channels first."
            )
        return (image - self.mean) / self.std

    def pretrain(self) -> dict[str, Any]:
        """Take weights from elsewhere; what they are, for the manifest."""
        return {"init": "random"}


class TimmEncoder(PictureEncoder):
    """Tokens (B, N, d) of a frozen network, row by row, after its final norm."""

    def __init__(self, config: TimmConfig) -> None:
        known = entry(config.name)
        super().__init__(config.image_size, config.mean or known.mean, config.std or known.std)
        self.config = config
        self._take(make_backbone(config.name, config.input_size))

    def pretrain(self, file: Path | None = None) -> dict[str, Any]:
        """The weights of ``file``, of the configuration, or found on this computer. ModelError."""
        c = self.config
        file = find_weights(c.name, file or (Path(c.weights) if c.weights else None))
        smooth = SMOOTH if c.positions == "antialias" else None
        net, facts = load_backbone(c.name, c.input_size, file, smooth)
        self._take(net.to(self.mean.device))
        return facts

    def train(self, mode: bool = True) -> TimmEncoder:
        """The network is frozen: dropout and running means of it stay as in evaluation."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        x = self.standardise(image)
        size = self.config.input_size
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        found = self.backbone.forward_features(x)
        if found.ndim == 4:  # a convolutional map (B, d, h, w)
            found = found.flatten(2).transpose(1, 2)
            return found.mean(1, keepdim=True) if self.config.tokens == "cls" else found
        if self.config.tokens == "cls":
            return found[:, :1]
        return found[:, self.backbone.num_prefix_tokens :]

    def _take(self, net: nn.Module) -> None:
        self.backbone: Any = net.requires_grad_(False).eval()


class ConvEncoder(PictureEncoder):
    """Tokens (B, N, d) of our own convolutions, each of zero mean and unit variance."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(config.image_size, config.mean, config.std)
        self.stem = ConvStem(config.channels, config.width)
        for layer in self.stem.modules():  # so that small things in a picture are not lost
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.stem(self.standardise(image)))


EncoderConfig = TimmConfig | ConvConfig
