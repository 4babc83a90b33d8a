"""timm networks: image to visual tokens. Their weights are frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.encoders.base import RGB, ImageEncoder
from wm_models.encoders.layouts import SMOOTH
from wm_models.encoders.pretrained import entry, find_weights, load_backbone, make_backbone
from wm_models.errors import ModelError
from wm_models.interface.checked import Checked

POSITIONS = ("released", "antialias")


@dataclass(frozen=True)
class TimmConfig:
    """A frozen network of the zoo. The defaults are DINO-WM's: DINOv2-S patches of 196 pixels."""

    name: str = "dinov2_s"  # of the encoder
    image_size: int = 224  # of the observed images
    input_size: int = 196  # of the network: (image_size // 16) * patch
    mean: RGB | None = (
        None  # of its images; None: as DINO-WM's authors feed this network, see pretrained.py
    )
    std: RGB | None = None  # of each channel, divided by
    tokens: str = "patch"  # "cls": one token, CLS or the mean of a convolutional map (ablation)
    weights: str | None = None  # a file; None: looked up, see pretrained.py
    # How a position table of another size is resampled: "released", as the encoder's own authors do
    # (DINOv2: bicubic, no antialiasing, an offset of 0.1), or "antialias" (timm's default).
    positions: str = "released"

    trains: ClassVar[bool] = False

    def __post_init__(self) -> None:
        Checked(self).whole("image_size", "input_size", high=4096)
        if self.tokens not in ("patch", "cls"):
            raise ModelError(f"encoder.tokens: got {self.tokens!r}, expected 'patch' or 'cls'.")
        if self.positions not in POSITIONS:
            raise ModelError(
                f"encoder.positions: got {self.positions!r}, expected {' or '.join(POSITIONS)}."
            )
        if self.input_size % entry(self.name).patch:
            raise ModelError(
                f"encoder.input_size: got {self.input_size}, expected a multiple of "
                f"{entry(self.name).patch}, the patch of {self.name}."
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


class TimmEncoder(ImageEncoder):
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
        tokens: Tensor = self.backbone.forward_features(x)
        if tokens.ndim == 4:  # a convolutional map (B, d, h, w)
            tokens = tokens.flatten(2).transpose(1, 2)
            return tokens.mean(1, keepdim=True) if self.config.tokens == "cls" else tokens
        if self.config.tokens == "cls":
            return tokens[:, :1]
        return tokens[:, self.backbone.num_prefix_tokens :]

    def _take(self, net: nn.Module) -> None:
        self.backbone: Any = net.requires_grad_(False).eval()
