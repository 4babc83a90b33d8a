"""A goal: what the robot is to see. From a message, a file, or the picture of now."""

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
    """A picture (H, W, 3), and the proprioception (P,) there if it is known."""

    image: Image
    proprio: Vector | None = None


def read_goal(path: str | Path) -> Goal:
    """Return the goal in a picture file, with the joint states beside it if there are any;
    UserError if it is none."""
    found = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if found is None:
        raise UserError(f"goal: {str(path)!r} is no picture. Right: a PNG or JPEG file.")
    joints = joints_beside(path)
    proprio = None if joints is None else np.array(list(joints.values()), np.float32)
    return Goal(np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8), proprio)


def joints_beside(path: str | Path) -> dict[str, float] | None:
    """Return the joint states by name that lie beside a goal's picture (goal.json for goal.png),
    None if there are none; UserError if they cannot be read."""
    beside = Path(path).with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        return {str(name): float(value) for name, value in json.loads(beside.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"goal: {beside} holds no joint states ({error}). Right: names and numbers, as "
            "wm arm goal --keep writes them."
        ) from None


def write_goal(path: str | Path, goal: Goal, names: tuple[str, ...] = ()) -> None:
    """Write a goal's picture, and its joint states beside it, as :func:`read_goal` reads them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(goal.image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise UserError(f"goal: cannot write {str(path)!r}. Right: a name that ends in .png.")
    if goal.proprio is not None:
        values = dict(zip(names, goal.proprio.tolist(), strict=True))
        path.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
