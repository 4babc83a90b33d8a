"""A goal: what the robot is to see. From a message, a file, or the picture of now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wm_nodes.cores.records import Image, Vector
from wm_nodes.errors import UserError


@dataclass(frozen=True)
class Goal:
    """A picture (H, W, 3), and the proprioception (P,) there if it is known."""

    image: Image
    proprio: Vector | None = None


def read_goal(path: str | Path) -> Goal:
    """Return the goal in a picture file; UserError if it is none."""
    found = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if found is None:
        raise UserError(f"goal: {str(path)!r} is no picture. Right: a PNG or JPEG file.")
    return Goal(np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8))
