"""Goal images on topics: subscribed by planners, published by nodes that see the camera."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from std_srvs.srv import Trigger

from wm_nodes.agent.goals import Goal, read_goal
from wm_nodes.records import Image, Vector
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode

FAULT = "goal"


class Planner(Protocol):
    """What a goal is set on: an ActionPlanner, or the agent of several environments."""

    goal: Goal | None


class GoalListener:
    """Sets the goal of a policy from topic goal/image.

    Proprioception on goal/joint_states with the image's stamp belongs to it; it may be received
    before or after the image, or not at all.
    """

    def __init__(self, node: ManagedNode[Any], policy: Planner, path: str) -> None:
        """path: file of the first goal image; empty: none. UserError if it cannot be read."""
        self._node, self._policy = node, policy
        self._image: tuple[int, Image] | None = None
        self._joints: tuple[int, Vector] | None = None
        if path:
            policy.goal = read_goal(path)
        for qos in (topics.GOAL.qos, topics.UNLATCHED):  # a latched image is received twice
            node.listen(topics.GOAL, messages.image_from_msg, self._on_image, qos, idle=True)
        node.listen(topics.GOAL_JOINTS, messages.joints_from_msg, self._on_joints, idle=True)

    def report_missing(self) -> None:
        """Report that the policy needs a goal and has none."""
        self._node.report_fault(
            FAULT, "no goal yet: publish an image on goal/image, or call set_goal_here"
        )

    def _on_image(self, stamp_ns: int, image: Image) -> None:
        before, self._image = self._image, (stamp_ns, image.copy())
        if before is None or before[0] != stamp_ns or not np.array_equal(before[1], image):
            self._set_goal()

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        self._joints = stamp_ns, values
        if self._image is not None and self._image[0] == stamp_ns:
            self._set_goal()

    def _set_goal(self) -> None:
        assert self._image is not None
        stamp_ns, image = self._image
        same = self._joints is not None and self._joints[0] == stamp_ns
        self._policy.goal = Goal(image, self._joints[1] if same and self._joints else None)
        self._node.clear_fault(FAULT, "goal received")


class GoalService:
    """The service set_goal_here: publishes the newest observation as the planner's goal."""

    def __init__(self, node: ManagedNode[Any]) -> None:
        self._newest: tuple[int, Image, tuple[tuple[str, ...], Vector] | None] | None = None
        self._images = topics.GOAL.always(node)
        self._joints = topics.GOAL_JOINTS.always(node)
        node.create_service(Trigger, "set_goal_here", self._on_call)

    def update(
        self, stamp_ns: int, image: Image | None, joints: tuple[tuple[str, ...], Vector] | None
    ) -> None:
        """Keep the newest observation; one without an image cannot be a goal and is not kept."""
        if image is not None:
            self._newest = stamp_ns, image, joints

    def _on_call(self, request: Any, response: Any) -> Any:
        response.success = self._newest is not None
        if self._newest is None:
            response.message = "no image received yet"
            return response
        stamp_ns, image, joints = self._newest
        if joints is not None:
            self._joints.publish(messages.joints_to_msg(*joints, stamp_ns))
        self._images.publish(messages.image_to_msg(image, stamp_ns))
        response.message = "the current image is the goal"
        return response
