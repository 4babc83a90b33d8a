"""What an arm may do: limits of every joint, the hand's box and its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.base import SpecError

Floats = npt.NDArray[np.float64]
HAND_SPEED_M_S = 0.25  # until a configuration raises it (ISO 10218-1: reduced speed)
MAX_HAND_SPEED_M_S = 2.0
PER_JOINT = ("low", "high", "velocity", "acceleration", "jerk")


@dataclass(frozen=True)
class ArmLimits:
    """Limits of n joints [rad, rad/s, rad/s², rad/s³; m where a joint slides] and of the hand [m].

    `target_change` is how much a joint's wanted velocity may differ from one period to the next.
    """

    joints: tuple[str, ...]
    low: Floats  # (n,)
    high: Floats
    velocity: Floats
    acceleration: Floats
    jerk: Floats
    target_change: Floats
    box_low: Floats  # (3,) of the hand, in the arm's base frame
    box_high: Floats
    hand_speed: float = HAND_SPEED_M_S

    def __post_init__(self) -> None:
        n = len(self.joints)
        for name in (*PER_JOINT, "target_change"):
            object.__setattr__(self, name, _vector(getattr(self, name), n, name, self.joints))
        for name in ("box_low", "box_high"):
            object.__setattr__(self, name, _vector(getattr(self, name), 3, name, "xyz"))
        for low, high, what in (("low", "high", "joints"), ("box_low", "box_high", "workspace")):
            if not (getattr(self, low) < getattr(self, high)).all():
                raise SpecError(f"limits: {what}: each {low} must be below its {high}.")
        for name in ("velocity", "acceleration", "jerk", "target_change"):
            if not (getattr(self, name) > 0).all():
                raise SpecError(f"limits: {name}: expected numbers above 0, got {self._list(name)}")
        if not 0 < self.hand_speed <= MAX_HAND_SPEED_M_S:
            raise SpecError(
                f"limits: hand_speed: given {self.hand_speed}, right is above 0 to "
                f"{MAX_HAND_SPEED_M_S} m/s."
            )

    def _list(self, name: str) -> list[float]:
        return [float(value) for value in getattr(self, name)]

    @classmethod
    def read(cls, joints: Mapping[str, Mapping[str, Any]], workspace: Mapping[str, Any]) -> Any:
        """Return the limits written in a robot's YAML (`joints:` and `workspace:`)."""
        if not joints:
            raise SpecError("limits: no joints. A robot without limits does not start.")
        for name, given in joints.items():
            missing = [key for key in PER_JOINT if key not in (given or {})]
            unknown = sorted(set(given or {}) - set(PER_JOINT))
            if missing or unknown:
                raise SpecError(
                    f"limits: joint {name!r}: missing {missing}, unknown {unknown}. Right: exactly "
                    f"{', '.join(PER_JOINT)}. A robot without limits does not start."
                )
        if unknown := sorted(set(workspace) - {"low", "high", "hand_speed"}):
            raise SpecError(f"limits: workspace: unknown {unknown}. Right: low, high, hand_speed.")
        if missing := [key for key in ("low", "high") if key not in workspace]:
            raise SpecError(f"limits: workspace: missing {missing}: the hand's box in metres.")
        columns = {key: [joints[name][key] for name in joints] for key in PER_JOINT}
        velocity = _vector(columns["velocity"], len(joints), "velocity", tuple(joints))
        return cls(
            tuple(joints),
            **columns,  # type: ignore[arg-type]
            target_change=velocity,
            box_low=workspace["low"],
            box_high=workspace["high"],
            hand_speed=float(workspace.get("hand_speed", HAND_SPEED_M_S)),
        )


def _vector(given: Any, size: int, name: str, of: tuple[str, ...] | str) -> Floats:
    try:
        value = np.array(given, np.float64)
    except (TypeError, ValueError):
        value = np.array(np.nan)
    if value.shape != (size,) or not np.isfinite(value).all():
        raise SpecError(
            f"limits: {name}: expected {size} finite numbers ({', '.join(of)}), got {given!r}."
        )
    return value
