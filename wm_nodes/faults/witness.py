"""The witness: hears what the arm is commanded and where it is, and has it audited."""

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

from wm_nodes import messages, topics
from wm_nodes.cores.records import Step
from wm_nodes.errors import MessageError
from wm_nodes.faults.auditor import SILENT_S, Auditor
from wm_nodes.robots.arm.config import ArmConfig

ALL = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
STANDS_RAD_S = 0.02


@dataclass
class Witness:
    """Subscribe to the arm's topics on `node`; `auditor` says what was wrong."""

    node: Node
    config: ArmConfig
    stopped: int = 0  # control periods without motion, as the robot says in its steps
    steps: int = 0
    state: str = ""

    def __post_init__(self) -> None:
        config = self.config
        self.auditor = Auditor(config)
        self._speed, self._said_s = 0.0, 0.0
        listen = self.node.create_subscription
        listen(Float64MultiArray, config.command.topic, self._on_command, ALL)
        listen(JointState, config.joint_states, self._on_joints, ALL)
        listen(JointState, f"{topics.NAMESPACE}/step", self._on_step, topics.STEP)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, topics.REPORTS)

    def stands(self) -> bool:
        """Does the arm itself stand still, by its own word or by its silence?"""
        return time.monotonic() - self._said_s > SILENT_S or self._speed < STANDS_RAD_S

    def moving(self) -> bool:
        """Was the arm commanded to move just now?"""
        return self.auditor.moving(time.monotonic())

    def _on_command(self, msg: Float64MultiArray, info: MessageInfo) -> None:
        sent = info["publication_sequence_number"] or 0
        self.auditor.hear(np.array(msg.data, np.float64), time.monotonic(), sent)

    def _on_joints(self, msg: JointState) -> None:
        self._said_s = time.monotonic()
        self._speed = float(np.abs(msg.velocity[: self.config.arm_joints]).max())
        at = {name: index for index, name in enumerate(msg.name)}
        place = np.array([msg.position[at[name]] for name in self.config.limits.joints])
        self.auditor.hear_place(place, self._said_s)

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
            if status.name.endswith("/robot"):
                self.state = status.message
