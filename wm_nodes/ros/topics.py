"""The wiring diagram: name, message type and quality of service of every topic, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, MultiDOFJointState
from std_msgs.msg import Header, String, UInt64
from trajectory_msgs.msg import JointTrajectory

from wm_nodes import namespaces

try:
    from rclpy.event_handler import SubscriptionEventCallbacks as SubscriptionEventCallbacks
except ImportError:  # before Iron
    from rclpy.qos_event import SubscriptionEventCallbacks as SubscriptionEventCallbacks

NAMESPACE = namespaces.ROBOT
LOCKSTEP, REALTIME = "lockstep", "realtime"
AUTO, ALWAYS, NEVER = "auto", "always", "never"
MODES = (LOCKSTEP, REALTIME)
TF_CHOICES = (AUTO, ALWAYS, NEVER)
RAW, COMPRESSED = "raw", "compressed"  # transports of images, as in image_transport
TRANSPORTS = (RAW, COMPRESSED)

# Best effort means here what the publishers offer: see ros.matched_subscription.
# The newest image only, in real time.
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Images in real time for a node that handles each at once: a short delay loses none.
STREAM = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
# Every image, in order: offered by all our publishers of images (also to SENSOR subscribers), and
# requested by lock-step nodes and the recorder, so that no row is lost.
FRAMES = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
# Every step, in order.
STEP = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
# The newest only, reliably; a missed deadline is reported.
COMMAND = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, deadline=Duration(seconds=1.0)
)
# The newest, also sent to late subscribers.
WEIGHTS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# The newest, not latched: what `ros2 topic pub` and camera tools offer.
UNLATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
REPORTS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True, eq=False)
class Topic:
    """One row of the table. `{camera}` in a name is filled in by the caller. single: one process
    publishes it, and a second one is refused."""

    name: str
    type: type
    qos: QoSProfile
    single: bool = False

    def below(self, namespace: str) -> Topic:
        """Return the same topic in a namespace below the node's own; "": this one."""
        return replace(self, name=f"{namespace}/{self.name}") if namespace else self

    def publisher(self, node: LifecycleNode, **parts: str) -> Publisher[Any]:
        """Make a publisher that is silent while the node is not active."""
        return node.create_lifecycle_publisher(self.type, self.name.format(**parts), self.qos)

    def always(self, node: Node, **parts: str) -> Publisher[Any]:
        """Make a publisher that publishes in every state of the node."""
        return node.create_publisher(self.type, self.name.format(**parts), self.qos)

    def subscription(
        self,
        node: Node,
        callback: Callable[..., None],
        qos: QoSProfile | None = None,
        events: SubscriptionEventCallbacks | None = None,
        *,
        raw: bool = False,
        **parts: str,
    ) -> Subscription[Any]:
        """Subscribe, with the table's quality of service or another; raw: to serialized bytes."""
        name = self.name.format(**parts)
        return node.create_subscription(
            self.type, name, callback, qos or self.qos, event_callbacks=events, raw=raw
        )


IMAGE_RAW = Topic("{camera}/image_raw", Image, FRAMES, single=True)
IMAGE_COMPRESSED = Topic("{camera}/image_raw/compressed", CompressedImage, FRAMES, single=True)
CAMERA_INFO = Topic("{camera}/camera_info", CameraInfo, FRAMES)  # stamp and frame of image_raw
IMAGE = Topic("{camera}/image", Image, FRAMES, single=True)
JOINT_STATES = Topic("joint_states", JointState, STEP, single=True)
STEPS = Topic("step", JointState, STEP, single=True)
FEATURES = Topic("features", Image, FRAMES, single=True)
LATENT = Topic("latent", Image, FRAMES, single=True)
PLAN = Topic("plan", JointTrajectory, COMMAND, single=True)
ANNOUNCEMENTS = Topic("weights", String, WEIGHTS, single=True)
# What the robot is: names, units, bounds, cameras (JSON).
SPEC = Topic("spec", String, WEIGHTS, single=True)
# Stamp of an episode's first observation, once the recorder has all of it. Not latched: a robot
# that starts again would take the acknowledgement of its previous process for its own.
RECORDED = Topic("recorded", Header, UNLATCHED, single=True)
PACE = Topic("pace", UInt64, WEIGHTS, single=True)  # agent steps that the trainer has processed
GOAL = Topic("goal/image", Image, WEIGHTS)  # image that the camera shows at the goal
GOAL_JOINTS = Topic("goal/joint_states", JointState, WEIGHTS)  # proprioception there, same stamp
IMAGINATION = Topic("imagination/image", Image, FRAMES)
ROBOT_DESCRIPTION = Topic("robot_description", String, WEIGHTS)  # URDF of an arm
LINK_TRANSFORMS = Topic("link_transforms", MultiDOFJointState, REPORTS)  # in the root link's frame
END_EFFECTOR_POSE = Topic("end_effector_pose", PoseStamped, REPORTS)
DIAGNOSTICS = Topic("/diagnostics", DiagnosticArray, REPORTS)


def frames_qos(mode: str, realtime: QoSProfile = SENSOR) -> QoSProfile:
    """Return the QoS of images, features and latents: all in lock-step, else the newest."""
    return FRAMES if mode == LOCKSTEP else realtime
