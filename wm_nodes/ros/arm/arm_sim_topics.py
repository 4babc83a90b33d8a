"""What the simulated arm publishes: joint states, speed scale, wrench, images, score."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from geometry_msgs.msg import WrenchStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Float64

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.sim.controller import Controller
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.ros import messages
from wm_nodes.ros.camera_info import intrinsics_to_msg
from wm_nodes.ros.node import ManagedNode

STATES = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
WRIST = "wrist"  # frame of the force-torque sensor
PERCENT = 100.0


class ArmSimTopics:
    """Names are relative to the node's namespace. pixels: side of the images."""

    def __init__(
        self, node: ManagedNode[Any], config: ArmConfig, cameras: Collection[str], pixels: int
    ) -> None:
        self._config, self._pixels = config, pixels
        self._joints = node.create_publisher(JointState, "joint_states", STATES)
        self._scores = node.create_publisher(JointState, "score", STATES)
        self._wrenches = node.create_publisher(WrenchStamped, "force_torque/wrench", STATES)
        speed = "speed_scaling_state_broadcaster/speed_scaling"
        self._speed = node.create_publisher(Float64, speed, STATES)
        # Images that are not published yet: steady time of capture [s], camera, image, intrinsics.
        self._delayed: deque[tuple[float, str, ImageMsg, Intrinsics | None]] = deque()
        self._images = {
            name: node.create_publisher(ImageMsg, f"{name}/image_raw", STATES) for name in cameras
        }
        self._infos = {
            name: node.create_publisher(CameraInfo, f"{name}/camera_info", STATES)
            for name in cameras
        }

    def publish_joints(self, driver: Controller, stamp_ns: int) -> None:
        """Publish the joint states, if the driver reports any, and its speed scale in percent."""
        states = driver.sensors.joint_states()
        if states is None:
            return
        self._speed.publish(Float64(data=PERCENT * driver.faults.driver_speed_scale))
        position, velocity, age_s = states
        names, arm, faults = self._config.limits.joints, self._config.arm_joints, driver.faults
        split = faults.split_states and arm < len(names)
        for part in (slice(arm), slice(arm, None)) if split else (slice(None),):
            msg = JointState(name=list(names[part]))
            msg.header.stamp = messages.to_time(stamp_ns - round(age_s * 1e9))
            msg.position, msg.velocity = position[part].tolist(), velocity[part].tolist()
            if faults.nan_velocity:
                msg.effort = [math.nan] * len(msg.name)
            self._joints.publish(msg)

    def publish_wrench(self, driver: Controller, stamp_ns: int) -> None:
        """Publish the reading of the force-torque sensor [N, N m], if there is one."""
        values = driver.sensors.wrench()
        if values is None:
            return
        msg = WrenchStamped(header=messages.header(stamp_ns, WRIST))
        force, torque = values[:3].tolist(), values[3:].tolist()
        msg.wrench.force.x, msg.wrench.force.y, msg.wrench.force.z = force
        msg.wrench.torque.x, msg.wrench.torque.y, msg.wrench.torque.z = torque
        self._wrenches.publish(msg)

    def capture(self, driver: Controller, world: ArmWorld, stamp_ns: int) -> None:
        """Render all cameras; `publish_images` sends the images."""
        for name in self._images:
            image = driver.sensors.sent_image(name, self._pixels)
            if image is not None:
                msg = messages.image_to_msg(image, stamp_ns, messages.optical_frame(name))
                intrinsics = world.intrinsics(name, self._pixels)
                self._delayed.append((time.monotonic(), name, msg, intrinsics))

    def publish_images(self, delay_s: float, now_s: float) -> None:
        """Publish the images that were captured `delay_s` or longer before the steady `now_s`."""
        while self._delayed and self._delayed[0][0] + delay_s <= now_s:
            _, name, msg, intrinsics = self._delayed.popleft()
            self._images[name].publish(msg)
            if intrinsics is not None:
                self._infos[name].publish(intrinsics_to_msg(intrinsics, msg.header))

    def publish_score(self, world: ArmWorld, stamp_ns: int) -> None:
        """Publish reward, success and what scripts need, by name."""
        state = world.state()
        facts = {"reward": world.task.reward(state), "success": float(world.success())}
        facts["opening"] = state.opening
        places = {"hand": state.end_effector, "cube": state.cube, "goal": state.goal}
        for name, place in places.items():
            facts |= {f"{name}_{axis}": v for axis, v in zip("xyz", place.tolist())}
        msg = JointState(name=list(facts), position=[float(v) for v in facts.values()])
        msg.header.stamp = messages.to_time(stamp_ns)
        self._scores.publish(msg)
