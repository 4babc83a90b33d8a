"""A camera that the robot does not have: the graph would wait for its images forever."""

from __future__ import annotations

from wm_datasets.spec import LogSpec
from wm_nodes import messages, topics
from wm_nodes.errors import UserError
from wm_nodes.nodes.shell import Shell

WAIT_S = 5.0  # for a camera node of its own to begin


class RobotCamera:
    """Ends the node with UserError if the robot has no such camera and no other node publishes it.

    Looked at once, WAIT_S after the robot's spec was received.
    """

    def __init__(self, node: Shell, camera: str) -> None:
        self._node, self._camera = node, camera
        self._robot: LogSpec | None = None
        node.listen(topics.SPEC, messages.spec_from_msg, self._on_spec, idle=True)

    def _on_spec(self, robot: LogSpec) -> None:
        if self._robot is None:
            self._timer = self._node.create_timer(WAIT_S, self._look)
        self._robot = robot

    def _look(self) -> None:
        self._timer.cancel()
        assert self._robot is not None
        name = topics.IMAGE_RAW.name.format(camera=self._camera)
        if self._camera in self._robot.cameras or self._node.count_publishers(name):
            return
        has = ", ".join(self._robot.cameras) or "none"
        raise UserError(
            f"camera: {self._robot.robot} has no camera {self._camera!r} and nothing publishes "
            f"{name}. Right: one of the robot's: {has}."
        )
