"""The driver in the ROS graph: who publishes joint states, who takes commands, what is wrong."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.sensors.joint_readings import JointSources
from wm_nodes.ros.arm import endpoints
from wm_nodes.ros.arm.controller_settings import ControllerSettings


class DriverConnections:
    """Looks at the endpoints of joint states and commands. Call it in one thread only.

    states: topic of joint states. commands: topic and message type of the arm's commands. sources:
    which publishers send which joints.
    """

    def __init__(
        self,
        node: Node,
        config: ArmConfig,
        states: str,
        commands: tuple[str, str],
        sources: JointSources,
    ) -> None:
        self._node, self._config, self._states, self._sources = node, config, states, sources
        self._commands, self._command_type = commands
        self.settings = ControllerSettings(node)
        self.settled = False  # the endpoints are the same for DISCOVERY_S
        self._endpoints: frozenset[bytes] = frozenset()
        self._since_s = time.monotonic()  # since when they are these

    def look(self) -> None:
        """Note since when the driver's topics have had the same endpoints."""
        infos = [
            *self._node.get_publishers_info_by_topic(self._states),
            *self._node.get_subscriptions_info_by_topic(self._commands),
        ]
        identifiers = frozenset(endpoints.identifier(info.endpoint_gid) for info in infos)
        now = time.monotonic()
        if identifiers != self._endpoints:
            self._endpoints, self._since_s = identifiers, now
        self.settled = now - self._since_s >= endpoints.DISCOVERY_S

    def faults(self) -> dict[str, str]:
        """Return what is wrong now: name of the fault -> one sentence with the remedy.

        joint_sources, controller, controller_settings, driver_unknown: as `RosDriver.faults` says.
        """
        faults = {
            "joint_sources": self._joint_sources(),
            "controller": self._controller(),
            "controller_settings": self._controller_settings(),
            "driver_unknown": self._driver_unknown(),
        }
        return {name: text for name, text in faults.items() if text}

    def _joint_sources(self) -> str:
        """Return what is wrong with the publishers of joint states, or ""."""
        now = time.monotonic()
        publishers = self._node.get_publishers_info_by_topic(self._states)
        names = {
            endpoints.identifier(info.endpoint_gid): endpoints.full_name(info)
            for info in publishers
        }
        shared = self._sources.shared(len(publishers), now)
        senders = self._sources.senders(now) & names.keys()
        sending = sorted({names[gid] for gid in senders} or set(names.values()))
        if shared:
            return (
                f"joint states on {self._states}: got several publishers of {', '.join(shared)} "
                f"({', '.join(sending)}), expected one. End the other publisher, or give each "
                "driver a topic of its own."
            )
        expected = self._config.driver_node
        known = [name for name in sending if endpoints.UNNAMED not in name]
        right = [name for name in known if expected in (name, name.rpartition("/")[2])]
        wrong = [name for name in known if name not in right] if senders else []
        if expected and known and (wrong or not right):
            return (
                f"joint states on {self._states}: got them from {', '.join(wrong or known)}, "
                f"expected {expected}. End the other publisher, or correct `driver_node:` in the "
                "robot's YAML."
            )
        return ""

    def _controller(self) -> str:
        """Return what is wrong with the subscribers of commands, or ""."""
        subscribers = self._node.get_subscriptions_info_by_topic(self._commands)
        if any(info.topic_type == self._command_type for info in subscribers):
            return ""
        others = sorted({info.topic_type for info in subscribers})
        got = f"subscribers of {', '.join(others)}" if others else "no subscriber"
        return (
            f"commands on {self._commands}: got {got}, expected a controller that takes "
            f"{self._command_type}. Load and activate it (ros2 control list_controllers)."
        )

    def _controller_settings(self) -> str:
        """Return what is wrong with the settings of a trajectory controller, or ""."""
        if self._config.command.interface != "trajectory":
            return ""
        names = map(endpoints.full_name, self._command_subscribers())
        return self.settings.wrong(name for name in names if endpoints.UNNAMED not in name)

    def _driver_unknown(self) -> str:
        """Return why the driver is not identified, or "".

        Without `driver_node` the joint states must come from the process that takes the commands:
        a tool that only publishes joint states, or only listens to commands, is no driver.
        """
        if self._config.driver_node:
            return ""
        senders = self._sources.senders(time.monotonic())
        publishers = [
            info
            for info in self._node.get_publishers_info_by_topic(self._states)
            if not senders or endpoints.identifier(info.endpoint_gid) in senders
        ]
        subscribers = self._command_subscribers()
        if not publishers or not subscribers:
            return ""  # other faults report it
        processes = {endpoints.process(info) for info in subscribers}
        if any(endpoints.process(info) in processes for info in publishers):
            return ""
        return (
            "the driver is not identified: joint states come from "
            f"{endpoints.full_names(publishers)}, commands go to "
            f"{endpoints.full_names(subscribers)}, expected one process. Start the driver, or name "
            "the node of its joint states as `driver_node:` in the robot's YAML."
        )

    def _command_subscribers(self) -> list[Any]:
        """Return the subscribers that take the arm's commands."""
        subscribers = self._node.get_subscriptions_info_by_topic(self._commands)
        return [info for info in subscribers if info.topic_type == self._command_type]
