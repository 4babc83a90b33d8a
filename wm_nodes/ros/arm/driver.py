"""An arm's driver on ROS topics (`Driver` of `wm_nodes.robots.arm.driver`).

Joint states, forces, scores and commands belong to a node of their own, which spins in a thread of
its own: they do not wait for callbacks of the robot node. Images and camera devices stay on the
robot node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Frame, Reading, Score
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.robots.arm.sensors.wrench import STOP, WrenchReading
from wm_nodes.ros.arm import endpoints
from wm_nodes.ros.arm.cameras import CameraInputs
from wm_nodes.ros.arm.commanders import Commanders, node_name
from wm_nodes.ros.arm.commands import CommandPublishers, open_arm_output
from wm_nodes.ros.arm.connections import DriverConnections
from wm_nodes.ros.arm.episodes import EpisodeServices
from wm_nodes.ros.arm.force_torque import ForceTorqueInput
from wm_nodes.ros.arm.gripper import GripperOutput, open_gripper
from wm_nodes.ros.arm.joint_states import JointStateInput
from wm_nodes.ros.arm.node_thread import NodeThread
from wm_nodes.ros.node import ManagedNode

LOOK_S = 0.1  # between two looks at the ROS graph


class RosDriver:
    """One arm on topics. `joints`, `frames`, `faults`, `send`, `halt` may be called by any thread.

    robot_node: receives the images and reports faults. `node`: commands the driver, in the same
    namespace and context; services that must answer at once belong there. `must_yield`: another
    commander has precedence. `settled`: the driver's topics are the same for DISCOVERY_S: a second
    source would be known. `cameras`: sizes and frame names of the images. UserError if another node
    commands the arm at the start.
    """

    def __init__(self, robot_node: ManagedNode[Any], config: ArmConfig) -> None:
        if not config.command.topic:
            raise UserError(
                f"robot {config.robot}: command: topic: got an empty name, expected the "
                "controller's command topic. Set it in the robot's YAML."
            )
        self._robot_node, self._config = robot_node, config
        self._faults: Mapping[str, str] = {}
        self._reports: Mapping[str, str] = {}
        self.must_yield = False
        start_ns = time.time_ns()
        self.cameras = CameraInputs(robot_node, config)
        self.thread = NodeThread(node_name(start_ns), robot_node, self._on_failure)
        with ExitStack() as parts:
            parts.callback(self.thread.destroy)
            self._open_inputs(parts)
            self._open_outputs(parts, start_ns)
            parts.callback(self.thread.stop)  # first of all, when all is freed
            self._await_precedence()
            self._look()
            self._parts = parts.pop_all()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.node.create_timer(LOOK_S, self._look, clock=steady)
        self.thread.start()

    def _open_inputs(self, parts: ExitStack) -> None:
        """Create what receives; `parts` frees it."""
        config = self._config
        self._joints = JointStateInput(self.node, self._robot_node, config, self._on_shared_joint)
        self._forces: ForceTorqueInput | None = None
        if config.force_torque is not None:
            self._forces = ForceTorqueInput(self.node, self._robot_node, config.force_torque)
        self._episodes = EpisodeServices(self.node, self._robot_node, config.episodes)
        parts.callback(self.cameras.close)
        self.cameras.open()

    def _open_outputs(self, parts: ExitStack, start_ns: int) -> None:
        """Create what commands, and what watches the other ends of the topics."""
        config, robot_node = self._config, self._robot_node
        publishers = CommandPublishers(self.node, robot_node)
        self._arm = open_arm_output(robot_node, config, publishers.create)
        self._gripper: GripperOutput | None = None
        if config.gripper is not None and config.gripper.topic:
            name = robot_node.resolve_topic_name(config.gripper.topic)
            self._gripper = open_gripper(self.node, config, name, publishers.create)
        if self._gripper is not None:
            parts.callback(self._gripper.close)
        commands, *_ = publishers.types.items()
        states = robot_node.resolve_topic_name(config.joint_states)
        self.connections = DriverConnections(
            self.node, config, states, commands, self._joints.sources
        )
        self._commanders = Commanders(self.node, start_ns, publishers.types)

    # The driver's interface ---------------------------------------------------------------------

    @property
    def node(self) -> Node:
        return self.thread.node

    @property
    def settled(self) -> bool:
        return self.connections.settled

    def now_s(self) -> float:
        return time.monotonic()

    def joints(self) -> Reading | None:
        return self._joints.newest

    @property
    def missing_joints(self) -> tuple[str, ...]:
        """Names of joints that no message has had yet."""
        return self._joints.readings.missing

    def frames(self) -> Mapping[str, Frame]:
        return dict(self.cameras.frames)

    def faults(self) -> Mapping[str, str]:
        """Return the faults found by the last look, at most LOOK_S ago.

        `joint_sources`: a joint has several publishers, or the wrong one. `controller`: nothing
        subscribes to the commands. `controller_settings`: a trajectory controller begins each
        message at the measured position. `driver_unknown`: joint states come from another process
        than commands are taken by. `commander`: another node commands the arm with precedence.
        `camera_clock`: stamps of images cannot be right. `clock`: /clock stands.
        `wrench_sources`: the force-torque sensor has several publishers. `driver_thread`: the
        thread of these topics has failed.
        """
        return self._faults

    def reports(self) -> Mapping[str, str]:
        """Return what does not stop the arm by itself, as of the last look.

        `gripper`: no controller takes its commands, or a goal was refused or aborted.
        `force_torque`: why the newest message of the force-torque sensor is not used.
        """
        return self._reports

    def wrench(self) -> WrenchReading | None:
        return None if self._forces is None else self._forces.readings.newest

    def score(self) -> Score:
        return self._episodes.score

    def request_scene(self, seed: int) -> None:
        self._episodes.request_scene()

    def scene_is_set(self) -> bool:
        return self._episodes.scene_is_set()

    def send(self, setpoint: Setpoint) -> None:
        self._arm.send(setpoint)
        if self._gripper is not None:
            self._gripper.send(setpoint)

    def halt(self) -> None:
        self._arm.halt()

    def wait(self, seconds: float) -> None:
        """Time passes by itself."""

    def close(self) -> None:
        self._parts.close()

    # The thread of the private node -------------------------------------------------------------

    def _on_failure(self, error: Exception) -> None:
        text = f"the thread of the arm's topics has failed ({error}). Restart the robot node."
        self._faults = {"driver_thread": text}
        self._joints.newest = None
        self._robot_node.get_logger().error(text)

    def _on_shared_joint(self) -> None:
        if "joint_sources" not in self._faults:
            self._look()

    def _look(self) -> None:
        """Look at the ROS graph, and request the scene."""
        self.connections.look()
        faults = self.connections.faults()
        others = self._commanders.others()
        preceding = [other for other in others if other.precedes]
        if preceding:
            faults["commander"] = preceding[0].text
        for other in self._commanders.new(others):
            self._robot_node.diagnostics.faults["commander"] += 1
            self._robot_node.warn("commander", other.text)
        rest = {
            "camera_clock": self.cameras.clock_fault(),
            "clock": self._robot_node.clock_watch.text,
            "wrench_sources": self._forces.sources_fault() if self._forces is not None else "",
        }
        faults |= {name: text for name, text in rest.items() if text}
        self._faults, self.must_yield = faults, bool(preceding)
        self._reports = self._reported()
        self._episodes.tick()

    def _reported(self) -> dict[str, str]:
        reports = {}
        if self._gripper is not None:
            self._gripper.look()
            reports["gripper"] = self._gripper.fault
        if self._forces is not None:
            reports[STOP] = self._forces.readings.wrong
        return {name: text for name, text in reports.items() if text}

    def _await_precedence(self) -> None:
        """Wait for discovery; raise UserError if another node commands this arm already."""
        end = time.monotonic() + endpoints.DISCOVERY_S
        while True:
            self.connections.look()
            for other in self._commanders.others():
                if other.precedes:
                    raise UserError(f"robot {self._config.robot}: {other.text}")
            if time.monotonic() >= end:
                return
            time.sleep(0.02)
