"""A gripper's commands on ROS: positions, trajectories, or goals of an action of control_msgs.

Goals are sent by the thread of the arm's private node; `send` only stores the target.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config.arm_config import ArmConfig, Gripper
from wm_nodes.robots.arm.gripper.goals import SUCCEEDED, Ended, GripperGoals
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.ros.arm.trajectories import trajectory_points

TICK_S = 0.05  # between two checks of the target
ENDS = {
    GoalStatus.STATUS_SUCCEEDED: SUCCEEDED,
    GoalStatus.STATUS_ABORTED: "aborted",
    GoalStatus.STATUS_CANCELED: "canceled",
}


class GripperOutput(Protocol):
    """Commands of the gripper. `fault`: what is wrong with them, or ""."""

    @property
    def fault(self) -> str:
        """What is wrong as of the last look, in one sentence."""

    def send(self, setpoint: Setpoint) -> None:
        """Command the gripper; may be called by any thread and does not block."""

    def look(self) -> None:
        """Look at the ROS graph."""

    def close(self) -> None:
        """Free the client, if there is one."""


def open_gripper(
    node: Node, config: ArmConfig, name: str, publisher: Callable[[type, str], Any]
) -> GripperOutput | None:
    """Return the output of a robot's gripper; None: it has none, or is measured only.

    node: where a client is made. name: of the topic or action, resolved. publisher: makes one, of a
    type and a topic. UserError if control_msgs is needed and not installed.
    """
    gripper = config.gripper
    if gripper is None or not gripper.topic:
        return None
    if gripper.interface == "gripper_command":
        return _ActionOutput(node, config, gripper, name)
    return _TopicOutput(node, config, gripper, name, publisher)


class _TopicOutput:
    """Positions, or the next one and the stop behind it as a trajectory."""

    def __init__(
        self,
        node: Node,
        config: ArmConfig,
        gripper: Gripper,
        name: str,
        publisher: Callable[[type, str], Any],
    ) -> None:
        self._node, self._name, self.fault = node, name, ""
        self._joint, self._at, self._rate_hz = gripper.joint, config.arm_joints, config.rate_hz
        self._trajectory = gripper.interface == "trajectory"
        kind = JointTrajectory if self._trajectory else Float64MultiArray
        self._type = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        self._out = publisher(kind, gripper.topic)

    def send(self, setpoint: Setpoint) -> None:
        part = slice(self._at, self._at + 1)
        if self._trajectory:
            points = trajectory_points(setpoint, part, self._rate_hz)
            self._out.publish(JointTrajectory(joint_names=[self._joint], points=points))
        else:
            self._out.publish(Float64MultiArray(data=setpoint.position[part].tolist()))

    def look(self) -> None:
        subscriptions = self._node.get_subscriptions_info_by_topic(self._name)
        if any(info.topic_type == self._type for info in subscriptions):
            self.fault = ""
            return
        self.fault = (
            f"gripper: got no subscriber of {self._type} on {self._name}, expected the gripper's "
            "controller. Load and activate it (ros2 control list_controllers)."
        )

    def close(self) -> None:
        """The publisher belongs to the node."""


class _ActionOutput:
    """Goals of an action: where the gripper comes to rest if no other command comes."""

    def __init__(self, node: Node, config: ArmConfig, gripper: Gripper, name: str) -> None:
        self._at = config.arm_joints
        width = float(config.limits.high[-1] - config.limits.low[-1])
        self._client = ActionGoals(node, gripper, name, config.robot)
        self._goals = GripperGoals(
            self._client,
            name,
            deadband=gripper.deadband * width,
            period_s=1.0 / gripper.goal_hz,
        )
        node.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def fault(self) -> str:
        return self._goals.fault

    def send(self, setpoint: Setpoint) -> None:
        rest = setpoint.stop.x[-1] if len(setpoint.stop) else setpoint.position
        self._goals.set_target(float(rest[self._at]), time.monotonic())

    def look(self) -> None:
        """The server is looked for with each goal."""

    def close(self) -> None:
        self._client.close()

    def _tick(self) -> None:
        self._goals.tick(time.monotonic())


class ActionGoals:
    """The action's client as a GoalSender; every method in the thread of its node."""

    def __init__(self, node: Node, gripper: Gripper, name: str, robot: str) -> None:
        self._gripper = gripper
        self._type = goal_type(gripper.action_type, robot)
        self._client: Any = ActionClient(node, self._type, name)
        self._handles: dict[int, Any] = {}

    def ready(self) -> bool:
        return bool(self._client.server_is_ready())

    def send(
        self,
        number: int,
        position: float,
        answered: Callable[[int, bool], None],
        ended: Callable[[int, Ended], None],
    ) -> None:
        goal, gripper = self._type.Goal(), self._gripper
        if gripper.action_type == "ParallelGripperCommand":
            effort = [gripper.max_effort] if gripper.max_effort else []
            goal.command = JointState(name=[gripper.joint], position=[position], effort=effort)
        else:
            goal.command.position, goal.command.max_effort = position, gripper.max_effort
        future = self._client.send_goal_async(goal)
        future.add_done_callback(partial(self._on_answer, number, answered, ended))

    def cancel(self, number: int) -> None:
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.cancel_goal_async()

    def close(self) -> None:
        self._client.destroy()

    def _on_answer(
        self,
        number: int,
        answered: Callable[[int, bool], None],
        ended: Callable[[int, Ended], None],
        future: Any,
    ) -> None:
        handle = None if future.exception() else future.result()
        if handle is None or not handle.accepted:
            answered(number, False)
            return
        self._handles[number] = handle
        answered(number, True)
        handle.get_result_async().add_done_callback(partial(self._on_end, number, ended))

    def _on_end(self, number: int, ended: Callable[[int, Ended], None], future: Any) -> None:
        self._handles.pop(number, None)
        if future.exception():
            ended(number, Ended("aborted"))
            return
        answer = future.result()
        stalled = bool(getattr(answer.result, "stalled", False))
        ended(number, Ended(ENDS.get(answer.status, "aborted"), stalled))


def goal_type(name: str, robot: str) -> Any:
    """Return an action type of control_msgs; UserError if it is not installed."""
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError):
        raise UserError(
            f"robot {robot}: gripper: interface: got gripper_command, which needs "
            f"control_msgs/action/{name}, expected an installed control_msgs that has it. Install "
            "ros-$ROS_DISTRO-control-msgs, or use interface position or trajectory."
        ) from None
