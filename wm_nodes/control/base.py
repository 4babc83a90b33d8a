"""Interfaces between the robot node and its control loop, the same in every mode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from wm_nodes.records import Answer, Plan, Transition


class Diagnostics(Protocol):
    """Where a control loop reports latency and facts."""

    facts: dict[str, object]

    def record_latency(self, seconds: float) -> None:
        """Count one answered observation and how long the answer took [s]."""


class ControlOutput(Protocol):
    """The robot node, as its control loop uses it. Faults may be reported from any thread, all else
    from the executor's."""

    @property
    def diagnostics(self) -> Diagnostics:
        """The node's diagnostics."""

    def publish(self, transition: Transition, *, repeated: bool = False) -> None:
        """Publish an observation. repeated: it was published before."""

    def save_counts(self) -> None:
        """Store the counts of the run."""

    def end_run(self) -> None:
        """The last episode is over: end the program."""

    def report_fault(self, name: str, text: str, *, error: bool = False) -> None:
        """Set a fault. error: the robot cannot do its work."""

    def clear_fault(self, name: str, text: str) -> None:
        """Clear a fault and log `text`; does nothing if it is not set."""

    def has_planner(self) -> bool:
        """Does a node publish plans?"""

    def has_trainer(self) -> bool:
        """Does a node publish the training pace?"""


class Control(ABC):
    """Executes plans on a robot, episode after episode.

    tick_s: period [s] at which the node calls `tick` while it is active.
    """

    tick_s: float

    @abstractmethod
    def start(self) -> None:
        """Begin the next episode."""

    @abstractmethod
    def stop(self) -> None:
        """Bring the robot to rest and stop; `start` may follow."""

    @abstractmethod
    def tick(self) -> None:
        """Do what is due; called every `tick_s`."""

    @abstractmethod
    def accept(self, plan: Plan) -> tuple[str, str]:
        """Take a plan whose dimensions are the robot's.

        Returns ("", ""), or (reason, text) if the plan is dropped; text "": nothing to log.
        """

    @abstractmethod
    def request(self, name: str, value: object = None) -> Answer:
        """Execute pause, resume, reset, go_home or speed_scale (value: 0 to 1)."""

    @abstractmethod
    def estop(self, *, on: bool) -> Answer:
        """Emergency stop, which lasts until a call with on=False."""
