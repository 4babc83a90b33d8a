"""Commands to the arm's controller: one class per command interface (`command: interface:`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.ros.arm import endpoints
from wm_nodes.ros.arm.trajectories import trajectory_points
from wm_nodes.ros.node import ManagedNode

QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
CreatePublisher = Callable[[type, str], Any]


class CommandPublishers:
    """Creates publishers of commands. `types`: topic -> message type, the arm's topic first."""

    def __init__(self, node: Node, robot_node: ManagedNode[Any]) -> None:
        self._node, self._robot_node = node, robot_node
        self.types: dict[str, str] = {}

    def create(self, kind: type, topic: str) -> Any:
        name = self._robot_node.resolve_topic_name(topic)
        self.types[name] = endpoints.type_name(kind)
        return self._node.create_publisher(kind, name, QOS)


class ArmOutput(Protocol):
    """Commands of the arm's joints. Both methods may be called by any thread."""

    def send(self, setpoint: Setpoint) -> None:
        """Command a setpoint; the first joints are the arm's."""

    def halt(self) -> None:
        """Command zero velocity or twist; positions and trajectories end at rest by themselves."""


def open_arm_output(
    robot_node: ManagedNode[Any], config: ArmConfig, create: CreatePublisher
) -> ArmOutput:
    """Return the output of a robot's command interface."""
    interface = config.command.interface
    if interface == "position":
        return PositionOutput(config, create)
    if interface == "velocity":
        return VelocityOutput(config, create)
    if interface == "trajectory":
        return TrajectoryOutput(config, create)
    return TwistOutput(robot_node, config, create)


class PositionOutput:
    """Positions [rad], as forward_command_controller takes them."""

    def __init__(self, config: ArmConfig, create: CreatePublisher) -> None:
        self._joints = config.arm_joints
        self._publisher = create(Float64MultiArray, config.command.topic)

    def send(self, setpoint: Setpoint) -> None:
        self._publisher.publish(_numbers(setpoint.position[: self._joints]))

    def halt(self) -> None:
        """The controller holds the last position."""


class VelocityOutput:
    """Velocities [rad/s], as forward_command_controller takes them."""

    def __init__(self, config: ArmConfig, create: CreatePublisher) -> None:
        self._joints = config.arm_joints
        self._publisher = create(Float64MultiArray, config.command.topic)

    def send(self, setpoint: Setpoint) -> None:
        self._publisher.publish(_numbers(setpoint.velocity[: self._joints]))

    def halt(self) -> None:
        self._publisher.publish(_numbers(np.zeros(self._joints)))


class TrajectoryOutput:
    """Trajectories that joint_trajectory_controller takes: the next period, then a stop to rest.

    That is what the arm does if no other message follows.
    """

    def __init__(self, config: ArmConfig, create: CreatePublisher) -> None:
        self._joints, self._rate_hz = slice(config.arm_joints), config.rate_hz
        self._names = list(config.limits.joints[: config.arm_joints])
        self._publisher = create(JointTrajectory, config.command.topic)

    def send(self, setpoint: Setpoint) -> None:
        points = trajectory_points(setpoint, self._joints, self._rate_hz)
        self._publisher.publish(JointTrajectory(joint_names=self._names, points=points))

    def halt(self) -> None:
        """The last trajectory ends at rest."""


class TwistOutput:
    """Velocities of the end effector, linear [m/s] and angular [rad/s], in `command: frame:`."""

    def __init__(
        self, robot_node: ManagedNode[Any], config: ArmConfig, create: CreatePublisher
    ) -> None:
        self._robot_node, self._frame = robot_node, config.command.frame
        self._publisher = create(TwistStamped, config.command.topic)
        self._kinematics = Kinematics(config.model, config.limits.joints, config.hand)

    def send(self, setpoint: Setpoint) -> None:
        _, linear, angular = self._kinematics.jacobian(setpoint.position)
        self._publish(linear @ setpoint.velocity, angular @ setpoint.velocity)

    def halt(self) -> None:
        self._publish(np.zeros(3), np.zeros(3))

    def _publish(self, linear: Floats, angular: Floats) -> None:
        msg = TwistStamped()
        msg.header.stamp = self._robot_node.get_clock().now().to_msg()
        msg.header.frame_id = self._frame
        for part, values in ((msg.twist.linear, linear), (msg.twist.angular, angular)):
            part.x, part.y, part.z = values.tolist()
        self._publisher.publish(msg)


def _numbers(values: Floats) -> Float64MultiArray:
    return Float64MultiArray(data=values.tolist())
