"""An arm's description: robot_description, transforms of its links, its end effector.

All of it is published by the robot node's executor, never by the control loop's thread or by the
thread of the joint states. Transforms are computed only while a node subscribes to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Protocol

from geometry_msgs.msg import Pose, PoseStamped, Transform, TransformStamped
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import MultiDOFJointState
from std_msgs.msg import String

from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Reading
from wm_nodes.robots.arm.geometry.link_frames import LinkFrames
from wm_nodes.robots.arm.geometry.urdf import Description, describe
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import SpecError
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.topics import ALWAYS, AUTO, NEVER

DESCRIPTION = "robot_description"
LOOK_S = 1.0  # between two looks for another publisher of the description
TF = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
TF_STATIC = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class JointSource(Protocol):
    """Where measured joint positions come from: the arm's driver."""

    def joints(self) -> Reading | None: ...

    def faults(self) -> Any: ...


class ArmDescription:
    """Publishes an arm's description and where its links are measured to be.

    tf: `auto` publishes /tf where tf2_msgs is installed and no other node publishes a description
    in the namespace of the joint states or in the root; `always`, `never`. frame_prefix: put before
    all frame names. rate_hz: at most so many transforms a second.
    UserError: `always` without tf2_msgs. A model that cannot be described is a fault, no error.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        config: ArmConfig,
        source: JointSource,
        *,
        tf: str = AUTO,
        frame_prefix: str = "",
        rate_hz: float = 50.0,
    ) -> None:
        self._node, self._config, self._source = node, config, source
        self._tf, self._prefix = tf, frame_prefix
        self._tf_type = tf_type()
        if tf == ALWAYS and self._tf_type is None:
            raise UserError(
                "tf: got always, but tf2_msgs is not installed, expected auto or never. To have "
                "/tf, install ros-<distro>-tf2-msgs."
            )
        try:
            description = describe(config.model, config.hand, config.limits, tuple(config.cameras))
            self._frames = LinkFrames(description, config.limits.joints)
        except SpecError as error:
            node.report_fault(DESCRIPTION, f"no {DESCRIPTION} and no transforms: {error}")
            return
        self._number = -1
        self._moving: Any = None  # publisher of /tf, while it is published
        self._constant: Any = None
        self._say_description(description)
        self._links = topics.LINK_TRANSFORMS.publisher(node)
        self._pose = topics.END_EFFECTOR_POSE.publisher(node)
        self._look()
        node.create_timer(LOOK_S, self._look)
        node.create_timer(1.0 / rate_hz, self._tick)

    def close(self) -> None:
        """Take back the parameter; the node itself destroys publishers and timers."""
        if self._node.has_parameter(DESCRIPTION):
            self._node.remove_on_set_parameters_callback(_refused)
            self._node.undeclare_parameter(DESCRIPTION)

    # The description ----------------------------------------------------------------------------

    def _say_description(self, description: Description) -> None:
        node = self._node
        self.close()  # what a configuration that failed has left
        about = ParameterDescriptor(description="URDF of the arm, as topic robot_description has.")
        node.declare_parameter(DESCRIPTION, description.text, about, ignore_override=True)
        node.add_on_set_parameters_callback(_refused)
        name = node.resolve_topic_name(topics.ROBOT_DESCRIPTION.name)
        if others := self._others([name]):
            node.diagnostics.facts[DESCRIPTION] = f"not published: {others[0]} publishes {name}"
            return
        self._text = topics.ROBOT_DESCRIPTION.always(node)
        self._text.publish(String(data=description.text))

    def _others(self, names: Iterable[str]) -> list[str]:
        """Return the other nodes that publish one of these topics."""
        own = self._node.get_fully_qualified_name()
        publishers = {
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for name in names
            for info in self._node.get_publishers_info_by_topic(name)
        }
        return sorted(publishers - {own})

    # Transforms ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Begin or end to publish /tf."""
        reason = self._why_not()
        self._node.diagnostics.facts["tf"] = f"off: {reason}" if reason else "on"
        if reason and self._moving is not None:
            self._node.destroy_publisher(self._moving)
            self._node.destroy_publisher(self._constant)
            self._moving = self._constant = None
        elif not reason and self._moving is None and self._tf_type is not None:
            self._moving = self._node.create_publisher(self._tf_type, "/tf", TF)
            self._constant = self._node.create_publisher(self._tf_type, "/tf_static", TF_STATIC)
            self._frames.place(self._config.home)
            stamp_ns = self._node.get_clock().now().nanoseconds
            self._constant.publish(self._tf_msg(stamp_ns, constant=True))

    def _why_not(self) -> str:
        """Return why /tf is not published; "" if it is."""
        if self._tf == NEVER:
            return "parameter tf"
        if self._tf_type is None:
            return "tf2_msgs is not installed"
        if self._tf == ALWAYS:
            return ""
        states = self._node.resolve_topic_name(self._config.joint_states)
        places = {f"{states.rpartition('/')[0]}/{DESCRIPTION}", f"/{DESCRIPTION}"}
        others = self._others(places)
        return f"{', '.join(others)} publishes {DESCRIPTION}" if others else ""

    def _tick(self) -> None:
        """Publish where the links are, if joint states have come since the last time."""
        node, moving = self._node, self._moving
        links, pose = (pub.get_subscription_count() for pub in (self._links, self._pose))
        if not node.active or not (links or pose or moving is not None):
            return
        reading = self._source.joints()
        if reading is None or reading.number == self._number or self._doubtful():
            return
        self._number = reading.number
        age_s = time.monotonic() - max(reading.came_s, reading.newest_s)
        stamp_ns = node.get_clock().now().nanoseconds - round(age_s * messages.SECOND_NS)
        self._frames.place(reading.position)
        if links:
            self._links.publish(self._links_msg(stamp_ns))
        if pose:
            self._pose.publish(self._pose_msg(stamp_ns))
        if moving is not None:
            moving.publish(self._tf_msg(stamp_ns, constant=False))

    def _doubtful(self) -> bool:
        """Do joint states have several publishers, or the wrong one?"""
        return "joint_sources" in self._source.faults()

    def _links_msg(self, stamp_ns: int) -> MultiDOFJointState:
        frames = self._frames
        return MultiDOFJointState(
            header=messages.header(stamp_ns, self._prefix + frames.root),
            joint_names=[self._prefix + name for name in frames.names],
            transforms=[_transform(place, turn) for place, turn in zip(*frames.in_root())],
        )

    def _pose_msg(self, stamp_ns: int) -> PoseStamped:
        place, turn = self._frames.end_effector()
        out = PoseStamped(header=messages.header(stamp_ns, self._prefix + self._frames.root))
        _fill(out.pose, place, turn)
        return out

    def _tf_msg(self, stamp_ns: int, *, constant: bool) -> Any:
        assert self._tf_type is not None
        frames = self._frames
        parts = zip(frames.constant, frames.parents, frames.names, *frames.in_parents())
        return self._tf_type(
            transforms=[
                TransformStamped(
                    header=messages.header(stamp_ns, self._prefix + parent),
                    child_frame_id=self._prefix + name,
                    transform=_transform(place, turn),
                )
                for still, parent, name, place, turn in parts
                if still == constant
            ]
        )


def tf_type() -> type | None:
    """Return tf2_msgs/msg/TFMessage, None where it is not installed."""
    try:
        kind: type = import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None
    return kind


def _refused(parameters: list[Parameter[Any]]) -> SetParametersResult:
    """Refuse to change the description: it is that of the robot's YAML."""
    if any(parameter.name == DESCRIPTION for parameter in parameters):
        return SetParametersResult(
            successful=False, reason=f"{DESCRIPTION} is that of the robot's YAML: change it there"
        )
    return SetParametersResult(successful=True)


def _transform(place: Floats, turn: Floats) -> Transform:
    out = Transform()
    move, spin = out.translation, out.rotation
    move.x, move.y, move.z = place.tolist()
    spin.x, spin.y, spin.z, spin.w = turn.tolist()
    return out


def _fill(pose: Pose, place: Floats, turn: Floats) -> None:
    at, spin = pose.position, pose.orientation
    at.x, at.y, at.z = place.tolist()
    spin.x, spin.y, spin.z, spin.w = turn.tolist()
