"""Refuses a camera that does not exist, for whose images the node would wait forever."""

from __future__ import annotations

from typing import Any

from wm_datasets.spec import LogSpec
from wm_nodes.errors import UserError
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode

WAIT_S = 5.0  # for a camera driver to start


class RobotCamera:
    """Ends the node with UserError if the robot has no such camera and no other node publishes it.

    Checked once, WAIT_S after the robot's spec was received. images: the topic that the node
    subscribes to; the robot publishes the raw one.
    """

    def __init__(
        self, node: ManagedNode[Any], camera: str, images: topics.Topic, place: str = ""
    ) -> None:
        """place: namespace of the robot's topics, below the node's own."""
        self._node, self._camera, self._images = node, camera, images.below(place)
        self._robot: LogSpec | None = None
        node.listen(topics.SPEC.below(place), messages.spec_from_msg, self._on_spec, idle=True)

    def _on_spec(self, robot: LogSpec) -> None:
        if self._robot is None:
            self._timer = self._node.create_timer(WAIT_S, self._check)
        self._robot = robot

    def _check(self) -> None:
        self._timer.cancel()
        assert self._robot is not None
        name = self._images.name.format(camera=self._camera)
        publishers = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(name))
        types = {info.topic_type for info in publishers}
        expected = type_name(self._images.type)
        raw = self._images.type is topics.IMAGE_RAW.type
        if expected in types or (raw and not types and self._camera in self._robot.cameras):
            return
        if types:
            other = topics.COMPRESSED if raw else topics.RAW
            raise UserError(
                f"camera: {name}: got type {', '.join(sorted(types))}, expected {expected}. Remap "
                f"the image's topic, or set transport: {other}."
            )
        has = ", ".join(self._robot.cameras) or "none"
        raise UserError(
            f"camera: got {self._camera!r}, which {self._robot.robot} does not have and no node "
            f"publishes ({name}), expected one of: {has}."
            if raw
            else f"camera: {name}: got no publisher, expected one. Start a camera driver, or set "
            "transport: raw."
        )


def type_name(kind: type) -> str:
    """Return the name of a message type in the ROS graph, as sensor_msgs/msg/Image."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
