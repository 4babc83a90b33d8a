"""The witness: hears what the arm is commanded and where it is, and audits both by itself."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

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
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.trial import audit

ALL = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
STILL = 1e-9  # rad: a command that does not differ
NEAR_RAD = 0.03  # a command to hold where the arm is, this near to where it says it is
SILENT_S = 0.3
CONFIRM_S = 5.0
STANDS_RAD_S = 0.02
MOVING = 2e-4  # rad per period


@dataclass
class Witness:
    """Subscribe to the arm's topics on `node`; `violations` adds up over the whole trial.

    Commands are one path as long as each follows the one before. A resting arm may be told to hold
    where it is measured (it was pushed, its driver was away, the robot node is new): a new path.
    """

    node: Node
    config: ArmConfig
    path: list[Floats] = field(default_factory=list)
    violations: dict[str, int] = field(default_factory=dict)
    jumps: int = 0
    commands: int = 0
    unheard: int = 0  # commands that did not reach the witness: its own fault, and nobody's jump
    stopped: int = 0  # control periods without motion, as the robot says in its steps
    steps: int = 0
    state: str = ""

    def __post_init__(self) -> None:
        config = self.config
        self._hand = Kinematics(config.model, config.limits.joints, config.hand)
        self._grip = config.home[config.arm_joints :]
        self._measured: Floats | None = None
        self._lock = threading.Lock()  # `finish` is called from another thread
        self._number = 0  # of the last command, as its publisher counts
        self._rested = False  # who comes late may hear the middle of a motion
        self._speed, self._said_s = 0.0, 0.0
        self._claim: tuple[Floats, float] | None = None
        self._places: deque[Floats] = deque(maxlen=200)  # where the arm said it was
        self._recent: deque[tuple[float, Floats]] = deque(maxlen=50)
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
        now = time.monotonic()
        recent = [place for when, place in self._recent if now - when < 0.15]
        return len(recent) >= 3 and float(np.abs(np.diff(recent, axis=0)).max()) > MOVING

    def finish(self) -> None:
        """Audit the path so far."""
        with self._lock:
            self._finish()

    def _finish(self) -> None:
        if len(self.path) > 3:
            whole = np.array([np.concatenate([place, self._grip]) for place in self.path])
            found = audit(
                self.config.limits, self._hand, whole, 1.0 / self.config.rate_hz,
                rested=self._rested,
            )  # fmt: skip
            for name, count in (+found.violations).items():
                self.violations[name] = self.violations.get(name, 0) + count
            self.path, self._rested = self.path[-3:], False  # differences go on over the cut

    def _on_command(self, msg: Float64MultiArray, info: MessageInfo) -> None:
        place = np.array(msg.data, np.float64)
        self.commands += 1
        self._miss(info["publication_sequence_number"] or 0)
        if place.shape != (self.config.arm_joints,) or not np.isfinite(place).all():
            self.violations["malformed"] = self.violations.get("malformed", 0) + 1
            return
        with self._lock:
            self._add(place)
        self._recent.append((time.monotonic(), place))

    def _miss(self, number: int) -> None:
        """Audit nothing across commands that were sent and did not come (a starved machine)."""
        before, self._number = self._number, number
        if not 0 < before < number - 1:  # the next one, or another publisher's
            return
        self.unheard += number - 1 - before
        with self._lock:
            self._finish()
            self.path, self._rested = [], False

    def _add(self, place: Floats) -> None:
        if self.path and self._begins_anew(place):
            self._finish()
            self.path, self._rested = [], True
        self.path.append(place)

    def _begins_anew(self, place: Floats) -> bool:
        """Is this the command to hold where a resting arm is, and not the next of a motion?"""
        before = self.path[-3:]
        if len(before) < 3 and not self._rested:
            return False
        before = [before[0]] * (3 - len(before)) + before
        jerk = np.abs(place - 3 * before[2] + 3 * before[1] - before[0]) * self.config.rate_hz**3
        if (jerk <= self.config.limits.jerk[: len(place)] * (1 + 1e-9)).all():
            return False
        silent = time.monotonic() - self._recent[-1][0] > SILENT_S  # driver or robot node was away
        resting = all(np.abs(one - before[-1]).max() < STILL for one in before)
        if not (silent or resting):
            return False
        self.jumps += 1
        self._claim = place, time.monotonic()
        return True

    def _check_claim(self) -> None:
        """The arm's own word must soon confirm that it was where it was told to hold."""
        if self._claim is None or self._measured is None:
            return
        place, when = self._claim
        if any(np.abs(place - one[: len(place)]).max() < NEAR_RAD for one in self._places):
            self._claim = None
        elif time.monotonic() - when > CONFIRM_S:
            self._claim = None
            self.violations["jump"] = self.violations.get("jump", 0) + 1

    def _on_joints(self, msg: JointState) -> None:
        self._said_s = time.monotonic()
        self._speed = float(np.abs(msg.velocity[: self.config.arm_joints]).max())
        at = {name: index for index, name in enumerate(msg.name)}
        self._measured = np.array([msg.position[at[name]] for name in self.config.limits.joints])
        self._places.append(self._measured)
        self._check_claim()

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
