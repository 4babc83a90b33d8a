"""Subscriptions to serialized measurements: too long messages are dropped before they cost time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState

from wm_nodes.errors import MessageError
from wm_nodes.ros.arm import endpoints
from wm_nodes.ros.node import ManagedNode

QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)  # matches every publisher
LARGEST = 64 * 1024  # bytes of a serialized message with measurements


def subscribe_raw(
    node: Node,
    robot_node: ManagedNode[Any],
    topic: str,
    kind: type,
    handle: Callable[[Any, bytes], None],
) -> None:
    """Call handle(message, publisher's identifier) for each message of `topic` that can be used.

    node: where the subscription is made, and in whose thread `handle` is called. robot_node:
    resolves the topic's name and counts dropped messages; a MessageError of `handle` drops one too.
    The identifier is empty where the middleware does not give it.
    """

    def take(data: bytes, info: Mapping[str, Any]) -> None:
        try:
            gid = (info.get("publisher_gid") or {}).get("data")
            handle(_deserialized(data, kind), endpoints.identifier(gid))
        except MessageError as error:
            count_dropped(robot_node, topic, error)

    identified = hasattr(Subscription, "CallbackType")  # Humble gives no message info
    callback = take if identified else lambda data: take(data, {})
    node.create_subscription(kind, robot_node.resolve_topic_name(topic), callback, QOS, raw=True)


def count_dropped(robot_node: ManagedNode[Any], topic: str, error: MessageError) -> None:
    """Count a message that could not be used, by topic and reason."""
    robot_node.drop(f"{topic.lstrip('/')}/{error.reason}", str(error))


def _deserialized(data: bytes, kind: type) -> Any:
    what = "joint states" if kind is JointState else f"{kind.__name__} messages"
    if len(data) > LARGEST:
        raise MessageError(
            "size",
            f"{what}: got a message of {len(data)} bytes, expected at most {LARGEST}. "
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
