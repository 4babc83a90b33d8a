"""An arm's driver on ROS topics: joint states and images in, commands of one of four kinds out.

Joint states, scores and commands belong to a node of their own, which spins in a thread of its own:
they do not wait for callbacks of the robot node. Images and camera devices stay on the robot node.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped, WrenchStamped
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, JointState
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from wm_nodes.errors import MessageError, UserError, user_errors
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.driver import Frame, Reading, Score
from wm_nodes.robots.arm.joint_readings import JointReadings, JointSources
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety_filter import Setpoint
from wm_nodes.robots.arm.wrench import STOP, WrenchReading, WrenchReadings
from wm_nodes.robots.cameras.opencv import Capture, CaptureError
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.ros import messages
from wm_nodes.ros.gripper_driver import GripperOutput, open_gripper
from wm_nodes.ros.matched_subscription import MatchedSubscription
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.stamps import StampWatch
from wm_nodes.ros.trajectories import trajectory_points
from wm_nodes.ros.trajectory_controller import ControllerSettings

IN = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)  # matches every publisher
NEWEST = 1  # images in the queue: an arm acts on no old one
OUT = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
LARGEST_STATE = 64 * 1024  # bytes of a serialized message with measurements
REMEDY = (  # for stamps that no image can have
    "Synchronise the clocks (chrony, PTP), or set `stamps: arrival` for this camera in the "
    "robot's YAML."
)
RESTART_NS = messages.SECOND_NS  # a stamp that goes back further is of a restarted camera
POLL_S = 1.0 / 60.0  # of camera devices
LOOK_S = 0.1  # between two looks at the ROS graph
DISCOVERY_S = 3.5  # until all nodes are discovered: DDS announces each every 3 s
NAMELESS_S = 1.0  # a publisher may be discovered so long before its node's name
SCENE_S = 10.0  # longest wait for the reset service's answer
GREATEST = 1e9  # of a score
ROWS = 8  # an image is compared with the previous one in every eighth row
PREFIX = "robot_driver_"  # node name of a bus: then its start time [ns] in hex


class RosBus:
    """One arm on topics. `joints`, `frames`, `faults`, `send`, `halt` may be called by any thread.

    `node` is the node that commands the driver, in the robot node's namespace and context; services
    that must answer at once belong there. `must_yield`: another commander has precedence.
    `settled`: the driver's topics are the same for DISCOVERY_S: a second source would be known.
    Raises UserError if there is one at the start.
    """

    def __init__(self, node: ManagedNode, config: ArmConfig) -> None:
        if not config.command.topic:
            raise UserError(
                f"robot {config.robot}: command: topic: got an empty name, expected the "
                "controller's command topic. Set it in the robot's YAML."
            )
        self._node, self._config = node, config
        self._joints: Reading | None = None
        limits = config.limits
        self._readings = JointReadings(
            limits.joints, config.home, limits.continuous, config.grace_s
        )
        self._wrenches: WrenchReadings | None = None
        if config.force_torque is not None:
            self._wrenches = WrenchReadings(config.force_torque)
        self._reports: Mapping[str, str] = {}
        self._gripper: GripperOutput | None = None
        self._sources = JointSources(config.limits.joints)
        self._frames: dict[str, Frame] = {}
        self._prints: dict[str, int] = {}
        self.raw_sizes: dict[str, tuple[int, int]] = {}  # height, width of images as they come
        self.frame_ids: dict[str, str] = {}
        self._stamps: dict[str, int] = {}
        self._clocks = {name: StampWatch(node, name) for name in config.cameras}
        self._captures: dict[str, Capture] = {}
        self._score = Score()
        self._scene_wanted = False
        self._scene: Future | None = None
        self._scene_asked_s = 0.0
        self._faults: Mapping[str, str] = {}
        self.must_yield = False
        self.settled = False
        self._driver_graph: frozenset[bytes] = frozenset()  # endpoints of the driver's topics
        self._driver_graph_s = time.monotonic()  # since when they are these
        self._closed = False
        self._on_robot_node: list[Callable[[], object]] = []  # each removes what was made there
        start_ns = time.time_ns()
        self.node = Node(
            f"{PREFIX}{start_ns:x}",
            context=node.context,
            namespace=node.get_namespace(),
            use_global_arguments=False,  # a remapped node name is the robot node's
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="arm_bus", daemon=True)
        try:
            self._make_inputs()
            self._make_outputs()
            self._settings = ControllerSettings(self.node)
            self._states_topic = node.resolve_topic_name(config.joint_states)
            self._commanders = _Commanders(self.node, start_ns, self._command_topics)
            self._await_precedence()
            self._look()
        except BaseException:
            self.close()
            raise
        self.node.create_timer(LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread.start()

    # The bus ------------------------------------------------------------------------------------

    def now_s(self) -> float:
        return time.monotonic()

    def joints(self) -> Reading | None:
        return self._joints

    @property
    def missing_joints(self) -> tuple[str, ...]:
        """Names of joints that no message has had yet."""
        return self._readings.missing

    def frames(self) -> Mapping[str, Frame]:
        return dict(self._frames)

    def faults(self) -> Mapping[str, str]:
        """Return the faults found by the last look, at most LOOK_S ago.

        `joint_sources`: a joint has several publishers, or the wrong one. `controller`: nothing
        subscribes to the commands. `controller_settings`: a trajectory controller begins each
        message at the measured position. `driver_unknown`: joint states come from another process
        than commands are taken by. `commander`: another node commands the arm with precedence.
        `camera_clock`: stamps of images cannot be right. `clock`: /clock stands.
        `wrench_sources`: the force-torque sensor has several publishers. `bus`: the bus has failed.
        """
        return self._faults

    def reports(self) -> Mapping[str, str]:
        """Return what does not stop the arm by itself, as of the last look.

        `gripper`: no controller takes its commands, or a goal was refused or aborted.
        `force_torque`: why the newest message of the force-torque sensor is not used.
        """
        return self._reports

    def wrench(self) -> WrenchReading | None:
        return None if self._wrenches is None else self._wrenches.newest

    def score(self) -> Score:
        return self._score

    def begin(self, seed: int) -> None:
        self._scene, self._scene_wanted = None, True

    def begun(self) -> bool:
        """Return True once the scene is set; it is asked for as soon as the service is there."""
        return self._reset is None or _succeeded(self._scene)

    def send(self, setpoint: Setpoint) -> None:
        n = self._config.arm_joints
        self._send(setpoint, n)
        if self._gripper is not None:
            self._gripper.send(setpoint)

    def halt(self) -> None:
        """Command zero velocity or twist; positions and trajectories end at rest by themselves."""
        interface = self._config.command.interface
        if interface == "velocity":
            self._out.publish(_numbers(np.zeros(self._config.arm_joints)))
        elif interface == "twist":
            self._out.publish(self._twist(np.zeros(3), np.zeros(3)))

    def wait(self, seconds: float) -> None:
        """Time passes by itself."""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for capture in self._captures.values():
            capture.close()
        self._captures.clear()
        if self._thread.is_alive():
            self._executor.wake()
            self._thread.join()
        self._executor.shutdown()
        for remove in self._on_robot_node:
            remove()
        if self._gripper is not None:
            self._gripper.close()
        self.node.destroy_node()

    # The thread of the private node -------------------------------------------------------------

    def _spin(self) -> None:
        try:
            while not self._closed and self.node.context.ok():
                self._executor.spin_once(timeout_sec=LOOK_S)
        except ExternalShutdownException:
            return
        except Exception as error:
            if self._closed or not self.node.context.ok():
                return
            text = f"the thread of the arm's topics has failed ({error}). Restart the robot node."
            self._faults = {"bus": text}
            self._joints = None
            self._node.get_logger().error(text)

    def _look(self) -> None:
        """Look at the ROS graph, and ask for the scene."""
        self._note_graph()
        faults = {}
        if text := self._joint_sources():
            faults["joint_sources"] = text
        if text := self._controller():
            faults["controller"] = text
        if text := self._controller_settings():
            faults["controller_settings"] = text
        if text := self._driver():
            faults["driver_unknown"] = text
        others = self._commanders.others()
        preceding = [other for other in others if other.precedes]
        if preceding:
            faults["commander"] = preceding[0].text
        for other in self._commanders.news(others):
            self._node.diagnostics.faults["commander"] += 1
            self._node.warn("commander", other.text)
        if clocks := [watch.text for watch in self._clocks.values() if watch.text]:
            faults["camera_clock"] = " ".join(clocks)
        if text := self._node.clock_watch.text:
            faults["clock"] = text
        if text := self._wrench_sources():
            faults["wrench_sources"] = text
        self._faults, self.must_yield = faults, bool(preceding)
        self._reports = self._reported()
        self._ask_for_scene()

    def _reported(self) -> dict[str, str]:
        found = {}
        if self._gripper is not None:
            self._gripper.look()
            found["gripper"] = self._gripper.fault
        if self._wrenches is not None:
            found[STOP] = self._wrenches.wrong
        return {name: text for name, text in found.items() if text}

    def _wrench_sources(self) -> str:
        """Return what is wrong with the publishers of the force-torque sensor, or nothing."""
        if self._config.force_torque is None:
            return ""
        topic = self._node.resolve_topic_name(self._config.force_torque.topic)
        found = self.node.get_publishers_info_by_topic(topic)
        if len(found) < 2:
            return ""
        return (
            f"force-torque sensor on {topic}: got several publishers "
            f"({', '.join(sorted(map(_full_name, found)))}), expected one. End the others."
        )

    def _note_graph(self) -> None:
        """Note since when the driver's topics have had the same endpoints."""
        (commands, _), *_ = self._command_topics.items()
        found = [
            *self.node.get_publishers_info_by_topic(self._states_topic),
            *self.node.get_subscriptions_info_by_topic(commands),
        ]
        graph, now = frozenset(_gid(info.endpoint_gid) for info in found), time.monotonic()
        if graph != self._driver_graph:
            self._driver_graph, self._driver_graph_s = graph, now
        self.settled = now - self._driver_graph_s >= DISCOVERY_S

    def _await_precedence(self) -> None:
        """Wait for discovery; raise UserError if another node commands this arm already."""
        end = time.monotonic() + DISCOVERY_S
        while True:
            self._note_graph()
            for other in self._commanders.others():
                if other.precedes:
                    raise UserError(f"robot {self._config.robot}: {other.text}")
            if time.monotonic() >= end:
                return
            time.sleep(0.02)

    def _joint_sources(self) -> str:
        """Return what is wrong with the publishers of joint states, or nothing."""
        topic, now = self._states_topic, time.monotonic()
        found = self.node.get_publishers_info_by_topic(topic)
        names = {_gid(info.endpoint_gid): _full_name(info) for info in found}
        shared = self._sources.shared(len(found), now)
        senders = self._sources.senders(now) & names.keys()
        sending = sorted({names[gid] for gid in senders} or set(names.values()))
        if shared:
            return (
                f"joint states on {topic}: got several publishers of {', '.join(shared)} "
                f"({', '.join(sending)}), expected one. End the other publisher, or give each "
                "driver a topic of its own."
            )
        wanted = self._config.driver_node
        known = [name for name in sending if "_UNKNOWN_" not in name]
        right = [name for name in known if wanted in (name, name.rpartition("/")[2])]
        wrong = [name for name in known if name not in right] if senders else []
        if wanted and known and (wrong or not right):
            return (
                f"joint states on {topic}: got them from {', '.join(wrong or known)}, expected "
                f"{wanted}. End the other publisher, or correct `driver_node:` in the robot's YAML."
            )
        return ""

    def _controller(self) -> str:
        """Return what is wrong with the subscribers of commands, or nothing."""
        (topic, kind), *_ = self._command_topics.items()
        found = self.node.get_subscriptions_info_by_topic(topic)
        if any(info.topic_type == kind for info in found):
            return ""
        others = sorted({info.topic_type for info in found})
        return (
            f"commands on {topic}: got {'subscribers of ' + ', '.join(others) if others else 'no'}"
            f"{'' if others else ' subscriber'}, expected a controller that takes {kind}. "
            "Load and activate it (ros2 control list_controllers)."
        )

    def _controller_settings(self) -> str:
        """Return what is wrong with the settings of a trajectory controller, or nothing."""
        if self._config.command.interface != "trajectory":
            return ""
        (topic, kind), *_ = self._command_topics.items()
        found = self.node.get_subscriptions_info_by_topic(topic)
        names = [_full_name(info) for info in found if info.topic_type == kind]
        return self._settings.wrong(name for name in names if "_UNKNOWN_" not in name)

    def _driver(self) -> str:
        """Return why the driver is not identified, or nothing.

        Without `driver_node` the joint states must come from the process that takes the commands:
        a tool that only publishes joint states, or only listens to commands, is no driver.
        """
        if self._config.driver_node:
            return ""
        (topic, kind), *_ = self._command_topics.items()
        senders = self._sources.senders(time.monotonic())
        states = [
            info
            for info in self.node.get_publishers_info_by_topic(self._states_topic)
            if not senders or _gid(info.endpoint_gid) in senders
        ]
        takers = [
            info
            for info in self.node.get_subscriptions_info_by_topic(topic)
            if info.topic_type == kind
        ]
        if not states or not takers:
            return ""  # other faults say so
        processes = {_process(info) for info in takers}
        if any(_process(info) in processes for info in states):
            return ""
        sending, taking = (", ".join(sorted(map(_full_name, part))) for part in (states, takers))
        return (
            f"the driver is not identified: joint states come from {sending}, commands go to "
            f"{taking}, expected one process. Start the driver, or name the node of its joint "
            "states as `driver_node:` in the robot's YAML."
        )

    def _ask_for_scene(self) -> None:
        """Call the reset service until it succeeds; again if there is no answer for SCENE_S."""
        call, now = self._scene, time.monotonic()
        if self._reset is None or not self._scene_wanted or _succeeded(call):
            return
        if call is not None and not call.done():
            if now - self._scene_asked_s < SCENE_S:
                return
            self._reset.remove_pending_request(call)
        if self._reset.service_is_ready():
            self._scene_asked_s = now
            self._scene = self._reset.call_async(Trigger.Request())

    # In -----------------------------------------------------------------------------------------

    def _make_inputs(self) -> None:
        config, node = self._config, self._node
        self._take_states(config.joint_states, self._on_joints)
        if config.force_torque is not None:
            self._take_raw(config.force_torque.topic, WrenchStamped, self._on_wrench)
        if config.episodes.score_topic:
            self._take_states(config.episodes.score_topic, self._on_score)
        self._reset: Any = None
        if config.episodes.reset_service:
            name = node.resolve_service_name(config.episodes.reset_service)
            self._reset = self.node.create_client(Trigger, name)
        self._pipelines: dict[str, ImagePipeline] = {}
        for name, source in config.cameras.items():
            with user_errors(ValueError, CaptureError):
                self._pipelines[name] = ImagePipeline(
                    source.height, source.width, source.crop, exact=source.depth
                )
                if source.device:
                    self._captures[name] = Capture(source.device)
                else:
                    kind = CompressedImage if source.compressed else ImageMsg
                    self._take_images(name, source.topic, kind)
        if self._captures:
            timer = node.create_timer(POLL_S, self._on_poll)
            self._on_robot_node.append(partial(node.destroy_timer, timer))

    def _take_states(self, topic: str, handle: Callable[[JointState, bytes], None]) -> None:
        self._take_raw(topic, JointState, handle)

    def _take_raw(self, topic: str, kind: type, handle: Callable[[Any, bytes], None]) -> None:
        """Subscribe to serialized messages: too long ones are refused before they cost time."""

        def take(data: bytes, info: Mapping[str, Any]) -> None:
            try:
                msg = _deserialized(data, kind)
                handle(msg, _gid((info.get("publisher_gid") or {}).get("data")))
            except MessageError as error:
                self._drop(topic, error)

        identified = hasattr(Subscription, "CallbackType")  # Humble gives no message info
        callback = take if identified else lambda data: take(data, {})
        name = self._node.resolve_topic_name(topic)
        self.node.create_subscription(kind, name, callback, IN, raw=True)

    def _take_images(self, name: str, topic: str, kind: type) -> None:
        def take(msg: ImageMsg | CompressedImage) -> None:
            try:
                self._on_image(name, msg)
            except MessageError as error:
                self._drop(topic, error)

        lost = partial(self._node.report_lost, topic)
        matched = MatchedSubscription(self._node, kind, topic, take, NEWEST, on_lost=lost)
        self._on_robot_node.append(matched.close)

    def _drop(self, topic: str, error: MessageError) -> None:
        self._node.drop(f"{topic.lstrip('/')}/{error.reason}", str(error))

    def _on_joints(self, msg: JointState, source: bytes) -> None:
        now = time.monotonic()
        self._sources.saw(source, msg.name, now)
        stamp_s = messages.from_time(msg.header.stamp) / messages.SECOND_NS
        reading = self._readings.take(msg.name, msg.position, msg.velocity, now, stamp_s)
        if "joint_sources" not in self._faults and self._sources.shared(1, now):
            self._look()  # before the reading can be used
        if reading is not None:
            self._joints = reading

    def _on_wrench(self, msg: WrenchStamped, source: bytes) -> None:
        assert self._wrenches is not None
        now_ns = self._node.get_clock().now().nanoseconds
        age_s = (now_ns - messages.from_time(msg.header.stamp)) / messages.SECOND_NS
        force, torque = msg.wrench.force, msg.wrench.torque
        values = [force.x, force.y, force.z, torque.x, torque.y, torque.z]
        self._wrenches.take(values, msg.header.frame_id, time.monotonic(), age_s)

    def _on_score(self, msg: JointState, source: bytes) -> None:
        numbers = np.abs(np.asarray(msg.position, np.float64))
        if len(msg.name) != len(numbers) or not (numbers < GREATEST).all():
            raise MessageError(
                "size",
                f"score: got {len(msg.name)} names and {len(numbers)} numbers, expected one "
                f"number below {GREATEST:.0e} for each name. Check its publisher.",
            )
        facts = dict(zip(msg.name, msg.position))
        success = facts.get("success", 0.0) > 0.5
        self._score = Score(facts.get("reward", 0.0), success, facts)

    def _on_image(self, name: str, msg: ImageMsg | CompressedImage) -> None:
        came, source = time.monotonic(), self._config.cameras[name]
        convert = messages.depth_from_msg if source.depth else messages.image_from_msg
        stamp_ns, raw = convert(msg)
        self.frame_ids[name] = msg.header.frame_id
        if source.stamps == "arrival":
            self._show(name, raw, came, came)
            return
        taken = self._taken_s(name, came, stamp_ns)
        before = self._stamps.get(name)
        if before is not None and 0 <= before - stamp_ns <= RESTART_NS:
            self._node.drop(
                "image/repeated",
                f"camera {name}: got an image with the stamp of an earlier one, expected a newer "
                "stamp. Check the camera's driver, or set `stamps: arrival` in its YAML.",
            )
            return
        self._stamps[name] = stamp_ns
        self._show(name, raw, came, taken)

    def _taken_s(self, name: str, came_s: float, stamp_ns: int) -> float:
        """Return when an image was taken by its stamp [s, steady clock]; -inf: it cannot be."""
        watch = self._clocks[name]
        if not watch.right(stamp_ns, REMEDY):
            return -np.inf
        return came_s - max(watch.age_s, 0.0)

    def _on_poll(self) -> None:
        for name, capture in self._captures.items():
            raw = capture.newest()
            if raw is not None:
                self._show(name, raw.image, time.monotonic(), raw.taken_s)

    def _show(self, name: str, raw: Any, came: float, taken: float) -> None:
        image = self._pipelines[name](raw)
        self.raw_sizes[name] = raw.shape[:2]
        changed = True
        if self._config.watch.camera_frozen_s:
            mark = zlib.adler32(raw[::ROWS].tobytes())
            changed = mark != self._prints.get(name)
            self._prints[name] = mark
        before = self._frames.get(name)
        number = 0 if before is None else before.number + 1
        self._frames[name] = Frame(lambda: image, came, taken, number, changed)

    # Out ----------------------------------------------------------------------------------------

    def _make_outputs(self) -> None:
        config = self._config
        kinds: dict[str, tuple[type, Callable[[Setpoint, int], None]]] = {
            "position": (Float64MultiArray, self._send_position),
            "velocity": (Float64MultiArray, self._send_velocity),
            "trajectory": (JointTrajectory, self._send_trajectory),
            "twist": (TwistStamped, self._send_twist),
        }
        self._command_topics: dict[str, str] = {}  # name -> message type; the arm's is first
        kind, self._send = kinds[config.command.interface]
        self._out: Any = self._publisher(kind, config.command.topic)
        if config.gripper is not None and config.gripper.topic:
            name = self._node.resolve_topic_name(config.gripper.topic)
            self._gripper = open_gripper(self.node, config, name, self._publisher)
        if config.command.interface == "twist":
            self._kinematics = Kinematics(config.model, config.limits.joints, config.hand)

    def _publisher(self, kind: type, topic: str) -> Any:
        name = self._node.resolve_topic_name(topic)
        self._command_topics[name] = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        return self.node.create_publisher(kind, name, OUT)

    def _send_position(self, setpoint: Setpoint, n: int) -> None:
        self._out.publish(_numbers(setpoint.position[:n]))

    def _send_velocity(self, setpoint: Setpoint, n: int) -> None:
        self._out.publish(_numbers(setpoint.velocity[:n]))

    def _send_trajectory(self, setpoint: Setpoint, n: int) -> None:
        """Send what follows if no other message comes: the next period, then the stop to rest."""
        names = list(self._config.limits.joints[:n])
        points = trajectory_points(setpoint, slice(n), self._config.rate_hz)
        self._out.publish(JointTrajectory(joint_names=names, points=points))

    def _send_twist(self, setpoint: Setpoint, n: int) -> None:
        _, linear, angular = self._kinematics.jacobian(setpoint.position)
        self._out.publish(self._twist(linear @ setpoint.velocity, angular @ setpoint.velocity))

    def _twist(self, linear: Floats, angular: Floats) -> TwistStamped:
        msg = TwistStamped()
        msg.header.stamp = self._node.get_clock().now().to_msg()
        msg.header.frame_id = self._config.command.frame
        for part, values in ((msg.twist.linear, linear), (msg.twist.angular, angular)):
            part.x, part.y, part.z = values.tolist()
        return msg


