"""The witness: subscribes to the commands of an arm and its joint states, and audits them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import MessageInfo
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from wm_nodes.checks.faults.audit.auditor import STAMP_S, Auditor
from wm_nodes.checks.faults.audit.publishers import SILENT_S
from wm_nodes.errors import MessageError
from wm_nodes.namespaces import within
from wm_nodes.records import Step
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.ros import messages, topics
from wm_nodes.ros.diagnostics import full_name

ALL = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
STANDS_RAD_S = 0.02


@dataclass
class Witness:
    """Subscribe to the arm's topics on `node`, which is in the robot node's namespace; `auditor`
    counts the violations.

    stamp_s: bound of the error of source timestamps [s]. ValueError: commands of the configured
    interface cannot be audited (twist).
    """

    node: Node
    config: ArmConfig
    stamp_s: float = STAMP_S
    stopped: int = 0  # control periods without motion, by the robot's steps
    steps: int = 0
    state: str = ""

    def __post_init__(self) -> None:
        config = self.config
        self.auditor = Auditor(config, stamp_s=self.stamp_s)
        self._names = config.limits.joints[: config.arm_joints]
        self._speed, self._received_s = 0.0, 0.0
        listen = self.node.create_subscription
        if config.command.interface == "trajectory":
            listen(JointTrajectory, config.command.topic, self._on_trajectory, ALL)
        else:
            listen(Float64MultiArray, config.command.topic, self._on_command, ALL)
        listen(JointState, config.joint_states, self._on_joints, ALL)
        listen(JointState, topics.STEPS.name, self._on_step, topics.STEP)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, topics.REPORTS)

    def stands(self) -> bool:
        """Return whether the arm reports standing still, or reports nothing."""
        return time.monotonic() - self._received_s > SILENT_S or self._speed < STANDS_RAD_S

    def moving(self) -> bool:
        """Return whether the arm was commanded to move just now."""
        return self.auditor.moving(time.time())

    def _on_command(self, msg: Float64MultiArray, info: MessageInfo) -> None:
        self.auditor.take_command(np.array(msg.data, np.float64), *_origin(info))

    def _on_trajectory(self, msg: JointTrajectory, info: MessageInfo) -> None:
        """Points whose joints differ from the arm's give empty arrays: a malformed command."""
        points, names = msg.points, list(msg.joint_names)
        dues = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in points]
        places = velocities = np.zeros((0, 0))
        sizes = {len(p.positions) for p in points} | {len(p.velocities) for p in points}
        if sorted(names) == sorted(self._names) and sizes == {len(names)}:
            order = [names.index(name) for name in self._names]
            places = np.array([p.positions for p in points], np.float64)[:, order]
            velocities = np.array([p.velocities for p in points], np.float64)[:, order]
        self.auditor.take_trajectory(np.array(dues), places, velocities, *_origin(info))

    def _on_joints(self, msg: JointState, info: MessageInfo) -> None:
        at = {name: index for index, name in enumerate(msg.name)}
        if not set(self._names) <= set(at):
            return  # of another device
        order = [at[name] for name in self._names]
        self._received_s = time.monotonic()
        if len(msg.velocity):
            self._speed = float(np.abs(np.array(msg.velocity)[order]).max())
        place = np.array(msg.position, np.float64)[order]
        stamp = msg.header.stamp
        self.auditor.take_measurement(place, stamp.sec + stamp.nanosec / 1e9, _origin(info)[2])

    def _on_step(self, msg: JointState) -> None:
        try:
            step: Step = messages.step_from_msg(msg)
        except MessageError:
            return
        self.steps += 1
        if step.signals is not None and not step.is_first:
            self.stopped += int(dict(zip(step.signal_names, step.signals))["stopped"])

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if within(self.node.get_namespace(), full_name(status)) == "robot":
                self.state = status.message


def _origin(info: MessageInfo) -> tuple[float, int, str]:
    """Return a message's source timestamp [s], its number and its publisher, where known."""
    gid = info.get("publisher_gid")
    publisher = bytes(gid["data"]).hex() if gid else ""
    return info["source_timestamp"] / 1e9, info["publication_sequence_number"] or 0, publisher
