"""What an arm may do: limits of every joint, the box and the speed of its end effector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.robot import SpecError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
HAND_SPEED_M_S = 0.25  # until a configuration raises it (ISO 10218-1: reduced speed)
MAX_HAND_SPEED_M_S = 2.0
PER_JOINT = ("low", "high", "velocity", "acceleration", "jerk")


@dataclass(frozen=True)
class ArmLimits:
    """Limits of n joints [rad, rad/s, rad/s², rad/s³; m where a joint slides] and of the
    end effector [m].

    `target_change` is how much a joint's target velocity may differ from one period to the next.
    `continuous` joints have no end stops: joint states may report them wrapped to ±pi; low and high
    bound the unwrapped angle. By default no joint is. SpecError if a shape or value is wrong.
    """

    joints: tuple[str, ...]
    low: Floats  # (n,)
    high: Floats
    velocity: Floats
    acceleration: Floats
    jerk: Floats
    target_change: Floats
    box_low: Floats  # (3,) of the end effector, in the arm's base frame
    box_high: Floats
    hand_speed: float = HAND_SPEED_M_S
    continuous: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))  # (n,)

    def __post_init__(self) -> None:
        n = len(self.joints)
        for name in (*PER_JOINT, "target_change"):
            object.__setattr__(self, name, _vector(getattr(self, name), n, name, self.joints))
        for name in ("box_low", "box_high"):
            object.__setattr__(self, name, _vector(getattr(self, name), 3, name, "xyz"))
        continuous = np.zeros(n, np.bool_) if len(self.continuous) == 0 else self.continuous
        object.__setattr__(self, "continuous", np.array(continuous, np.bool_))
        if self.continuous.shape != (n,):
            raise SpecError(f"limits: continuous: got {self.continuous.size}, expected {n} bools.")
        for low, high, what in (("low", "high", "joints"), ("box_low", "box_high", "workspace")):
            if not (getattr(self, low) < getattr(self, high)).all():
                raise SpecError(
                    f"limits: {what}: got a {low} not below its {high}, expected it below."
                )
        for name in ("velocity", "acceleration", "jerk", "target_change"):
            if not (getattr(self, name) > 0).all():
                raise SpecError(
                    f"limits: {name}: got {self._list(name)}, expected numbers above 0."
                )
        if not 0 < self.hand_speed <= MAX_HAND_SPEED_M_S:
            raise SpecError(
                f"limits: hand_speed: got {self.hand_speed}, expected above 0 to "
                f"{MAX_HAND_SPEED_M_S} m/s."
            )

    def _list(self, name: str) -> list[float]:
        return [float(value) for value in getattr(self, name)]


def _vector(numbers: Any, size: int, name: str, of: tuple[str, ...] | str) -> Floats:
    try:
        value = np.array(numbers, np.float64)
    except (TypeError, ValueError):
        value = np.array(np.nan)
    if value.shape != (size,) or not np.isfinite(value).all():
        raise SpecError(
            f"limits: {name}: got {numbers!r}, expected {size} finite numbers ({', '.join(of)})."
        )
    return value
