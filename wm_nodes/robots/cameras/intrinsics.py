"""A camera's intrinsics, and how crop and resize change them.

Pixels: (0, 0) is the centre of the upper left pixel. A point (x, y, z) of the optical frame (z
forward, x right, y down) is projected to K (x, y, z) / z without distortion; distortion acts
before K and is not changed by crop and resize.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PixelMap:
    """Crop and resize: pixel (u, v) becomes (scale * (u + 0.5 - left) - 0.5, ...) of a new image.

    left, top: margins cut off [pixels of the old image]. scale: new pixels per old one, x and y.
    """

    left: float
    top: float
    scale: tuple[float, float]
    width: int
    height: int

    def matrix(self) -> Matrix:
        """Return (3, 3): homogeneous pixels of the old image to those of the new."""
        x, y = self.scale
        left, top = (0.5 - self.left) * x - 0.5, (0.5 - self.top) * y - 0.5
        return np.array([[x, 0.0, left], [0.0, y, top], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Intrinsics:
    """One camera, as sensor_msgs/CameraInfo has it, of an image of this size."""

    width: int
    height: int
    k: Matrix  # (3, 3)
    p: Matrix  # (3, 4), of the rectified image
    r: Matrix = field(default_factory=lambda: np.eye(3))  # (3, 3) rectification
    distortion: tuple[float, ...] = (0.0,) * 5
    model: str = "plumb_bob"

    def through(self, pixels: PixelMap) -> Intrinsics:
        """Return the intrinsics of the cropped and resized image."""
        change = pixels.matrix()
        return Intrinsics(
            pixels.width, pixels.height, change @ self.k, change @ self.p,
            self.r, self.distortion, self.model,
        )  # fmt: skip

    @classmethod
    def pinhole(cls, width: int, height: int, fovy_deg: float, *, upturned: bool) -> Intrinsics:
        """Return a camera without distortion, with square pixels and the axis in the middle.

        fovy_deg: angle from the upper to the lower edge. upturned: the order of rows was reversed
        after the image was rendered; the image is then mirrored, and K[1, 1] is negative.
        """
        focal = 0.5 * height / math.tan(math.radians(fovy_deg) / 2)
        sign = -1.0 if upturned else 1.0
        k = np.array(
            [[focal, 0, (width - 1) / 2], [0, sign * focal, (height - 1) / 2], [0, 0, 1.0]]
        )
        return cls(width, height, k, np.column_stack([k, np.zeros(3)]))
