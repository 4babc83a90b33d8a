"""From a camera's picture to the model's: crop, resize; and whether a camera is alive."""

from __future__ import annotations

from typing import TypeVar, cast

import cv2
import numpy as np

from wm_nodes.cores.intrinsics import PixelMap
from wm_nodes.cores.records import Depth, Image
from wm_nodes.errors import MessageError

Picture = TypeVar("Picture", Image, Depth)


class ImagePipeline:
    """Crop, then resize to (height, width); zeros keep what there is.

    crop: left, top, right, bottom margins as shares of the picture. exact: resize by taking the
    nearest pixel, as depth needs it, where 0 means that nothing was seen.
    """

    def __init__(
        self,
        height: int = 0,
        width: int = 0,
        crop: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
        exact: bool = False,
    ) -> None:
        if len(crop) != 4 or min(crop) < 0 or crop[0] + crop[2] >= 1 or crop[1] + crop[3] >= 1:
            raise ValueError(
                f"crop: given {list(crop)}, right is left, top, right, bottom from 0, "
                "opposite sides below 1 together"
            )
        self._height, self._width, self._crop = height, width, crop
        self._exact = exact

    def __call__(self, image: Picture) -> Picture:
        """Return (height, width, ...) of the picture's type; the same array if nothing changes."""
        left, top, right, bottom = self._margins(*image.shape[:2])
        out = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
        height, width = self._height or out.shape[0], self._width or out.shape[1]
        if out.shape[:2] == (height, width):
            return out
        if not out.size:
            raise MessageError("size", f"image: {image.shape} leaves nothing after the crop")
        smaller = height <= out.shape[0] and width <= out.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        how = cv2.INTER_NEAREST if self._exact else how
        resized = cv2.resize(np.ascontiguousarray(out), (width, height), interpolation=how)
        return cast(Picture, np.asarray(resized))

    def pixel_map(self, height: int, width: int) -> PixelMap:
        """Return where the pixels of an image of this size go; MessageError if none is left."""
        left, top, right, bottom = self._margins(height, width)
        high, wide = height - top - bottom, width - left - right
        if high < 1 or wide < 1:
            raise MessageError("size", f"image: {height, width} leaves nothing after the crop")
        to_high, to_wide = self._height or high, self._width or wide
        return PixelMap(left, top, (to_wide / wide, to_high / high), to_wide, to_high)

    def _margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return what is cut off: left, top, right, bottom [pixels]."""
        left, top, right, bottom = self._crop
        sides = zip(self._crop, (width, height, width, height))
        left, top, right, bottom = (round(share * pixels) for share, pixels in sides)
        return left, top, right, bottom


class Liveness:
    """Tells a silent camera (no pictures) and a frozen one (the same picture again and again)."""

    def __init__(self, stale_s: float, frozen_s: float) -> None:
        self._stale_s, self._frozen_s = stale_s, frozen_s
        self._seen_at: float | None = None
        self._changed_at = 0.0
        self._print = -1

    def saw(self, image: Image, now_s: float) -> None:
        """A picture came. Times are of any steady clock, in seconds."""
        mark = hash(image[::4, ::4].tobytes())
        if mark != self._print or self._seen_at is None:
            self._print, self._changed_at = mark, now_s
        self._seen_at = now_s

    def fault(self, now_s: float) -> str | None:
        """Return what is wrong, None while all is well or nothing has come yet."""
        if self._seen_at is None:
            return None
        if self._stale_s and now_s - self._seen_at > self._stale_s:
            return f"camera silent for {now_s - self._seen_at:.1f} s"
        if self._frozen_s and now_s - self._changed_at > self._frozen_s:
            return f"camera frozen: the same picture for {now_s - self._changed_at:.1f} s"
        return None
