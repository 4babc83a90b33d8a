"""Action limits, from config/robots/<robot>.yaml: a robot without limits does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.robot import SpecError

KEYS = ("names", "units", "low", "high")


def read_limits(path: str | Path) -> VectorSpec:
    """Return the action limits in a robot's YAML file; SpecError if it is absent or malformed."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise SpecError(
            f"limits {path}: cannot be read ({reason}), expected a YAML file."
        ) from None
    action = content.get("action") if isinstance(content, dict) else None
    if not isinstance(action, dict) or set(action) != set(KEYS):
        raise SpecError(f"limits {path}: expected `action:` with exactly {', '.join(KEYS)}.")
    return _checked(action, str(path))


def within(limits: VectorSpec, reach: VectorSpec, robot: str) -> VectorSpec:
    """Return the limits if they name the robot's own dimensions and stay inside its reach."""
    if tuple(limits.names) != tuple(reach.names):
        raise SpecError(
            f"limits of {robot}: expected dimensions {list(reach.names)}, got {list(limits.names)}."
        )
    if np.any(np.less(limits.low, reach.low)) or np.any(np.greater(limits.high, reach.high)):
        raise SpecError(
            f"limits of {robot}: expected within {list(reach.low)} to {list(reach.high)}, "
            f"got {list(limits.low)} to {list(limits.high)}."
        )
    return limits


def _checked(action: dict[str, Any], path: str) -> VectorSpec:
    sizes = {key: len(action[key]) if isinstance(action[key], list) else 0 for key in KEYS}
    if len(set(sizes.values())) != 1 or not sizes["names"]:
        raise SpecError(f"limits {path}: expected four lists of one length, got lengths {sizes}.")
    try:
        low, high = (tuple(float(value) for value in action[key]) for key in ("low", "high"))
    except (TypeError, ValueError):
        raise SpecError(f"limits {path}: low and high must be numbers.") from None
    if not np.isfinite([low, high]).all() or not np.less(low, high).all():
        raise SpecError(
            f"limits {path}: each low must be finite and below its high, got {low}, {high}."
        )
    return VectorSpec(
        names=tuple(map(str, action["names"])),
        units=tuple(map(str, action["units"])),
        low=low,
        high=high,
    )
