"""Recovery of the driver and switching of its controller, on the side of the control loop.

Another thread calls the driver's services, which takes seconds. It requests permission before the
first call (phase `begin`) and reports the outcome (`done` or `failed`). In between nothing moves,
and no call of the operator allows motion.
"""

from __future__ import annotations

from collections.abc import Mapping

from wm_nodes.records import Answer, DriverStep, DriverTask
from wm_nodes.robots.robot import RealtimeRobot

UNDER_WAY: Mapping[DriverTask, str] = {
    "recover": "the driver is being recovered",
    "activate": "the driver's controller is being activated",
    "deactivate": "the driver's controller is being deactivated",
}
DONE: Mapping[DriverTask, str] = {
    "recover": "the driver was recovered: call clear if something is latched, then resume",
    "activate": "the driver's controller was activated: call resume",
    "deactivate": "the driver's controller was deactivated: call activate, then resume",
}


class DriverWork:
    """The task that the driver executes now: one at a time, only while the robot stands.

    busy: what the task does, or "".
    """

    def __init__(self, robot: RealtimeRobot) -> None:
        self._robot = robot
        self._released = False  # the controller was deactivated
        self.busy = ""

    def execute(self, step: DriverStep, *, moving: bool, permitted: bool) -> Answer:
        """Begin or end a task. moving: the robot is not commanded to stand. permitted: the operator
        allows motion."""
        if step.phase == "begin":
            return self._begin(step.task, moving, permitted)
        self._end(step.task, done=step.phase == "done")
        return Answer(True, DONE[step.task] if step.phase == "done" else "nothing was changed")

    def _begin(self, task: DriverTask, moving: bool, permitted: bool) -> Answer:
        robot = self._robot
        if self.busy:
            return Answer(False, f"{self.busy}: call {task} again afterwards")
        if moving:
            return Answer(False, f"the robot acts or moves: call pause, and {task} when it stands")
        if task == "recover" and permitted and not (robot.latched() or robot.stopped()):
            return Answer(False, "nothing is latched, stopped or paused: nothing to recover")
        self.busy = UNDER_WAY[task]
        if task != "recover":
            robot.release_driver()
        return Answer(True, self.busy)

    def _end(self, task: DriverTask, done: bool) -> None:
        self.busy = ""
        if task == "recover":
            return
        if done:
            self._released = task == "deactivate"
        if not self._released:
            self._robot.take_driver(switched=done)
