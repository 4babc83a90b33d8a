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
            f"limits {path}: got a file that cannot be read ({reason}), expected a YAML file."
        ) from None
    action = content.get("action") if isinstance(content, dict) else None
    if not isinstance(action, dict) or set(action) != set(KEYS):
        got = ", ".join(map(str, action)) if isinstance(action, dict) else "no section `action:`"
        raise SpecError(f"limits {path}: got {got}, expected `action:` with {', '.join(KEYS)}.")
    return _checked(action, str(path))


def within(limits: VectorSpec, reach: VectorSpec, robot: str) -> VectorSpec:
    """Return the limits if they name the robot's own dimensions and stay inside its reach."""
    if tuple(limits.names) != tuple(reach.names):
        raise SpecError(
            f"limits of {robot}: got dimensions {list(limits.names)}, expected {list(reach.names)}."
        )
    if np.any(np.less(limits.low, reach.low)) or np.any(np.greater(limits.high, reach.high)):
        raise SpecError(
            f"limits of {robot}: got {list(limits.low)} to {list(limits.high)}, expected within "
            f"{list(reach.low)} to {list(reach.high)}."
        )
    return limits


def _checked(action: dict[str, Any], path: str) -> VectorSpec:
    sizes = {key: len(action[key]) if isinstance(action[key], list) else 0 for key in KEYS}
    if len(set(sizes.values())) != 1 or not sizes["names"]:
        raise SpecError(f"limits {path}: got lengths {sizes}, expected four lists of one length.")
    try:
        low, high = (tuple(float(value) for value in action[key]) for key in ("low", "high"))
    except (TypeError, ValueError):
        raise SpecError(
            f"limits {path}: got low {action['low']}, high {action['high']}, expected numbers."
        ) from None
    if not np.isfinite([low, high]).all() or not np.less(low, high).all():
        raise SpecError(
            f"limits {path}: got low {low}, high {high}, expected finite numbers, each low below "
            "its high."
        )
    return VectorSpec(
        names=tuple(map(str, action["names"])),
        units=tuple(map(str, action["units"])),
        low=low,
        high=high,
    )
