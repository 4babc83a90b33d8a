"""Messages that arrive from an arm's driver in a span of time: rates, ages, changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wm_nodes.robots.arm.driver import Driver, Frame, Reading


@dataclass
class Received:
    """Arrival times [s] and ages [s] by stamp of one source; `changed`: images that differ."""

    came: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    number: int = -1
    changed: int = 0

    @property
    def rate_hz(self) -> float:
        if len(self.came) < 2:
            return 0.0
        return (len(self.came) - 1) / (self.came[-1] - self.came[0])

    @property
    def longest_gap_s(self) -> float:
        return float(np.diff(self.came).max(initial=0.0))

    def add(self, item: Reading | Frame) -> None:
        """Add an item; a repeated item and a message with only some joints are not counted."""
        if item.number == self.number:
            return
        self.number = item.number
        if self.came and item.came_s == self.came[-1]:
            return
        self.came.append(item.came_s)
        if isinstance(item, Frame):
            if np.isfinite(item.taken_s):
                self.ages.append(item.came_s - item.taken_s)
            self.changed += item.changed


@dataclass
class Reception:
    """Received messages: joint states, forces, and images by camera."""

    joints: Received = field(default_factory=Received)
    forces: Received = field(default_factory=Received)
    cameras: dict[str, Received] = field(default_factory=dict)


def receive(
    driver: Driver, cameras: tuple[str, ...], seconds: float, spin: Callable[[], None]
) -> Reception:
    """Receive for some time. spin: lets callbacks of the check's node run."""
    result = Reception(cameras={name: Received() for name in cameras})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        spin()
        reading, forces = driver.joints(), driver.wrench()
        if reading is not None:
            result.joints.add(reading)
        for name, frame in driver.frames().items():
            result.cameras[name].add(frame)
        if forces is not None and forces.number != result.forces.number:
            result.forces.number = forces.number
            result.forces.came.append(forces.taken_s)
    return result
