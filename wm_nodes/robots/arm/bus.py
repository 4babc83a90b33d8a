"""What lies between an arm's adapter and its driver: topics, or a simulated world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety import Setpoint


@dataclass(frozen=True)
class Reading:
    """Joint states: position (n,) [rad, m], velocity (n,); when they came by the steady clock."""

    position: Floats
    velocity: Floats
    came_s: float
    number: int


@dataclass(frozen=True)
class Frame:
    """A picture: when it came and when it was taken, both by the steady clock [s].

    `look` gives it, (H, W, 3), or (H, W) [mm] of depth; a simulator draws it only then.
    `changed`: it differs from the one before.
    """

    look: Callable[[], Any]
    came_s: float
    taken_s: float
    number: int
    changed: bool = True


@dataclass(frozen=True)
class Score:
    """What whoever can judge says of this moment."""

    reward: float = 0.0
    success: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)


class Bus(Protocol):
    """One arm's wires. Nothing here blocks."""

    def now_s(self) -> float:
        """Return the steady time [s]."""

    def joints(self) -> Reading | None:
        """Return the newest joint states, in the configuration's order; None before the first."""

    def frames(self) -> Mapping[str, Frame]:
        """Return the newest picture of each camera that has shown one."""

    def send(self, setpoint: Setpoint) -> None:
        """Command the driver."""

    def score(self) -> Score:
        """Return the newest score; zeros where nobody judges."""

    def begin(self, seed: int) -> None:
        """Ask whoever sets the scene for the episode of this seed."""

    def begun(self) -> bool:
        """Is the scene set?"""

    def wait(self, seconds: float) -> None:
        """Let simulated time pass; nothing where time passes by itself."""

    def close(self) -> None:
        """Free everything; twice is allowed."""
