"""From a camera's image to the model's: crop, resize; and detection of dead cameras."""

from __future__ import annotations

from typing import TypeVar, cast

from wm_datasets.images import NO_CROP, CropResize
from wm_nodes.errors import MessageError
from wm_nodes.records import Depth, Image
from wm_nodes.robots.cameras.intrinsics import PixelMap

Frame = TypeVar("Frame", Image, Depth)


class ImagePipeline:
    """Crop, then resize to (height, width), as :class:`CropResize` does for logs and training;
    zeros keep the size.

    crop: left, top, right, bottom margins as shares of the image. exact: resize by taking the
    nearest pixel, as depth needs it, where 0 means that nothing was measured.
    """

    def __init__(
        self,
        height: int = 0,
        width: int = 0,
        crop: tuple[float, ...] = NO_CROP,
        exact: bool = False,
    ) -> None:
        self._change = CropResize(height, width, crop, exact)

    def __call__(self, image: Frame) -> Frame:
        """Return (height, width, ...) of the image's type; the same array if nothing changes.
        MessageError if the crop leaves no pixel."""
        try:
            return cast(Frame, self._change(image))
        except ValueError as error:
            raise MessageError("size", str(error)) from None

    def pixel_map(self, height: int, width: int) -> PixelMap:
        """Return where the pixels of an image of this size go; MessageError if none is left."""
        left, top, right, bottom = self._change.margins(height, width)
        try:
            to_high, to_wide = self._change.size(height, width)
        except ValueError as error:
            raise MessageError("size", str(error)) from None
        scale = to_wide / (width - left - right), to_high / (height - top - bottom)
        return PixelMap(left, top, scale, to_wide, to_high)


class Liveness:
    """Detects a silent camera (no images) and a frozen one (the same image repeatedly)."""

    def __init__(self, stale_s: float, frozen_s: float) -> None:
        self._stale_s, self._frozen_s = stale_s, frozen_s
        self._received_at: float | None = None
        self._changed_at = 0.0
        self._hash = -1

    def saw(self, image: Image, now_s: float) -> None:
        """Record an image. Times are of any steady clock, in seconds."""
        mark = hash(image[::4, ::4].tobytes())
        if mark != self._hash or self._received_at is None:
            self._hash, self._changed_at = mark, now_s
        self._received_at = now_s

    def fault(self, now_s: float) -> str | None:
        """Return what is wrong; None without a fault, or before the first image."""
        if self._received_at is None:
            return None
        if self._stale_s and now_s - self._received_at > self._stale_s:
            return f"camera silent for {now_s - self._received_at:.1f} s"
        if self._frozen_s and now_s - self._changed_at > self._frozen_s:
            return f"camera frozen: the same image for {now_s - self._changed_at:.1f} s"
        return None
