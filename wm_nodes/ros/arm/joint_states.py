"""Joint states in: merged from messages that may each hold some of the joints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Reading
from wm_nodes.robots.arm.sensors.joint_readings import JointReadings, JointSources
from wm_nodes.ros import messages
from wm_nodes.ros.arm.raw_subscription import subscribe_raw
from wm_nodes.ros.node import ManagedNode


class JointStateInput:
    """Subscribes to the driver's joint states. `newest`: the last complete reading; None: none yet.

    `sources`: which publishers send which joints. on_shared: called, before a reading can be used,
    when the first message of a second publisher of one joint arrives.
    """

    def __init__(
        self,
        node: Node,
        robot_node: ManagedNode[Any],
        config: ArmConfig,
        on_shared: Callable[[], None],
    ) -> None:
        limits = config.limits
        self.readings = JointReadings(limits.joints, config.home, limits.continuous, config.grace_s)
        self.sources = JointSources(limits.joints)
        self.newest: Reading | None = None
        self._on_shared = on_shared
        subscribe_raw(node, robot_node, config.joint_states, JointState, self._on_message)

    def _on_message(self, msg: JointState, source: bytes) -> None:
        now = time.monotonic()
        self.sources.note(source, msg.name, now)
        stamp_s = messages.from_time(msg.header.stamp) / messages.SECOND_NS
        reading = self.readings.take(msg.name, msg.position, msg.velocity, now, stamp_s)
        if self.sources.shared(1, now):
            self._on_shared()
        if reading is not None:
            self.newest = reading
