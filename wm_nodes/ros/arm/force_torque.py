"""Readings of a force-torque sensor in."""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import WrenchStamped
from rclpy.node import Node

from wm_nodes.robots.arm.config.sections import ForceTorqueSection
from wm_nodes.robots.arm.sensors.wrench import WrenchReadings
from wm_nodes.ros import messages
from wm_nodes.ros.arm import endpoints
from wm_nodes.ros.arm.raw_subscription import subscribe_raw
from wm_nodes.ros.node import ManagedNode


class ForceTorqueInput:
    """Subscribes to the sensor's topic; `readings.newest` is the last reading that can be used."""

    def __init__(
        self, node: Node, robot_node: ManagedNode[Any], section: ForceTorqueSection
    ) -> None:
        self._node, self._robot_node = node, robot_node
        self._topic = robot_node.resolve_topic_name(section.topic)
        self.readings = WrenchReadings(section)
        subscribe_raw(node, robot_node, section.topic, WrenchStamped, self._on_message)

    def sources_fault(self) -> str:
        """Return what is wrong with the sensor's publishers, or ""."""
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if len(publishers) < 2:
            return ""
        return (
            f"force-torque sensor on {self._topic}: got several publishers "
            f"({endpoints.full_names(publishers)}), expected one. End the others."
        )

    def _on_message(self, msg: WrenchStamped, source: bytes) -> None:
        now_ns = self._robot_node.get_clock().now().nanoseconds
        age_s = (now_ns - messages.from_time(msg.header.stamp)) / messages.SECOND_NS
        force, torque = msg.wrench.force, msg.wrench.torque
        values = [force.x, force.y, force.z, torque.x, torque.y, torque.z]
        self.readings.take(values, msg.header.frame_id, time.monotonic(), age_s)
