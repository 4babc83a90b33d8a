"""A subscription with the reliability of its topic's publishers, which counts lost messages.

Fast DDS splits an image into fragments of 64 KB. With best effort one lost fragment loses the
image; with reliable it is sent again. A reliable subscription gets nothing from a best-effort
publisher, so the reliability is that of the publishers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from wm_nodes.ros.topics import SubscriptionEventCallbacks

LOOK_S = 0.25  # between two looks at the publishers
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


class MatchedSubscription:
    """A subscription to `topic` that is reliable while every publisher of it is.

    It is reliable where no publisher is known yet, as this package's all are, and is created again
    when the publishers offer something else; a message before that may be missed. `depth`: queued
    messages; 1: the newest only. `on_lost(n)`: n more messages were lost on their way, as the
    middleware counts them. `raw`: the callback gets serialized messages.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        callback: Callable[..., None],
        depth: int,
        *,
        on_lost: Callable[[int], None],
        raw: bool = False,
    ) -> None:
        self._node, self._kind, self._raw = node, kind, raw
        self._topic = node.resolve_topic_name(topic)
        self._callback, self._depth, self._on_lost = callback, depth, on_lost
        self._type = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        self.subscription = self._subscribe(self._offered() or RELIABLE)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(LOOK_S, self.match, clock=steady)

    @property
    def reliability(self) -> ReliabilityPolicy:
        return ReliabilityPolicy(self.subscription.qos_profile.reliability)

    def match(self) -> None:
        """Subscribe again if the publishers offer another reliability than at the last look."""
        offered = self._offered()
        if offered is not None and offered != self.reliability:
            self._node.destroy_subscription(self.subscription)
            self.subscription = self._subscribe(offered)

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self.subscription)

    def _offered(self) -> ReliabilityPolicy | None:
        """Return the reliability that matches every publisher; None: there is no publisher."""
        offers = [
            info.qos_profile.reliability
            for info in self._node.get_publishers_info_by_topic(self._topic)
            if info.topic_type == self._type
        ]
        if not offers:
            return None
        return RELIABLE if all(each == RELIABLE for each in offers) else BEST_EFFORT

    def _subscribe(self, reliability: ReliabilityPolicy) -> Subscription[Any]:
        qos = QoSProfile(depth=self._depth, reliability=reliability)
        lost = SubscriptionEventCallbacks(
            message_lost=lambda info: self._on_lost(info.total_count_change),
            use_default_callbacks=False,  # they warn of a mismatch that `match` removes
        )
        try:
            return self._make(qos, lost)
        except UnsupportedEventTypeError:  # this middleware does not count
            return self._make(qos, SubscriptionEventCallbacks(use_default_callbacks=False))

    def _make(self, qos: QoSProfile, events: SubscriptionEventCallbacks) -> Subscription[Any]:
        return self._node.create_subscription(
            self._kind, self._topic, self._callback, qos, event_callbacks=events, raw=self._raw
        )
