"""Episodes of a simulated driver: its score in, and its service that sets the scene."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.config.sections import Episodes
from wm_nodes.robots.arm.driver import Score
from wm_nodes.ros.arm.raw_subscription import subscribe_raw
from wm_nodes.ros.node import ManagedNode

ANSWER_S = 10.0  # longest wait for the reset service's answer
LARGEST = 1e9  # of a score


class EpisodeServices:
    """`score`: the newest one. `request_scene`, then `tick` often, until `scene_is_set`.

    Without a score topic the score is zero; without a reset service the scene is always set.
    """

    def __init__(self, node: Node, robot_node: ManagedNode[Any], section: Episodes) -> None:
        self.score = Score()
        self._requested = False
        self._call: Future[Any] | None = None
        self._called_s = 0.0
        if section.score_topic:
            subscribe_raw(node, robot_node, section.score_topic, JointState, self._on_score)
        self._client: Any = None
        if section.reset_service:
            name = robot_node.resolve_service_name(section.reset_service)
            self._client = node.create_client(Trigger, name)

    def request_scene(self) -> None:
        self._call, self._requested = None, True

    def scene_is_set(self) -> bool:
        """Return True once the service has succeeded; it is called as soon as it is there."""
        return self._client is None or _succeeded(self._call)

    def tick(self) -> None:
        """Call the reset service until it succeeds; again if there is no answer for ANSWER_S."""
        call, now = self._call, time.monotonic()
        if self._client is None or not self._requested or _succeeded(call):
            return
        if call is not None and not call.done():
            if now - self._called_s < ANSWER_S:
                return
            self._client.remove_pending_request(call)
        if self._client.service_is_ready():
            self._called_s = now
            self._call = self._client.call_async(Trigger.Request())

    def _on_score(self, msg: JointState, source: bytes) -> None:
        numbers = np.abs(np.asarray(msg.position, np.float64))
        if len(msg.name) != len(numbers) or not (numbers < LARGEST).all():
            raise MessageError(
                "size",
                f"score: got {len(msg.name)} names and {len(numbers)} numbers, expected one "
                f"number below {LARGEST:.0e} for each name. Check its publisher.",
            )
        facts = dict(zip(msg.name, msg.position))
        success = facts.get("success", 0.0) > 0.5
        self.score = Score(facts.get("reward", 0.0), success, facts)


def _succeeded(call: Future[Any] | None) -> bool:
    if call is None or not call.done():
        return False
    answer = call.result()
    return answer is not None and bool(answer.success)
