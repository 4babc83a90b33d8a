"""Checks of an arm's measurements: joint states, images, forces, the pose of the arm."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node

from wm_nodes.checks.arm_bringup.reception import Received, Reception
from wm_nodes.checks.arm_bringup.report import Report
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Reading
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.sensors.wrench import STOP
from wm_nodes.ros.arm.driver import RosDriver

NOISE = 0.005  # rad (m) of a sensor
SLOWEST_HZ = 50.0  # joint states; below this 50 Hz control acts on old positions
CAMERA_HZ = 7.0  # the watchdog slows the arm when images are 150 ms apart


class SourceChecks:
    """Reports on each source of measurements of one arm."""

    def __init__(self, config: ArmConfig, driver: RosDriver, node: Node, report: Report) -> None:
        self._config, self._driver, self._node, self._report = config, driver, node, report

    def joints_and_cameras(self, received: Reception) -> None:
        self._joint_states(received.joints)
        self._cameras(received.cameras)

    def place(self, reading: Reading) -> None:
        """Report whether joints and end effector are within their limits."""
        config, limits = self._config, self._config.limits
        for index, name in enumerate(limits.joints):
            value = float(reading.position[index])
            low, high = float(limits.low[index]), float(limits.high[index])
            if not low - NOISE <= value <= high + NOISE:
                self._report.check(
                    False,
                    f"joint {name}: got position {value:.3f}, expected {low:.3f} to {high:.3f}",
                    "check units (radians, not degrees) and the order of joints; if both are "
                    "right, move the joint inside its limits by hand",
                )
        kinematics = Kinematics(config.model, limits.joints, config.hand)
        end_effector = kinematics.positions(reading.position[None])[0]
        inside = (end_effector >= limits.box_low).all() and (end_effector <= limits.box_high).all()
        self._report.check(
            bool(inside),
            f"by the model the end effector is at {np.round(end_effector, 3).tolist()} m",
            f"measure it: if it is there, move the arm into the workspace {limits.box_low.tolist()}"
            f" to {limits.box_high.tolist()}, or widen that; if not, the model or the joint order "
            "is wrong: do not continue",
        )

    def _joint_states(self, received: Received) -> None:
        config, topic, report = self._config, self._config.joint_states, self._report
        if not received.came:
            report.check(False, f"no complete joint states on {topic}", self._joint_state_fix())
            return
        report.check(
            received.rate_hz >= min(SLOWEST_HZ, config.rate_hz),
            f"joint states: {received.rate_hz:.0f} Hz on {topic}",
            f"raise the rate of joint_state_broadcaster to {config.rate_hz:.0f} Hz or more",
        )
        gap = received.longest_gap_s
        report.check(
            gap < config.watch.driver_s,
            f"joint states: longest gap {gap * 1e3:.0f} ms",
            f"the watchdog stops the arm after {config.watch.driver_s * 1e3:.0f} ms of silence: "
            "use a wired network, reduce the load, or set a larger watch.driver_s",
        )

    def _joint_state_fix(self) -> str:
        """Return the remedy for joint states that do not arrive."""
        if self._node.count_publishers(self._node.resolve_topic_name(self._config.joint_states)):
            return (
                "there is a publisher, but it sends no "
                f"{', '.join(self._driver.missing_joints)}: write the driver's joint names into "
                "the YAML"
            )
        published = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if any(kind.endswith("/JointState") for kind in types)
            and self._node.count_publishers(name)
        ]
        near = f"there are: {', '.join(published)}" if published else "there are none"
        return f"start the driver, or correct `joint_states:` ({near})"

    def _cameras(self, received: dict[str, Received]) -> None:
        for name, source in self._config.cameras.items():
            about, where = received[name], source.topic or f"device {source.device}"
            if about.came:
                self._camera(name, where, about)
                continue
            kind = "CompressedImage" if source.compressed else "Image"
            self._report.check(
                False,
                f"camera {name}: no {kind} from {where}",
                "start the camera's driver, or correct `cameras:` (ros2 topic list -t; "
                "`compressed: true` for CompressedImage)",
            )

    def _camera(self, name: str, where: str, received: Received) -> None:
        watch, report = self._config.watch, self._report
        report.check(
            received.rate_hz >= CAMERA_HZ,
            f"camera {name}: {received.rate_hz:.0f} Hz from {where}",
            "use a higher frame rate, smaller images, or a wired connection",
        )
        if received.ages:
            age = float(np.median(received.ages))
            report.check(
                age < (watch.camera_slow_s or np.inf),
                f"camera {name}: images are {age * 1e3:.0f} ms old when they arrive",
                "synchronise the clocks of both computers (chrony), or lower the resolution",
            )
        if watch.camera_frozen_s:
            report.check(
                received.changed > 1,
                f"camera {name}: {received.changed} of {len(received.came)} images differ",
                "restart the camera if it is frozen; if its images have no noise, set "
                "watch.camera_frozen_s: 0",
            )

    def force_torque(self, received: Received) -> None:
        section, reading = self._config.force_torque, self._driver.wrench()
        if section is None:
            return
        report, wrong = self._report, self._driver.reports().get(STOP, "")
        if reading is None:
            report.check(
                False,
                f"force-torque sensor: no reading on {section.topic}",
                "start its driver, or correct `force_torque:`",
                wrong=wrong,
            )
            return
        values = reading.values
        report.check(
            not wrong,
            f"force-torque sensor: {received.rate_hz:.0f} Hz, "
            f"{np.linalg.norm(values[:3]):.1f} N, {np.linalg.norm(values[3:]):.2f} Nm now",
            "",
            wrong=wrong,
        )
        gap = received.longest_gap_s
        report.check(
            gap < section.timeout_s,
            f"force-torque sensor: longest gap {gap * 1e3:.0f} ms",
            f"the arm stops after {section.timeout_s * 1e3:.0f} ms of silence: use a higher rate, "
            "or a larger force_torque.timeout_s",
        )
