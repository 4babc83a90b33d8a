"""Goals on topics: heard by who plans, told by who sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from wm_nodes.agent.goals import Goal, read_goal
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.records import Image, Vector
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import Shell


class GoalListener:
    """Gives a policy the goals that come on goal/image.

    Proprioception on goal/joint_states with the picture's stamp belongs to it; it may come first or
    later, or not at all.
    """

    def __init__(self, node: Shell, policy: ActionPlanner, path: str) -> None:
        """`path` is a picture to begin with; empty: none. UserError if it cannot be read."""
        self._node, self._policy = node, policy
        self._image: tuple[int, Image] | None = None
        self._joints: tuple[int, Vector] | None = None
        if path:
            policy.goal = read_goal(path)
        for qos in (topics.GOAL.qos, topics.UNLATCHED):  # a latched one comes twice
            node.listen(topics.GOAL, messages.image_from_msg, self._on_image, qos, idle=True)
        node.listen(topics.GOAL_JOINTS, messages.joints_from_msg, self._on_joints, idle=True)

    def missing(self) -> None:
        """Say that there is nothing to act for."""
        self._node.fault("goal", "no goal yet: publish a picture on goal/image, or call goal_here")

    def _on_image(self, stamp_ns: int, image: Image) -> None:
        before, self._image = self._image, (stamp_ns, image.copy())
        if before is None or before[0] != stamp_ns or not np.array_equal(before[1], image):
            self._set()

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        self._joints = stamp_ns, values
        if self._image is not None and self._image[0] == stamp_ns:
            self._set()

    def _set(self) -> None:
        assert self._image is not None
        stamp_ns, image = self._image
        known = self._joints is not None and self._joints[0] == stamp_ns
        self._policy.goal = Goal(image, self._joints[1] if known and self._joints else None)
        self._node.well("goal", "there is a goal")


class GoalSpeaker:
    """The service goal_here: what is seen now becomes the goal of the planner."""

    def __init__(self, node: Shell) -> None:
        self._seen: tuple[int, Image, tuple[tuple[str, ...], Vector] | None] | None = None
        self._images = topics.GOAL.always(node)
        self._joints = topics.GOAL_JOINTS.always(node)
        node.create_service(Trigger, "goal_here", self._on_call)

    def saw(
        self, stamp_ns: int, image: Image | None, joints: tuple[tuple[str, ...], Vector] | None
    ) -> None:
        """Remember the newest observation; a goal is an image, so one without is not remembered."""
        if image is not None:
            self._seen = stamp_ns, image, joints

    def _on_call(self, request: Any, response: Any) -> Any:
        response.success = self._seen is not None
        if self._seen is None:
            response.message = "nothing has been seen yet"
            return response
        stamp_ns, image, joints = self._seen
        if joints is not None:
            self._joints.publish(messages.joints_to_msg(*joints, stamp_ns))
        self._images.publish(messages.image_to_msg(image, stamp_ns))
        response.message = "what is seen now is the goal"
        return response
