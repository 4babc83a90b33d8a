"""An arm's wires as ROS topics: joint states and pictures in, commands of one of four kinds out."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wm_nodes import messages
from wm_nodes.cores.capture import Capture, CaptureError
from wm_nodes.cores.images import ImagePipeline
from wm_nodes.errors import MessageError, UserError, user_errors
from wm_nodes.nodes.shell import Shell
from wm_nodes.robots.arm.bus import Frame, Reading, Score
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety import Setpoint

IN = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)  # hears every publisher
OUT = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)  # none lost to a slow hearer
OLDEST_S = 10.0  # a picture whose stamp is older than this was stamped by another clock
POLL_S = 1.0 / 60.0
GREATEST = 1e9  # of a score
TAIL = 20  # points of the stopping motion that a trajectory carries
ROWS = 8  # every so manieth row of a picture tells whether it changed


class RosBus:
    """Callbacks fill one slot each; `joints`, `frames` and `send` may be called by any thread."""

    def __init__(self, node: Shell, config: ArmConfig) -> None:
        self._node, self._config = node, config
        self._joints: Reading | None = None
        self._frames: dict[str, Frame] = {}
        self._prints: dict[str, int] = {}
        self._score = Score()
        self._begun: Future | None = None
        self._captures: dict[str, Capture] = {}
        self._listen(JointState, config.joint_states, self._on_joints)
        self._pipelines: dict[str, ImagePipeline] = {}
        for name, source in config.cameras.items():
            with user_errors(ValueError, CaptureError):
                self._pipelines[name] = ImagePipeline(
                    source.height, source.width, source.crop, exact=source.depth
                )
                if source.device:
                    self._captures[name] = Capture(source.device)
                else:
                    self._listen(ImageMsg, source.topic, partial(self._on_image, name))
        if self._captures:
            node.create_timer(POLL_S, self._on_poll)
        if config.episodes.score_topic:
            self._listen(JointState, config.episodes.score_topic, self._on_score)
        self._reset: Any = None
        if config.episodes.reset_service:
            self._reset = node.create_client(Trigger, config.episodes.reset_service)
        self._make_outputs()

    # The bus ------------------------------------------------------------------------------------

    def now_s(self) -> float:
        return time.monotonic()

    def joints(self) -> Reading | None:
        return self._joints

    def frames(self) -> Mapping[str, Frame]:
        return dict(self._frames)

    def score(self) -> Score:
        return self._score

    def begin(self, seed: int) -> None:
        self._begun = None

    def begun(self) -> bool:
        """Has the scene been set? Asks for it as soon as the service is there."""
        if self._reset is None:
            return True
        if self._begun is None:
            if self._reset.service_is_ready():
                self._begun = self._reset.call_async(Trigger.Request())
            return False
        if not self._begun.done():
            return False
        answer = self._begun.result()
        if answer is None or not answer.success:
            self._begun = None
            return False
        return True

    def send(self, setpoint: Setpoint) -> None:
        n = self._config.arm_joints
        self._send(setpoint, n)
        if self._gripper is not None:
            self._gripper.publish(_numbers(setpoint.position[n:]))

    def wait(self, seconds: float) -> None:
        """Time passes by itself."""

    def close(self) -> None:
        for capture in self._captures.values():
            capture.close()
        self._captures.clear()

    # In -----------------------------------------------------------------------------------------

    def _listen(self, kind: type, topic: str, handle: Any) -> None:
        def callback(msg: Any) -> None:
            try:
                handle(msg)
            except MessageError as error:
                self._node.drop(f"{topic.lstrip('/')}/{error.reason}", str(error))

        self._node.create_subscription(kind, topic, callback, IN)

    def _on_joints(self, msg: JointState) -> None:
        names, wanted = list(msg.name), self._config.limits.joints
        missing = [name for name in wanted if name not in names]
        if missing:
            if set(names).isdisjoint(wanted):
                return  # of another device: joint state topics are often shared
            raise MessageError("names", f"joint states: no {missing[0]!r} among {names}")
        order = [names.index(name) for name in wanted]
        position = _picked(msg.position, order, "positions")
        velocity = _picked(msg.velocity, order, "velocities") if len(msg.velocity) else position * 0
        self._joints = Reading(position, velocity, time.monotonic(), self._number(self._joints))

    def _on_image(self, name: str, msg: ImageMsg) -> None:
        came = time.monotonic()
        depth = self._config.cameras[name].depth
        stamp_ns, raw = (messages.depth_from_msg if depth else messages.image_from_msg)(msg)
        age = (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e9
        self._show(name, raw, came, came - age if 0 <= age < OLDEST_S else came)

    def _on_poll(self) -> None:
        for name, capture in self._captures.items():
            raw = capture.newest()
            if raw is not None:
                now = time.monotonic()
                self._show(name, raw, now, now)

    def _show(self, name: str, raw: Any, came: float, taken: float) -> None:
        image = self._pipelines[name](raw)
        changed = True
        if self._config.watch.camera_frozen_s:
            mark = zlib.adler32(raw[::ROWS].tobytes())
            changed = mark != self._prints.get(name)
            self._prints[name] = mark
        number = self._number(self._frames.get(name))
        self._frames[name] = Frame(lambda: image, came, taken, number, changed)

    def _on_score(self, msg: JointState) -> None:
        numbers = np.abs(np.asarray(msg.position, np.float64))
        if len(msg.name) != len(numbers) or not (numbers < GREATEST).all():
            raise MessageError("size", "score: right is one number below 1e9 for each name")
        facts = dict(zip(msg.name, msg.position))
        success = facts.get("success", 0.0) > 0.5
        self._score = Score(facts.get("reward", 0.0), success, facts)

    @staticmethod
    def _number(before: Reading | Frame | None) -> int:
        return 0 if before is None else before.number + 1

    # Out ----------------------------------------------------------------------------------------

    def _make_outputs(self) -> None:
        config, node = self._config, self._node
        kinds: dict[str, tuple[type, Any]] = {
            "position": (Float64MultiArray, self._send_position),
            "velocity": (Float64MultiArray, self._send_velocity),
            "trajectory": (JointTrajectory, self._send_trajectory),
            "twist": (TwistStamped, self._send_twist),
        }
        kind, self._send = kinds[config.command.interface]
        self._out: Any
        if not config.command.topic:
            raise UserError(f"robot {config.robot}: command: topic is empty.")
        self._out = node.create_publisher(kind, config.command.topic, OUT)
        self._gripper = None
        if config.gripper is not None and config.gripper.topic:
            self._gripper = node.create_publisher(Float64MultiArray, config.gripper.topic, OUT)
        if config.command.interface == "twist":
            self._kinematics = Kinematics(config.model, config.limits.joints, config.hand)

    def _send_position(self, setpoint: Setpoint, n: int) -> None:
        self._out.publish(_numbers(setpoint.position[:n]))

    def _send_velocity(self, setpoint: Setpoint, n: int) -> None:
        self._out.publish(_numbers(setpoint.velocity[:n]))

    def _send_trajectory(self, setpoint: Setpoint, n: int) -> None:
        """The next position, then the stop that follows if nothing else comes."""
        period = 1.0 / self._config.rate_hz
        path = [(setpoint.position, setpoint.velocity)]
        path += list(zip(setpoint.stop.x, setpoint.stop.v))[:TAIL]
        if len(setpoint.stop) > TAIL:
            path[-1] = (setpoint.stop.x[-1], setpoint.stop.v[-1])
        dues = [(index + 1) * period for index in range(len(path))]
        if len(setpoint.stop) > TAIL:
            dues[-1] = (len(setpoint.stop) + 1) * period
        points = []
        for due, (position, velocity) in zip(dues, path):
            point = JointTrajectoryPoint(
                positions=position[:n].tolist(), velocities=velocity[:n].tolist()
            )
            point.time_from_start.sec = math.floor(due)
            point.time_from_start.nanosec = round((due - math.floor(due)) * 1e9)
            points.append(point)
        names = list(self._config.limits.joints[:n])
        self._out.publish(JointTrajectory(joint_names=names, points=points))

    def _send_twist(self, setpoint: Setpoint, n: int) -> None:
        _, linear, angular = self._kinematics.jacobian(setpoint.position)
        msg = TwistStamped()
        msg.header.stamp = self._node.get_clock().now().to_msg()
        msg.header.frame_id = self._config.command.frame
        for part, jacobian in ((msg.twist.linear, linear), (msg.twist.angular, angular)):
            part.x, part.y, part.z = (float(v) for v in jacobian @ setpoint.velocity)
        self._out.publish(msg)


def _numbers(values: Floats) -> Float64MultiArray:
    return Float64MultiArray(data=values.tolist())


def _picked(values: Any, order: list[int], what: str) -> Floats:
    array = np.asarray(values, np.float64)
    if array.size <= max(order):
        raise MessageError("size", f"joint states: {array.size} {what}, right is one for each name")
    picked: Floats = array[order]
    if not np.isfinite(picked).all():
        raise MessageError("non-finite", f"joint states: {what} must be finite")
    return picked
