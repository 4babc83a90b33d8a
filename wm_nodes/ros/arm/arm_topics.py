"""What an arm needs on ROS: the topics of its driver, its cameras, its description."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wm_nodes.robots.arm.config.arm_config import ArmConfig, find_config, read_config
from wm_nodes.robots.robot import RobotError
from wm_nodes.ros import topics
from wm_nodes.ros.arm.description import ArmDescription
from wm_nodes.ros.arm.driver import RosDriver
from wm_nodes.ros.camera_info import DriverViews
from wm_nodes.ros.node import ManagedNode


class ArmTopics:
    """driver: the arm's driver, closed by the robot that uses it. views: its cameras."""

    def __init__(
        self,
        node: ManagedNode[Any],
        config: ArmConfig,
        *,
        tf: str,
        frame_prefix: str,
        link_rate_hz: float,
    ) -> None:
        self.config, self.driver = config, RosDriver(node, config)
        try:
            self.views = DriverViews(node, config, self.driver.cameras, frame_prefix)
            self._description = ArmDescription(
                node, config, self.driver, tf=tf, frame_prefix=frame_prefix, rate_hz=link_rate_hz
            )
        except BaseException:
            self.driver.close()
            raise

    def close(self) -> None:
        """Close the description; the robot closes the driver."""
        self._description.close()


def arm_config(node: ManagedNode[Any], robot: str, driver_ns: str, rate_hz: float) -> ArmConfig:
    """Return the configuration of an arm: a name of config/robots, or the path of a YAML.

    rate_hz: control rate; 0: the YAML's. Raises RobotError if the driver's joint states would be on
    the node's own topic.
    """
    config = read_config(find_config(robot), driver_ns)
    own = node.resolve_topic_name(topics.JOINT_STATES.name)
    if node.resolve_topic_name(config.joint_states) == own:
        raise RobotError(
            f"driver_ns: got {config.driver_ns}, whose joint states are on {own}, this node's own "
            "topic; expected another namespace than the robot node's. Set driver_ns or ns."
        )
    return replace(config, rate_hz=rate_hz) if rate_hz else config
