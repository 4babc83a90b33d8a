"""What visual encoders have in common: the size and scale of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wm_models.errors import ModelError
from wm_models.nets.images import IMAGENET_MEAN, IMAGENET_STD

RGB = tuple[float, float, float]
# DINO-WM's own scale, [-1, 1]; the released models were trained with it, with every encoder.
HALF: RGB = (0.5, 0.5, 0.5)
# ResNet-18 gets ImageNet's scale on top of it there: ((x - .5) / .5 - mean) / std, in one step.
RESCALED_IMAGENET_MEAN: RGB = tuple(0.5 + 0.5 * x for x in IMAGENET_MEAN)  # type: ignore[assignment]
RESCALED_IMAGENET_STD: RGB = tuple(0.5 * x for x in IMAGENET_STD)  # type: ignore[assignment]


class ImageEncoder(nn.Module):
    """Base of visual encoders: the size and scale of images."""

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
                f"image: got {tuple(image.shape)} after moving channels first, expected "
                f"(B, {size}, {size}, 3) uint8 or (B, 3, {size}, {size}) float."
            )
        return (image - self.mean) / self.std

    def pretrain(self) -> dict[str, Any]:
        """Load pretrained weights; returns facts about them for the manifest."""
        return {"init": "random"}
