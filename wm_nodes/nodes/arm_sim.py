"""A simulated arm with the topics of an arm's driver: joint states, commands, cameras; real time.

Every fault of `Faults` is a parameter that may be set while the node runs:
`ros2 param set /arm_sim/arm_sim camera_dropped true`.
All names are relative to the node's namespace, so each arm has a namespace of its own.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from wm_nodes import namespaces
from wm_nodes.control.periodic_thread import take_priority
from wm_nodes.errors import UserError, user_errors
from wm_nodes.robots.arm.config.arm_config import find_config, read_config
from wm_nodes.robots.arm.sim.controller import Controller
from wm_nodes.robots.arm.sim.faults import IMAGE_NOISE, JOINT_NOISE_RAD, Faults
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.robot import RobotError
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.arm.arm_sim_topics import ArmSimTopics
from wm_nodes.ros.clock import ClockPublisher
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param

ROBOT = "robot"
COMMANDS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
STATES = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
WRIST = "wrist"  # frame of the force-torque sensor
PRIORITIES = 9, 8  # real-time: of the physics thread, of the other threads
CLOCK_READINGS = 4
BEHIND_S = 0.2  # a longer delay is not caught up


@dataclass(frozen=True)
class ArmSimParams(NodeParams):
    robot: str = param("arm_sim", "Arm to simulate: a name of config/robots.")
    task: str = param("reach", "Scene: reach, goal, push or lift.")
    show_goal: bool = param(True, "Task goal: publish the goal image of each scene.")
    robot_ns: str = param(
        "", "Namespace to publish goal images in; empty: `robot` beside the simulator's own."
    )
    seed: int = param(0, "Seed of scenes and sensor noise.", low=0, high=2**31 - 1)
    render: str = param(
        "fast",
        "Rendering quality: full, fast, auto (full on a GPU, else fast), or none (no images).",
        choices=("auto", "fast", "full", "none"),
    )
    rate_hz: float = param(100.0, "Rate of the joint states [Hz].", low=10.0, high=500.0)
    camera_hz: float = param(30.0, "Image rate of each camera [Hz].", low=1.0, high=120.0)
    camera_px: int = param(96, "Width and height of the images, in pixels.", low=16, high=1024)
    joint_noise_rad: float = param(
        JOINT_NOISE_RAD, "Standard deviation of joint positions [rad].", low=0.0, live=True
    )
    image_noise: float = param(
        IMAGE_NOISE, "Standard deviation of image noise, in grey levels.", low=0.0, live=True
    )
    actuation_delay_s: float = param(
        0.0, "Delay until a command acts [s].", low=0.0, high=5.0, live=True
    )
    camera_dropped: bool = param(False, "Fault: no images.", live=True)
    camera_frozen: bool = param(False, "Fault: the same image is repeated.", live=True)
    joint_delay_s: float = param(
        0.0, "Fault: age of the joint states [s].", low=0.0, high=2.0, live=True
    )
    driver_dead: bool = param(
        False, "Fault: no joint states, commands are ignored, the arm holds.", live=True
    )
    protective_stop: bool = param(False, "Fault: commands are ignored, the arm holds.", live=True)
    wrap_joints: bool = param(False, "Fault: joint angles are wrapped to (-pi, pi].", live=True)
    nan_velocity: bool = param(False, "Fault: velocities and efforts are NaN.", live=True)
    split_states: bool = param(
        False, "Fault: arm and gripper joints are in separate messages.", live=True
    )
    camera_delay_s: float = param(
        0.0,
        "Fault: images are published this late, with the stamps of their capture [s].",
        low=0.0,
        high=30.0,
        live=True,
    )
    wrench_dropped: bool = param(False, "Fault: no readings of the force-torque sensor.", live=True)
    wrench_nan: bool = param(
        False, "Fault: readings of the force-torque sensor are NaN.", live=True
    )
    wrench_bias_n: float = param(0.0, "Fault: offset of the measured force along z [N].", live=True)
    controller_inactive: bool = param(
        False, "Fault: the controller is inactive; commands are dropped, the arm holds.", live=True
    )
    driver_speed_scale: float = param(
        1.0,
        "Speed slider of the teach pendant: largest speed of each joint as a share of its limit; "
        "0: paused.",
        low=0.0,
        high=1.0,
        live=True,
    )
    realtime: bool = param(
        False,
        "Request real-time priority, as a driver's control loop does; takes 0.3 of a CPU core.",
    )
    velocity_timeout_s: float = param(
        0.1,
        "Stop this long after the last velocity or twist command [s]; 0: never.",
        low=0.0,
        live=True,
    )


class ArmSimNode(ManagedNode[ArmSimParams]):
    """A physics thread simulates, renders and publishes; the executor receives commands."""

    NAME = "arm_sim"
    NAMESPACE = namespaces.ARM_SIM

    def configure(self) -> None:
        p = self.params
        with user_errors(RobotError):
            self._config = read_config(find_config(p.robot))
        self._cameras = list(self._config.cameras) if p.render != "none" else []
        self._episode = 0
        self._next_scene: int | None = None
        self._scene_set = threading.Event()
        self._clock_out = ClockPublisher(self)
        self._time_ns = 0  # simulated
        self._topics = ArmSimTopics(self, self._config, self._cameras, p.camera_px)
        self._goal = self.create_publisher(ImageMsg, self._goal_topic(), topics.GOAL.qos)
        for name, handle in (("position", self._on_position), ("velocity", self._on_velocity)):
            topic = f"forward_{name}_controller/commands"
            self.create_subscription(Float64MultiArray, topic, handle, COMMANDS)
        for kind, topic, handle in (
            (Float64MultiArray, "gripper_controller/commands", self._on_gripper),
            (JointTrajectory, "joint_trajectory_controller/joint_trajectory", self._on_trajectory),
            (
                JointTrajectory,
                "gripper_trajectory_controller/joint_trajectory",
                self._on_grip_trajectory,
            ),
            (TwistStamped, "servo_node/delta_twist_cmds", self._on_twist),
        ):
            self.create_subscription(kind, topic, handle, COMMANDS)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(Trigger, "unlock_protective_stop", self._on_unlock)
        self.create_service(SetBool, "switch_controller", self._on_switch)
        self._faults = Faults(**{f.name: getattr(p, f.name) for f in fields(Faults)})
        self.add_on_set_parameters_callback(self._on_parameters)

    def _goal_topic(self) -> str:
        """Return the topic on which the robot's nodes receive goal images."""
        robot_ns = self.params.robot_ns
        if robot_ns and not namespaces.legal(robot_ns):
            raise UserError(namespaces.refusal("robot_ns", robot_ns))
        robot = namespaces.absolute(robot_ns) or namespaces.beside(self.get_namespace(), ROBOT)
        return namespaces.absolute(topics.GOAL.name, robot)

    def activate(self) -> None:
        self._end = threading.Event()
        self._ready = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()
        self._ready.wait(60.0)
        if self._failed is not None:
            with user_errors(RobotError):
                raise self._failed
        self.diagnostics.ready = True

    def deactivate(self) -> None:
        self._end.set()
        self._thread.join(5.0)

    # Time ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Simulate in step with the steady clock. Only this thread may use the GL contexts."""
        p = self.params
        try:
            world = ArmWorld(self._config, p.task, render=p.render)
        except Exception as error:
            self._failed = error
            self._ready.set()
            return
        self._driver = driver = Controller(world, self._faults, p.seed)
        self._set_scene(world)
        if self.owns_process and self.params.realtime:
            take_priority(*PRIORITIES)
        self._ready.set()
        period, frame_s = 1.0 / p.rate_hz, 1.0 / p.camera_hz
        due = time.monotonic()
        next_frame = due
        while not self._end.is_set():
            started = time.perf_counter()
            if self._next_scene is not None:
                self._set_scene(world)
            driver.advance(period)
            self._time_ns += round(period * messages.SECOND_NS)
            self._clock_out.publish(self._time_ns)
            stamp_ns = self._time_ns if self._clock_out.on else self._stamp_ns(due)
            self._topics.publish_joints(driver, stamp_ns)
            self._topics.publish_wrench(driver, stamp_ns)
            now = time.monotonic()
            if now >= next_frame:
                next_frame = max(next_frame + frame_s, now)
                self._topics.capture(driver, world, stamp_ns)
                self._topics.publish_score(world, stamp_ns)
            self._topics.publish_images(self._faults.camera_delay_s, time.monotonic())
            self.diagnostics.record_latency(time.perf_counter() - started)
            due += period
            late = time.monotonic() - due
            if late > BEHIND_S:
                due += late
                self.diagnostics.faults["late"] += 1
            self._end.wait(max(due - time.monotonic(), 0.0))
        world.close()

    def _set_scene(self, world: ArmWorld) -> None:
        world.set_scene(episode_seed(self.params.seed, self._episode))
        self._next_scene = None
        if world.task.name == "goal" and self.params.show_goal and self._cameras:
            camera = self._cameras[0]
            image = world.goal_image(world.goal_pose(), camera, self.params.camera_px)
            self._goal.publish(messages.image_to_msg(image, self._now_ns(), camera))
        self._scene_set.set()

    def _stamp_ns(self, steady_s: float) -> int:
        """Return the stamp [ns] of a time of the steady clock [s].

        Both clocks are read several times; the reading with the shortest interruption is used.
        """
        steady_ns, now_ns, least_ns = 0, 0, math.inf
        for _ in range(CLOCK_READINGS):
            before, now, after = time.monotonic_ns(), self._now_ns(), time.monotonic_ns()
            if after - before < least_ns:
                steady_ns, now_ns, least_ns = (before + after) // 2, now, after - before
        return now_ns - steady_ns + round(steady_s * 1e9)

    def _now_ns(self) -> int:
        """Return the time for stamps [ns]: simulated if this node publishes /clock."""
        return self._time_ns if self._clock_out.on else int(self.get_clock().now().nanoseconds)

    # Commands -----------------------------------------------------------------------------------

    def _command(self, kind: str, values: object) -> None:
        if self.active:
            self._driver.command(kind, np.asarray(values, np.float64))
            self.diagnostics.facts["refused"] = self._driver.refused

    def _on_position(self, msg: Float64MultiArray) -> None:
        self._command("position", msg.data)

    def _on_velocity(self, msg: Float64MultiArray) -> None:
        self._command("velocity", msg.data)

    def _on_gripper(self, msg: Float64MultiArray) -> None:
        self._command("gripper", msg.data)

    def _on_twist(self, msg: TwistStamped) -> None:
        linear, angular = msg.twist.linear, msg.twist.angular
        self._command("twist", [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        self._follow(msg, self._config.limits.joints[: self._config.arm_joints])

    def _on_grip_trajectory(self, msg: JointTrajectory) -> None:
        self._follow(msg, self._config.limits.joints[self._config.arm_joints :], gripper=True)

    def _follow(
        self, msg: JointTrajectory, joints: Sequence[str], *, gripper: bool = False
    ) -> None:
        if not self.active:
            return
        if sorted(msg.joint_names) != sorted(joints) or not _acceptable(msg):
            self._driver.refused += 1
            self.diagnostics.facts["refused"] = self._driver.refused
            return
        order = [list(msg.joint_names).index(name) for name in joints]
        points: list[tuple[float, npt.ArrayLike]] = []
        for point in msg.points:
            due = point.time_from_start.sec + point.time_from_start.nanosec / 1e9
            points.append((due, np.asarray(point.positions)[order]))
        self._driver.trajectory(points, gripper=gripper)
        self.diagnostics.facts["refused"] = self._driver.refused

    # Scenes and faults --------------------------------------------------------------------------

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Set up the next scene; the arm does not move."""
        self._episode += 1
        self._scene_set.clear()
        self._next_scene = self._episode
        response.success = self._scene_set.wait(2.0)
        response.message = f"scene {self._episode}"
        return response

    def _on_unlock(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """End the protective stop, like a driver's recovery service."""
        self.set_parameters([Parameter("protective_stop", value=False)])
        response.success, response.message = True, "the protective stop has ended"
        return response

    def _on_switch(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Activate or deactivate the controller that executes commands."""
        self.set_parameters([Parameter("controller_inactive", value=not request.data)])
        response.success = True
        response.message = f"the controller is {'' if request.data else 'in'}active"
        return response

    def _on_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        known = {spec.name: spec for spec in fields(Faults)}
        for parameter in parameters:
            if parameter.name in known:
                kind = type(getattr(self._faults, parameter.name))
                setattr(self._faults, parameter.name, kind(parameter.value))
                self.get_logger().warn(f"{parameter.name} is set to {parameter.value}")
        return SetParametersResult(successful=True)


def _acceptable(msg: JointTrajectory) -> bool:
    """Return whether joint_trajectory_controller accepts it: right sizes, at rest at the end."""
    count = len(msg.joint_names)
    sizes = all(len(p.positions) == count and len(p.velocities) in (0, count) for p in msg.points)
    return sizes and not (msg.points and any(msg.points[-1].velocities))


def main() -> None:
    spin.main(ArmSimNode)


if __name__ == "__main__":
    main()
