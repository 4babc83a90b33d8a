"""A goal: an image for the robot to reproduce. From a message, a file, or the current image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wm_nodes.errors import UserError
from wm_nodes.records import Image, Vector


@dataclass(frozen=True)
class Goal:
    """An image (H, W, 3) uint8, and its proprioception (P,) if it is known."""

    image: Image
    proprio: Vector | None = None


def read_goal(path: str | Path) -> Goal:
    """Return the goal in an image file, with the joint states beside it if there are any.
    UserError: no image file."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"goal: got {str(path)!r}, expected a PNG or JPEG file. Give an image.")
    joints = joints_beside(path)
    proprio = None if joints is None else np.array(list(joints.values()), np.float32)
    return Goal(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), proprio)


def joints_beside(path: str | Path) -> dict[str, float] | None:
    """Return the joint states by name from the JSON file beside a goal's image (goal.json for
    goal.png), None if there is none. UserError: the file cannot be read."""
    file = Path(path).with_suffix(".json")
    if not file.is_file():
        return None
    try:
        return {str(name): float(value) for name, value in json.loads(file.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"goal: got {file} without joint states ({error}), expected names and numbers. Write "
            "the file with wm arm goal --keep."
        ) from None


def write_goal(path: str | Path, goal: Goal, names: tuple[str, ...] = ()) -> None:
    """Write a goal's image, and its joint states beside it, in the format of :func:`read_goal`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(goal.image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise UserError(
            f"goal: got {str(path)!r}, which cannot be written, expected a name with .png."
        )
    if goal.proprio is not None:
        values = dict(zip(names, goal.proprio.tolist(), strict=True))
        path.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