@dataclass(frozen=True)
class _Commander:
    """Another publisher of commands; `precedes`: this bus must yield to it."""

    name: str
    precedes: bool
    text: str


class _Commanders:
    """Other publishers on the command topics: the bus that started first has precedence.

    Anything else that publishes commands precedes every bus.
    """

    def __init__(self, node: Node, start_ns: int, topics: Mapping[str, str]) -> None:
        self._node, self._topics = node, tuple(topics)
        self._me = f"{node.get_namespace().rstrip('/')}/{node.get_name()}"
        self._rank = (start_ns, self._me)
        self._nameless: dict[bytes, float] = {}  # when publishers without a name were first seen
        self._known: set[str] = set()

    def others(self) -> list[_Commander]:
        """Return all other commanders. A new node's name is waited for."""
        found: dict[str, _Commander] = {}
        now, nameless = time.monotonic(), {}
        for topic in self._topics:
            for info in self._node.get_publishers_info_by_topic(topic):
                name, gid = _full_name(info), _gid(info.endpoint_gid)
                if name == self._me:
                    continue
                if "_UNKNOWN_" in name:
                    nameless[gid] = self._nameless.get(gid, now)
                    if now - nameless[gid] < NAMELESS_S:
                        continue
                found.setdefault(name, self._judged(name, topic))
        self._nameless = nameless
        return list(found.values())

    def news(self, others: Sequence[_Commander]) -> list[_Commander]:
        """Return those that were not there at the last call."""
        new = [other for other in others if other.name not in self._known]
        self._known = {other.name for other in others}
        return new

    def _judged(self, name: str, topic: str) -> _Commander:
        started = re.fullmatch(f".*/{PREFIX}([0-9a-f]+)", name)
        ours = (int(started[1], 16), name) if started else None
        precedes = ours is None or ours < self._rank
        if ours is None:
            what = f"{name}, which is no robot node"
        else:
            what = f"the robot node of {name}, which started {'earlier' if precedes else 'later'}"
        if precedes:
            remedy = "End that node, or give one of the two another command topic."
        else:
            remedy = "That one yields: end it."
        text = f"commands on {topic}: got another publisher, {what}, expected none. {remedy}"
        return _Commander(name, precedes, text)


def _deserialized(data: bytes, kind: type) -> Any:
    what = "joint states" if kind is JointState else f"{kind.__name__} messages"
    if len(data) > LARGEST_STATE:
        raise MessageError(
            "size",
            f"{what}: got a message of {len(data)} bytes, expected at most {LARGEST_STATE}. "
            "Check its publisher.",
        )
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # rclpy's own types differ between releases
        raise MessageError(
            "serialization",
            f"{what}: got {len(data)} bytes that are no {kind.__name__} ({error}), expected a "
            f"serialized {kind.__name__}. Check its publisher.",
        ) from None


def _succeeded(call: Future | None) -> bool:
    if call is None or not call.done():
        return False
    answer = call.result()
    return answer is not None and bool(answer.success)


def _gid(data: Any) -> bytes:
    """Return a publisher's identifier; the graph pads it with zeros in some releases."""
    return bytes(data or b"")[:16]


def _process(info: Any) -> bytes:
    """Return what the identifiers of all endpoints of one process begin with (DDS: GUID prefix)."""
    return _gid(info.endpoint_gid)[:12]


def _full_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _numbers(values: Floats) -> Float64MultiArray:
    return Float64MultiArray(data=values.tolist())
