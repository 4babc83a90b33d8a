"""Crop and resize images: one operation for imports, training and acting, so that a model sees the
same pixels in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

NO_CROP = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class CropResize:
    """Crop, then resize.

    height, width: size of the result [pixels]; 0 keeps that of the crop. crop: left, top, right,
    bottom margins as shares of the image. nearest: take the nearest pixel, as depth needs it,
    where 0 means unknown. Otherwise pixels are averaged over their area where the image gets
    smaller (antialiased), and interpolated linearly where it gets larger.

    ValueError: the crop leaves nothing of any image.
    """

    height: int = 0
    width: int = 0
    crop: Sequence[float] = NO_CROP
    nearest: bool = False

    def __post_init__(self) -> None:
        crop = self.crop
        if len(crop) != 4 or min(crop) < 0 or crop[0] + crop[2] >= 1 or crop[1] + crop[3] >= 1:
            raise ValueError(
                f"crop: got {list(crop)}, expected left, top, right, bottom from 0, opposite sides "
                "below 1 together."
            )

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return what is cut off an image of this size: left, top, right, bottom [pixels]."""
        sides = zip(self.crop, (width, height, width, height))
        left, top, right, bottom = (round(share * pixels) for share, pixels in sides)
        return left, top, right, bottom

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the result; ValueError where the crop leaves no pixel."""
        left, top, right, bottom = self.margins(height, width)
        high, wide = height - top - bottom, width - left - right
        if high < 1 or wide < 1:
            raise ValueError(
                f"image: got {height, width}, which the crop leaves empty, expected a larger one."
            )
        return self.height or high, self.width or wide

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return (height, width, ...) of the image's type; the same array if nothing changes.

        ValueError where the crop leaves no pixel of it.
        """
        left, top, right, bottom = self.margins(*image.shape[:2])
        height, width = self.size(*image.shape[:2])
        out = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
        if out.shape[:2] == (height, width):
            return out
        smaller = height <= out.shape[0] and width <= out.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        how = cv2.INTER_NEAREST if self.nearest else how
        resized = cv2.resize(np.ascontiguousarray(out), (width, height), interpolation=how)
        return np.asarray(resized)
