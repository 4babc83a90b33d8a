"""Recovery of the driver and switching of its controller, as the control loop executes them.

The services are called by another thread and take seconds. The loop is asked before the first
(`begin`: may it be done now?) and told the outcome (`done` or `failed`). In between nothing moves,
and no call of the operator allows motion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wm_nodes.control.answer import Answer
from wm_nodes.robots.robot import RealtimeRobot

Work = Literal["recover", "activate", "deactivate"]
UNDER_WAY: Mapping[Work, str] = {
    "recover": "the driver is being recovered",
    "activate": "the driver's controller is being activated",
    "deactivate": "the driver's controller is being deactivated",
}
DONE: Mapping[Work, str] = {
    "recover": "the driver was recovered: call clear if something is latched, then resume",
    "activate": "the driver's controller was activated: call resume",
    "deactivate": "the driver's controller was deactivated: call activate, then resume",
}


@dataclass(frozen=True)
class DriverStep:
    """One step of a piece of work with the driver."""

    work: Work
    phase: Literal["begin", "done", "failed"]


class DriverWork:
    """Keeps what is being done with the driver: one thing at a time, only while the robot stands.

    busy: text of what is under way, or "".
    """

    def __init__(self, robot: RealtimeRobot) -> None:
        self._robot = robot
        self._released = False  # the controller was deactivated
        self.busy = ""

    def execute(self, step: DriverStep, *, moving: bool, permitted: bool) -> Answer:
        """Begin or end a piece of work. moving: the robot is not commanded to stand. permitted: the
        operator allows motion."""
        if step.phase == "begin":
            return self._begin(step.work, moving, permitted)
        self._end(step.work, done=step.phase == "done")
        return Answer(True, DONE[step.work] if step.phase == "done" else "nothing was changed")

    def _begin(self, work: Work, moving: bool, permitted: bool) -> Answer:
        robot = self._robot
        if self.busy:
            return Answer(False, f"{self.busy}: call {work} again afterwards")
        if moving:
            return Answer(False, f"the robot acts or moves: call pause, and {work} when it stands")
        if work == "recover" and permitted and not (robot.latched() or robot.stopped()):
            return Answer(False, "nothing is latched, stopped or paused: nothing to recover")
        self.busy = UNDER_WAY[work]
        if work != "recover":
            robot.release_driver()
        return Answer(True, self.busy)

    def _end(self, work: Work, done: bool) -> None:
        self.busy = ""
        if work == "recover":
            return
        if done:
            self._released = work == "deactivate"
        if not self._released:
            self._robot.take_driver(anew=done)
