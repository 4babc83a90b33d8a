"""What is summed up over the control periods of one agent step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.arm.actions import PathPoint
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import Vector

SIGNALS = VectorSpec(
    names=("latency_ms", "interventions", "stopped"),
    units=("ms", "1", "1"),
    low=(0.0, 0.0, 0.0),
    high=(float("inf"),) * 3,
)


class Outcome(NamedTuple):
    """A complete agent step: executed and commanded actions (A,), signals (3,) as in SIGNALS."""

    executed: Vector
    commanded: Vector
    signals: Vector


@dataclass
class AgentStep:
    """Sums of one agent step. begin: where its path begins; commanded: sum of actions (A,)."""

    begin: PathPoint
    commanded: Floats
    periods: int = 0
    latency_s: float = 0.0
    interventions: int = 0
    stopped: int = 0

    def add(self, commanded: Vector, latency_s: float, interventions: int, stopped: bool) -> None:
        """Add a control period."""
        self.periods += 1
        self.commanded += commanded
        self.latency_s = max(self.latency_s, latency_s)
        self.interventions += interventions
        self.stopped += stopped

    def outcome(self, executed: Vector) -> Outcome:
        """Return the outcome: the mean of the commanded actions, and the sums as signals."""
        commanded = np.asarray(self.commanded / max(self.periods, 1), np.float32)
        signals = [self.latency_s * 1e3, self.interventions, self.stopped]
        return Outcome(executed, commanded, np.array(signals, np.float32))
