"""The interface between an arm's adapter and its driver: ROS topics, or a simulated world."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.robots.arm.sensors.wrench import WrenchReading


@dataclass(frozen=True)
class Reading:
    """Joint states: position (n,) [rad, m], velocity (n,) [rad/s, m/s].

    came_s: when the oldest of these values arrived, by the steady clock; a gripper's values may be
    older by its own time-out. number: increases with each message that changed a value. newest_s:
    when the newest of these values arrived.
    """

    position: Floats
    velocity: Floats
    came_s: float
    number: int
    newest_s: float = -math.inf


@dataclass(frozen=True)
class Frame:
    """An image: when it arrived and when it was taken, both by the steady clock [s].

    `look` returns it: (H, W, 3) uint8, or (H, W) uint16 [mm] for depth; a simulator renders it
    only then. taken_s: -inf if its stamp cannot be right. `changed`: it differs from the previous
    one.
    """

    look: Callable[[], Any]
    came_s: float
    taken_s: float
    number: int
    changed: bool = True


@dataclass(frozen=True)
class Score:
    """A simulator's score of this moment: reward, success, and named quantities."""

    reward: float = 0.0
    success: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)


class Driver(Protocol):
    """One arm's connections. No method blocks, except `wait` in simulated time."""

    @property
    def must_yield(self) -> bool:
        """True while another node commands this arm with precedence: nothing may be sent."""

    @property
    def settled(self) -> bool:
        """True once the driver's topics are the same for long enough that all nodes are known."""

    def now_s(self) -> float:
        """Return the steady time [s]."""

    def joints(self) -> Reading | None:
        """Return the newest joint states, in the configuration's order; None until complete."""

    def frames(self) -> Mapping[str, Frame]:
        """Return the newest image of each camera that has delivered one."""

    def faults(self) -> Mapping[str, str]:
        """Return what is wrong with the connections now: name -> one sentence with the remedy."""

    def reports(self) -> Mapping[str, str]:
        """Return what is wrong but does not stop the arm: name -> one sentence with the remedy."""

    def wrench(self) -> WrenchReading | None:
        """Return the newest reading of the force-torque sensor that can be used."""

    def send(self, setpoint: Setpoint) -> None:
        """Command the driver."""

    def halt(self) -> None:
        """Command zero velocity where velocities are commanded; elsewhere the arm holds already."""

    def score(self) -> Score:
        """Return the newest score; zeros where none is computed."""

    def request_scene(self, seed: int) -> None:
        """Request the scene of the episode with this seed."""

    def scene_is_set(self) -> bool:
        """Return True once the scene is set."""

    def wait(self, seconds: float) -> None:
        """Let simulated time pass; does nothing in real time."""

    def close(self) -> None:
        """Free everything; may be called twice."""
