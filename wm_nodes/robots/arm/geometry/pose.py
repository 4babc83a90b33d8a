"""Frames in frames: positions and rotation matrices, and their URDF notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_nodes.robots.arm.safety.limits import Floats

SMALL = 1e-9  # [m, 1] below this a frame is the one that it stands in


@dataclass(frozen=True)
class Pose:
    """A frame in another: position (3,) [m], rotation matrix (3, 3)."""

    place: Floats
    turn: Floats

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.place + self.turn @ other.place, self.turn @ other.turn)

    def inverse(self) -> Pose:
        return Pose(-self.turn.T @ self.place, self.turn.T)

    @property
    def zero(self) -> bool:
        return bool(
            np.abs(self.place).max() < SMALL and np.abs(self.turn - np.eye(3)).max() < SMALL
        )


def matrix(quat: Floats) -> Floats:
    """Return the rotation matrix (3, 3) of a unit quaternion (w, x, y, z)."""
    w, x, y, z = (float(value) for value in quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def angles(turn: Floats) -> Floats:
    """Return roll, pitch, yaw (about fixed x, y, z) [rad] of a rotation matrix."""
    level = float(np.hypot(turn[0, 0], turn[1, 0]))
    pitch = np.arctan2(-turn[2, 0], level)
    if level > 1e-6:
        roll, yaw = np.arctan2(turn[2, 1], turn[2, 2]), np.arctan2(turn[1, 0], turn[0, 0])
    else:  # straight up or down: yaw is free
        roll, yaw = np.arctan2(-turn[1, 2], turn[1, 1]), 0.0
    return np.array([roll, pitch, yaw])


def text(values: Any) -> str:
    """Return numbers as URDF writes them."""
    return " ".join(f"{float(value) + 0.0:.15g}" for value in values)
