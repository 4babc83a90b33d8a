"""Client of a running arm's goal topics: sends a goal, or saves the current image as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_srvs.srv import Trigger

from wm_nodes.agent.goals import Goal, joints_beside, read_goal, write_goal
from wm_nodes.errors import UserError
from wm_nodes.ros import messages, topics
from wm_nodes.ros.synchronizer import Synchronizer

ACK = Duration(seconds=2.0)
LINGER_S = 4.0  # without a new subscriber: nodes announce themselves every 3 s


class GoalClient:
    """Uses a robot's goal topics and services; UserError if one does not answer within `wait_s`."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor, wait_s: float) -> None:
        self._node, self._executor, self._wait_s = node, executor, wait_s

    def send(self, path: Path) -> None:
        """Publish the image in a file, and the joint states beside it, as the goal."""
        goal, names = read_goal(path), tuple(joints_beside(path) or ())
        images, joints = topics.GOAL.always(self._node), topics.GOAL_JOINTS.always(self._node)
        # The plan recorder subscribes to the image only; a planner also to the joint states.
        self._until(
            lambda: images.get_subscription_count() and joints.get_subscription_count(),
            "no planner takes goals",
        )
        stamp_ns = int(self._node.get_clock().now().nanoseconds)
        if goal.proprio is not None:
            joints.publish(messages.joints_to_msg(names, goal.proprio, stamp_ns))
        images.publish(messages.image_to_msg(goal.image, stamp_ns))
        self._linger(images)

    def here(self) -> str:
        """Make the current observation the goal; return the answer."""
        client: Any = self._node.create_client(Trigger, "set_goal_here")
        self._until(client.service_is_ready, "no node offers set_goal_here")
        answer = client.call_async(Trigger.Request())
        self._until(answer.done, "set_goal_here did not answer")
        result = answer.result()
        if result is None or not result.success:
            raise UserError(f"set_goal_here: {result.message if result else 'no answer'}.")
        return str(result.message)

    def keep(self, path: Path, camera: str) -> None:
        """Write the newest image, and the joint states of the same moment, to files."""
        both, complete = Synchronizer(("image", "joints")), []

        def put(part: str, received: tuple[Any, ...]) -> None:
            whole = both.put(part, received[0], received[1:])
            if whole is not None:
                complete.append(whole)

        topics.IMAGE_RAW.subscription(
            self._node, lambda msg: put("image", messages.image_from_msg(msg)), camera=camera
        )
        topics.JOINT_STATES.subscription(
            self._node, lambda msg: put("joints", messages.joints_from_msg(msg))
        )
        name = self._node.resolve_topic_name(topics.IMAGE_RAW.name.format(camera=camera))
        self._until(lambda: complete, f"no image and joint states came on {name}")
        (image,), (names, values) = complete[-1]["image"], complete[-1]["joints"]
        write_goal(path, Goal(image, values), names)

    def _linger(self, publisher: Publisher[Any]) -> None:
        """Wait until all subscribers have the goal: they are discovered one after the other."""
        matched, since = publisher.get_subscription_count(), time.monotonic()
        while time.monotonic() - since < LINGER_S:
            self._executor.spin_once(timeout_sec=0.05)
            if publisher.get_subscription_count() != matched:
                matched, since = publisher.get_subscription_count(), time.monotonic()
        if not publisher.wait_for_all_acked(ACK):
            raise UserError(
                "goal: got no acknowledgement from some subscribers within "
                f"{LINGER_S + ACK.nanoseconds / 1e9:g} s, expected one from each. Give wm launch "
                "arm_mpc more CPU time, and send the goal again."
            )

    def _until(self, condition: Callable[[], object], wrong: str) -> None:
        end = time.monotonic() + self._wait_s
        while not condition():
            if time.monotonic() > end:
                raise UserError(
                    f"{wrong} within {self._wait_s:g} s. Start wm launch arm_mpc on this "
                    "ROS_DOMAIN_ID."
                )
            self._executor.spin_once(timeout_sec=0.02)


@contextmanager
def goal_client(ns: str, wait_s: float) -> Iterator[GoalClient]:
    """Open a client, with a node of its own in the robot's namespace."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("arm_goal", context=context, namespace=ns)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield GoalClient(node, executor, wait_s)
    finally:
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
