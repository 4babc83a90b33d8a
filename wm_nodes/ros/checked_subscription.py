"""A subscription whose messages are converted and checked; wrong ones are dropped and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription

from wm_nodes.errors import MessageError
from wm_nodes.ros import topics
from wm_nodes.ros.matched_subscription import MatchedSubscription

if TYPE_CHECKING:
    from wm_nodes.ros.node import ManagedNode


@dataclass(frozen=True)
class _Fixed:
    subscription: Subscription[Any]


class CheckedSubscription:
    """The subscription that `ManagedNode.listen` makes; its parameters are described there."""

    def __init__(
        self,
        node: ManagedNode[Any],
        topic: topics.Topic,
        convert: Callable[[Any], Any],
        handle: Callable[..., None],
        qos: QoSProfile | None,
        *,
        idle: bool,
        events: topics.SubscriptionEventCallbacks | None,
        max_bytes: int,
        names: dict[str, str],
    ) -> None:
        self._node, self._topic, self._name = node, topic, topic.name.format(**names)
        self._convert, self._handle = convert, handle
        self._idle, self._max_bytes = idle, max_bytes
        self._full_name = node.resolve_topic_name(self._name)
        identified = hasattr(Subscription, "CallbackType")  # Humble gives no message info
        on_msg: Callable[..., None] = self._on_msg if identified else partial(self._on_msg, info={})
        requested, raw = qos or topic.qos, max_bytes > 0
        self._source: MatchedSubscription | _Fixed
        if requested.reliability == ReliabilityPolicy.BEST_EFFORT:
            on_lost = partial(node.report_lost, self._name)
            self._source = MatchedSubscription(
                node, topic.type, self._name, on_msg, requested.depth, on_lost=on_lost, raw=raw
            )
        else:
            self._source = _Fixed(topic.subscription(node, on_msg, qos, events, raw=raw, **names))

    def drain(self) -> None:
        """Handle all messages that wait in the queue."""
        subscription = self._source.subscription
        with subscription.handle:
            while taken := subscription.handle.take_message(
                subscription.msg_type, self._max_bytes > 0
            ):
                self._on_msg(*taken)

    def _on_msg(self, msg: Any, info: Any) -> None:
        """Handle a message of the topic's only publisher; others are kept or refused."""
        conflicts = self._node.graph_conflicts
        conflicts.release()
        small = not self._max_bytes or len(msg) <= self._max_bytes  # larger ones are dropped anyway
        checked = self._used and small and self._topic.single
        if not checked or conflicts.admits(self._full_name, self._name, self._use, msg, info):
            self._use(msg)

    @property
    def _used(self) -> bool:
        return self._node.active or self._idle

    def _use(self, msg: Any) -> None:
        if not self._used:
            return
        try:
            record = self._convert(self._deserialized(msg) if self._max_bytes else msg)
        except MessageError as error:
            self._node.drop(f"{self._name}/{error.reason}", str(error))
            return
        self._handle(*record) if type(record) is tuple else self._handle(record)

    def _deserialized(self, msg: bytes) -> Any:
        if len(msg) > self._max_bytes:
            raise MessageError(
                "size",
                f"{self._topic.name}: got a message of {len(msg)} bytes, expected at most "
                f"{self._max_bytes}. Send a smaller message.",
            )
        return deserialize_message(msg, self._topic.type)
