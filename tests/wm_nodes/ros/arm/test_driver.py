"""The driver of an arm with real nodes: publishers, ages, commands."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from tests.wm_nodes.robots.arm.arms import config
from wm_nodes.errors import UserError
from wm_nodes.nodes import arm_sim
from wm_nodes.nodes.arm_sim import CLOCK_READINGS, ArmSimNode
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.config.sections import CameraSource, Episodes, Output
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.robots.arm.safety.stopping import Stop
from wm_nodes.robots.arm.sim.controller import Controller
from wm_nodes.robots.arm.sim.driver import SimDriver
from wm_nodes.robots.arm.sim.faults import Faults
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.ros import messages
from wm_nodes.ros.arm import endpoints, raw_subscription
from wm_nodes.ros.arm.driver import RosDriver
from wm_nodes.ros.arm.raw_subscription import LARGEST
from wm_nodes.ros.arm.trajectories import POINTS, trajectory_points
from wm_nodes.ros.node import ManagedNode

NAMES = config().limits.joints
HOME = config().home
COMMAND_TYPES = {
    "position": Float64MultiArray,
    "velocity": Float64MultiArray,
    "trajectory": JointTrajectory,
    "twist": TwistStamped,
}
SHORT_S = 0.3  # nodes of one context find each other at once


class DriverNode(ManagedNode):
    NAME = "robot"


class Bench:
    """Drivers with the topics of this test, and nodes that publish and subscribe to them."""

    def __init__(self, graph) -> None:
        self.graph, self.drivers, self.nodes = graph, [], []
        self.base = graph.namespace

    def config(self, interface: str = "position", **changes) -> ArmConfig:
        """Return the simulated arm's configuration with topics of this test."""
        fields = {
            "joint_states": f"{self.base}/driver/joint_states",
            "command": Output(interface, f"{self.base}/driver/commands"),
            "gripper": replace(config().gripper, topic=f"{self.base}/driver/gripper"),
            "cameras": {"front": CameraSource(topic=f"{self.base}/driver/image")},
            "episodes": Episodes(),
        }
        return replace(config(), **{**fields, **changes})

    def driver(self, arm_config: ArmConfig | None = None) -> RosDriver:
        node = self.graph.add(DriverNode, begin=False)
        driver = RosDriver(node, arm_config or self.config())
        driver.robot_node = node
        self.drivers.append(driver)
        return driver

    def add_node(self, name: str) -> Node:
        node = Node(name, context=self.graph.context, namespace=self.base)
        self.nodes.append(node)
        return node

    def joint_states_pub(self, name: str = "driver"):
        return self.add_node(name).create_publisher(
            JointState, f"{self.base}/driver/joint_states", 50
        )

    def image_pub(self):
        return self.add_node("camera").create_publisher(Image, f"{self.base}/driver/image", 50)

    def add_controller(self, interface: str = "position") -> list:
        """Subscribe to the commands; return the list to which they are appended."""
        commands: list = []
        topic = f"{self.base}/driver/commands"
        self.graph.probe.create_subscription(COMMAND_TYPES[interface], topic, commands.append, 50)
        return commands

    def until(self, condition, timeout_s: float = 20.0, every=lambda: None) -> None:
        """Spin, and call `every`, until the condition holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "the condition did not hold in time"
            every()
            self.graph.executor.spin_once(timeout_sec=0.01)

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()
        for node in self.nodes:
            node.destroy_node()


@pytest.fixture
def bench(graph, monkeypatch) -> Iterator[Bench]:
    monkeypatch.setattr(endpoints, "DISCOVERY_S", SHORT_S)
    test_bench = Bench(graph)
    yield test_bench
    test_bench.close()


def joint_state(names=NAMES, position=None, velocity=(), stamp_ns: int = 0) -> JointState:
    position = [0.0] * len(names) if position is None else position
    return JointState(
        header=messages.header(stamp_ns),
        name=list(names),
        position=array("d", position),
        velocity=array("d", velocity),
    )


def image_msg(stamp_ns: int, level: int = 0) -> Image:
    return messages.image_to_msg(np.full((64, 64, 3), level, np.uint8), stamp_ns)


def setpoint(n: int = len(NAMES), periods: int = 0) -> Setpoint:
    x = np.linspace(0.1, 0.2, max(periods, 1))[:, None] * np.ones(n)
    v = np.linspace(0.1, 1e-12, max(periods, 1))[:, None] * np.ones(n)
    stop = Stop(x[:periods], v[:periods], np.zeros((periods, n)))
    return Setpoint(x[0], v[0], np.zeros(n), (), True, False, stop)


# Joint states ----------------------------------------------------------------------------------


def test_separate_messages_of_arm_and_gripper_make_complete_readings(bench):
    driver, arm, gripper = (
        bench.driver(),
        bench.joint_states_pub("arm"),
        bench.joint_states_pub("gripper"),
    )

    def publish() -> None:
        arm.publish(joint_state(NAMES[:6], [0.1] * 6))
        gripper.publish(joint_state(NAMES[6:], [0.02]))

    bench.until(lambda: driver.joints() is not None, every=publish)
    assert driver.joints().position.tolist() == [0.1] * 6 + [0.02]
    bench.until(lambda: len(driver._joints.sources.senders(time.monotonic())) == 2, every=publish)
    bench.until(lambda: "joint_sources" not in driver.faults(), every=publish)
    end = time.monotonic() + 0.5
    bench.until(lambda: time.monotonic() > end, every=publish)
    assert "joint_sources" not in driver.faults()


@pytest.mark.parametrize("second_alone", [True, False])
def test_a_second_publisher_of_the_joints_is_a_fault_while_it_publishes(bench, second_alone):
    driver = bench.driver()
    states_pub, second_pub = (bench.joint_states_pub(name) for name in ("driver", "intruder"))

    def publish_both() -> None:
        states_pub.publish(joint_state())
        for _ in range(4):
            second_pub.publish(joint_state(position=[0.3] * 7))

    def no_fault() -> bool:  # checked in the graph after its first message
        return driver.joints() is not None and "joint_sources" not in driver.faults()

    alone = second_pub if second_alone else states_pub
    bench.until(no_fault, every=lambda: alone.publish(joint_state()))
    for _ in range(50):  # and after each further message
        alone.publish(joint_state())
        bench.graph.executor.spin_once(timeout_sec=0.01)
        assert "joint_sources" not in driver.faults()
    bench.until(lambda: "joint_sources" in driver.faults(), every=publish_both)
    text = driver.faults()["joint_sources"]
    assert "driver" in text and "intruder" in text and "End the other publisher" in text
    bench.until(
        lambda: "joint_sources" not in driver.faults(),
        every=lambda: states_pub.publish(joint_state()),
    )


def test_a_second_publisher_of_one_joint_is_a_fault_though_arm_and_gripper_are_separate(bench):
    driver, arm, gripper, second_pub = (
        bench.driver(),
        *(bench.joint_states_pub(name) for name in ("a", "g", "intruder")),
    )

    def publish() -> None:
        arm.publish(joint_state(NAMES[:6]))
        gripper.publish(joint_state(NAMES[6:]))
        second_pub.publish(joint_state(NAMES[2:3]))

    bench.until(lambda: "joint_sources" in driver.faults(), every=publish)
    assert NAMES[2] in driver.faults()["joint_sources"]


def test_publishers_without_identifiers_are_counted_in_the_graph(bench, monkeypatch):
    monkeypatch.setattr(endpoints, "identifier", lambda data: b"")
    driver, states_pub = bench.driver(), bench.joint_states_pub()
    bench.until(
        lambda: driver.joints() is not None, every=lambda: states_pub.publish(joint_state())
    )
    assert "joint_sources" not in driver.faults()
    second_pub = bench.joint_states_pub("intruder")

    def publish_both() -> None:
        states_pub.publish(joint_state())
        second_pub.publish(joint_state())

    bench.until(lambda: "joint_sources" in driver.faults(), every=publish_both)
    assert "intruder" in driver.faults()["joint_sources"]


@pytest.mark.parametrize("full", [True, False])
def test_only_the_configured_node_may_publish_the_joints(bench, full):
    name = f"{bench.base}/broadcaster" if full else "broadcaster"
    driver = bench.driver(bench.config(driver_node=name))
    wrong = bench.joint_states_pub("wrong")
    bench.until(
        lambda: "joint_sources" in driver.faults(), every=lambda: wrong.publish(joint_state())
    )
    text = driver.faults()["joint_sources"]
    assert "/wrong" in text and name in text and "driver_node" in text
    bench.nodes.remove(wrong_node := next(n for n in bench.nodes if n.get_name() == "wrong"))
    wrong_node.destroy_node()
    configured, device = bench.joint_states_pub("broadcaster"), bench.joint_states_pub("device")

    def publish() -> None:
        configured.publish(joint_state())
        device.publish(joint_state(["wheel"]))

    bench.until(lambda: "joint_sources" not in driver.faults(), every=publish)
    assert driver.joints() is not None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (joint_state(position=[math.nan] * 7), "non-finite"),
        (joint_state(position=[0.0] * 6), "size"),
        (joint_state(velocity=[0.0]), "size"),
        (joint_state([*NAMES, NAMES[0]]), "names"),
        (joint_state([f"{'x' * 60}{number}" for number in range(4000)]), "size"),
        (b"rubbish", "serialization"),
    ],
)
def test_a_wrong_message_is_refused_and_counted_and_no_reading(bench, message, reason):
    driver, states_pub = bench.driver(), bench.joint_states_pub()
    drops = driver.robot_node.diagnostics.drops
    bench.until(
        lambda: any(key.endswith(f"joint_states/{reason}") for key in drops),
        every=lambda: states_pub.publish(message),
    )
    assert driver.joints() is None and driver.missing_joints == NAMES
    bench.until(
        lambda: driver.joints() is not None, every=lambda: states_pub.publish(joint_state())
    )


def test_a_message_that_is_too_long_is_refused_before_it_is_deserialized(bench, monkeypatch):
    driver, states_pub = bench.driver(), bench.joint_states_pub()
    sizes = []

    def count(data, kind):
        sizes.append(len(data))
        return deserialize(data, kind)

    deserialize = raw_subscription.deserialize_message
    monkeypatch.setattr(raw_subscription, "deserialize_message", count)
    long_msg = joint_state([f"x{number}" for number in range(50_000)])
    drops = driver.robot_node.diagnostics.drops
    bench.until(
        lambda: any("size" in key for key in drops), every=lambda: states_pub.publish(long_msg)
    )
    bench.until(
        lambda: driver.joints() is not None, every=lambda: states_pub.publish(joint_state())
    )
    assert sizes and max(sizes) <= LARGEST


@pytest.mark.parametrize("velocity", [(), [math.nan] * 7])
def test_missing_and_nan_velocities_are_computed(bench, velocity):
    driver, states_pub = bench.driver(), bench.joint_states_pub()
    start_ns = time.time_ns()

    def publish() -> None:
        now_ns = time.time_ns()
        states_pub.publish(
            joint_state(NAMES, [0.5 * (now_ns - start_ns) / 1e9] * 7, velocity, now_ns)
        )

    def computed() -> bool:
        reading = driver.joints()
        return reading is not None and bool(np.allclose(reading.velocity, 0.5, rtol=0.05))

    bench.until(computed, every=publish)


def test_wrapped_angles_of_continuous_joints_are_unwrapped(bench):
    limits = replace(config().limits, continuous=np.array([True] * 6 + [False]))
    driver, states_pub = bench.driver(bench.config(limits=limits)), bench.joint_states_pub()
    for angle in np.arange(0.0, 9.0, 0.3):
        wrapped = [math.remainder(angle, 2 * math.pi)] * 6 + [0.0]

        def arrived(angle=angle) -> bool:
            reading = driver.joints()
            return reading is not None and bool(np.allclose(reading.position[:6], angle))

        bench.until(
            arrived, every=lambda wrapped=wrapped: states_pub.publish(joint_state(position=wrapped))
        )


# Threads ---------------------------------------------------------------------------------------


def test_joint_states_commands_faults_and_services_do_not_wait_for_the_robot_node(bench):
    driver, states_pub, commands = bench.driver(), bench.joint_states_pub(), bench.add_controller()
    driver.node.create_service(SetBool, "stop_now", lambda request, response: response)
    client = bench.graph.probe.create_client(SetBool, "stop_now")
    assert client.wait_for_service(10.0)
    release, blocking = threading.Event(), threading.Event()

    def block() -> None:
        """Block the robot node's executor."""
        blocking.set()
        release.wait(60.0)

    def spin() -> None:
        while not blocking.is_set():  # another callback may be executed first
            bench.graph.executor.spin_once(5.0)

    driver.robot_node.create_timer(0.001, block)
    blocked = threading.Thread(target=spin)
    lone_node = Node("alone", context=bench.graph.context, namespace=bench.base)
    bench.nodes.append(lone_node)
    lone_client = lone_node.create_client(SetBool, "stop_now")
    received: list = []
    lone_node.create_subscription(
        Float64MultiArray, f"{bench.base}/driver/commands", received.append, 50
    )
    blocked.start()
    assert blocking.wait(20.0)
    try:
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor(context=bench.graph.context)
        executor.add_node(lone_node)
        assert lone_client.wait_for_service(10.0)
        future = lone_client.call_async(SetBool.Request())

        def until(condition) -> None:
            end = time.monotonic() + 20.0
            while not condition():
                assert time.monotonic() < end, "the condition did not hold in time"
                states_pub.publish(joint_state())
                driver.send(setpoint())
                executor.spin_once(timeout_sec=0.01)

        until(lambda: driver.joints() is not None and future.done() and received)
        until(lambda: "controller" not in driver.faults())
        assert blocked.is_alive() and not commands
        executor.shutdown()
    finally:
        release.set()
        blocked.join()


def test_close_ends_thread_and_nodes_and_may_be_called_twice(bench):
    driver = bench.driver()
    name = driver.node.get_name()
    bench.until(lambda: name in bench.graph.probe.get_node_names())
    driver.close()
    driver.close()
    assert not driver.thread.alive
    bench.until(lambda: name not in bench.graph.probe.get_node_names())
    assert not [s for s in driver.robot_node.subscriptions if s.topic_name.endswith("/image")]


def test_an_error_in_the_thread_is_a_fault_and_ends_the_readings(bench, monkeypatch):
    driver, states_pub = bench.driver(), bench.joint_states_pub()
    bench.until(
        lambda: driver.joints() is not None, every=lambda: states_pub.publish(joint_state())
    )
    monkeypatch.setattr(driver._joints.readings, "take", lambda *arguments: 1 / 0)
    bench.until(
        lambda: "driver_thread" in driver.faults(), every=lambda: states_pub.publish(joint_state())
    )
    assert driver.joints() is None and "division by zero" in driver.faults()["driver_thread"]


# The controller and other commanders -----------------------------------------------------------


def test_no_controller_of_the_right_type_is_a_fault_until_it_is_there(bench):
    driver = bench.driver()
    assert "expected a controller" in driver.faults()["controller"]  # from the start
    topic = f"{bench.base}/driver/commands"
    context = rclpy.Context()  # like another process: one context has one type for each topic
    rclpy.init(context=context)
    wrong = Node("wrong", context=context)
    try:
        wrong.create_subscription(JointTrajectory, topic, lambda msg: None, 5)
        bench.until(lambda: "JointTrajectory" in driver.faults()["controller"])
    finally:
        wrong.destroy_node()
        rclpy.shutdown(context=context)
    bench.add_controller()
    bench.until(lambda: "controller" not in driver.faults())


@pytest.mark.parametrize("key", ["interpolate_from_desired_state", "open_loop_control"])
def test_a_trajectory_controller_must_continue_from_its_last_command(bench, key):
    controller = bench.add_node("joint_trajectory_controller")
    for name in {"interpolate_from_desired_state", key}:
        controller.declare_parameter(name, False)
    topic = f"{bench.base}/driver/commands"
    controller.create_subscription(JointTrajectory, topic, lambda msg: None, 5)
    bench.graph.executor.add_node(controller)
    driver = bench.driver(bench.config("trajectory"))
    bench.until(lambda: "controller_settings" in driver.faults())
    text = driver.faults()["controller_settings"]
    assert f"{bench.base}/joint_trajectory_controller: got interpolate" in text
    controller.set_parameters([Parameter(key, value=True)])
    bench.until(lambda: "controller_settings" not in driver.faults())
    bench.graph.executor.remove_node(controller)


def test_a_subscriber_of_trajectories_without_such_settings_is_accepted(bench):
    bench.add_controller("trajectory")
    driver = bench.driver(bench.config("trajectory"))
    settings = driver.connections.settings
    bench.until(lambda: settings._asked_s)
    end = time.monotonic() + 0.5
    bench.until(lambda: time.monotonic() > end)
    assert "controller_settings" not in driver.faults() and "controller" not in driver.faults()


def test_a_second_robot_node_does_not_start_and_the_first_continues(bench):
    bench.add_controller()
    driver = bench.driver()
    with pytest.raises(UserError) as error:
        bench.driver()
    text = str(error.value)
    assert driver.node.get_name() in text and "End that node" in text and "\n" not in text
    bench.until(lambda: driver.faults() == {})
    assert not driver.must_yield


@pytest.mark.parametrize("topic", ["commands", "gripper"])
def test_any_other_publisher_of_commands_prevents_the_start(bench, topic):
    name = f"{bench.base}/driver/{topic}"
    bench.add_node("teleop").create_publisher(Float64MultiArray, name, 5)
    with pytest.raises(UserError, match="teleop"):
        bench.driver()
    threads = [thread.name for thread in threading.enumerate()]
    assert "arm_bus" not in threads


def test_of_two_drivers_the_later_yields_while_the_other_exists(bench, monkeypatch):
    bench.add_controller()
    monkeypatch.setattr(
        RosDriver, "_await_precedence", lambda self: None
    )  # both start at the same time
    first, second = bench.driver(), bench.driver()
    bench.until(lambda: second.must_yield)
    assert first.node.get_name() in second.faults()["commander"]
    fault_counts = first.robot_node.diagnostics.faults
    bench.until(lambda: fault_counts["commander"] == 1)
    assert not first.must_yield and "commander" not in first.faults()
    assert not first.robot_node.diagnostics.active_faults
    first.close()
    bench.until(lambda: not second.must_yield)
    assert "commander" not in second.faults()


def test_the_driver_yields_while_another_publisher_exists(bench):
    bench.add_controller()
    driver, teleop = bench.driver(), bench.add_node("teleop")
    publisher = teleop.create_publisher(Float64MultiArray, f"{bench.base}/driver/commands", 5)
    bench.until(lambda: driver.must_yield)
    assert "teleop" in driver.faults()["commander"]
    teleop.destroy_publisher(publisher)
    bench.until(lambda: not driver.must_yield and "commander" not in driver.faults())


# Commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", COMMAND_TYPES)
def test_halt_commands_zero_velocity_where_motion_would_continue(bench, interface):
    driver, commands = bench.driver(bench.config(interface)), bench.add_controller(interface)
    bench.until(lambda: "controller" not in driver.faults())
    bench.until(lambda: len(commands) > 0, every=lambda: driver.send(setpoint(periods=3)))
    commands.clear()
    if interface in ("velocity", "twist"):

        def at_rest() -> bool:
            if not commands:
                return False
            if interface == "velocity":
                return list(commands[-1].data) == [0.0] * 6
            vectors = commands[-1].twist.linear, commands[-1].twist.angular
            return all(getattr(vector, axis) == 0.0 for vector in vectors for axis in "xyz")

        bench.until(at_rest, every=driver.halt)
        return
    bench.graph.spin(0.3)
    commands.clear()
    driver.halt()
    driver.send(setpoint(periods=3))
    bench.until(lambda: len(commands) > 0)
    bench.graph.spin(0.3)
    assert len(commands) == 1  # the setpoint: halt sends none


def rejected(message: JointTrajectory, joints: list[str]) -> str:
    """Return why joint_trajectory_controller 4.42 to 6.9 (Jazzy to Lyrical) rejects a message."""
    if message.joint_names != joints or not message.points:
        return "names or points"
    if any(message.points[-1].velocities):
        return "velocity at the end"
    if message.header.stamp.sec or message.header.stamp.nanosec:
        return "a start time may be in the past"
    previous_ns = 0
    for index, point in enumerate(message.points):
        time_ns = point.time_from_start.sec * 10**9 + point.time_from_start.nanosec
        if index and time_ns <= previous_ns:
            return "times"
        previous_ns = time_ns
        sizes = len(point.positions), len(point.velocities), len(point.accelerations)
        if sizes not in {(len(joints),) * 2 + (0,), (len(joints),) * 3}:
            return "sizes"
        if len(point.effort):
            return "effort"
    return ""


@pytest.mark.parametrize("periods", [0, 1, 57])
def test_trajectories_as_sent_pass_the_checks_of_joint_trajectory_controller(bench, periods):
    commands, driver = bench.add_controller("trajectory"), bench.driver(bench.config("trajectory"))
    bench.until(lambda: "controller" not in driver.faults())
    bench.until(lambda: len(commands) > 3, every=lambda: driver.send(setpoint(periods=periods)))
    assert not {rejected(message, list(NAMES[:6])) for message in commands} - {""}


@pytest.mark.parametrize("periods", [0, 1, 2, POINTS - 1, POINTS, POINTS + 1, 57, 400])
@pytest.mark.parametrize("rate_hz", [30.0, 50.0, 333.0])
def test_a_trajectory_is_valid_for_a_trajectory_controller(periods, rate_hz):
    sent = setpoint(periods=periods)
    points = trajectory_points(sent, slice(6), rate_hz)
    assert 1 <= len(points) <= POINTS
    times_s = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in points]
    assert times_s[0] == pytest.approx(1 / rate_hz) and (np.diff(times_s) > 0).all()
    assert times_s[-1] == pytest.approx(max(periods, 1) / rate_hz)
    assert all(len(p.positions) == len(p.velocities) == 6 for p in points)
    assert list(points[-1].velocities) == [0.0] * 6
    for point, time_s in zip(points, times_s):
        index = round(time_s * rate_hz) - 1
        position = sent.stop.x[index, :6] if periods else sent.position[:6]
        np.testing.assert_array_equal(point.positions, position)


def test_the_simulated_driver_follows_such_a_trajectory_to_its_end(bench):
    sim = bench.graph.add(ArmSimNode, render="none")
    command = Output("trajectory", "/arm_sim/joint_trajectory_controller/joint_trajectory")
    driver = bench.driver(bench.config(command=command, joint_states="/arm_sim/joint_states"))
    bench.until(lambda: driver.joints() is not None and "controller" not in driver.faults())
    goal = HOME + np.array([0.1] * 6 + [0.0])
    x = HOME + np.linspace(0.0, 1.0, 41)[1:, None] * (goal - HOME)
    stop = Stop(x, np.zeros_like(x), np.zeros_like(x))
    driver.send(Setpoint(x[0], x[0] * 0, x[0] * 0, (), True, False, stop))

    def at_goal() -> bool:
        return bool(np.abs(driver.joints().position - goal)[:6].max() < 0.02)

    bench.until(at_goal)
    assert sim.diagnostics.facts.get("refused", 0) == 0


# Images ----------------------------------------------------------------------------------------


def test_images_are_received_with_the_publishers_reliability_and_depth_1(bench):
    driver, camera = bench.driver(), bench.image_pub()

    def subscription() -> Subscription:
        topic = camera.topic_name
        return next(s for s in driver.robot_node.subscriptions if s.topic_name == topic)

    reliability = camera.qos_profile.reliability
    bench.until(lambda: subscription().qos_profile.reliability == reliability)
    assert reliability == ReliabilityPolicy.RELIABLE and subscription().qos_profile.depth == 1


def test_the_time_of_an_image_is_its_stamp(bench):
    driver, camera = bench.driver(), bench.image_pub()
    for age in (0.05, 2.0, 9.0):

        def delayed(age=age) -> bool:
            frame = driver.frames().get("front")
            return frame is not None and 0 <= frame.came_s - frame.taken_s - age < 1.0

        def publish(age=age) -> None:
            camera.publish(image_msg(time.time_ns() - round(age * 1e9)))

        bench.until(delayed, every=publish)
        assert "camera_clock" not in driver.faults()


@pytest.mark.parametrize(
    ("age", "text", "reason"),
    [(60.0, "s old", "old"), (-5.0, "s in the future", "future"), (1e9, "s old", "old")],
)
def test_stamps_of_another_clock_are_a_fault_and_no_fresh_image(bench, age, text, reason):
    driver, camera = bench.driver(), bench.image_pub()

    def publish() -> None:
        camera.publish(image_msg(time.time_ns() - round(age * 1e9)))

    bench.until(lambda: "camera_clock" in driver.faults(), every=publish)
    assert driver.frames()["front"].taken_s == -math.inf
    fault = driver.faults()["camera_clock"]
    assert "front" in fault and text in fault and "chrony" in fault and "stamps: arrival" in fault
    assert driver.robot_node.diagnostics.facts[f"stamps/front/{reason}"] >= 1
    if age > 0:  # the stamps advance: the clocks were synchronised
        bench.until(
            lambda: "camera_clock" not in driver.faults(),
            every=lambda: camera.publish(image_msg(time.time_ns())),
        )


def test_without_the_stamps_of_a_camera_the_time_of_arrival_counts(bench):
    source = CameraSource(topic=f"{bench.base}/driver/image", stamps="arrival")
    driver, camera = bench.driver(bench.config(cameras={"front": source})), bench.image_pub()

    def renewed() -> bool:
        frame = driver.frames().get("front")
        return frame is not None and frame.number > 3

    bench.until(renewed, every=lambda: camera.publish(image_msg(0)))
    frame = driver.frames()["front"]
    assert frame.taken_s == frame.came_s and "camera_clock" not in driver.faults()


@pytest.mark.parametrize(
    ("name", "keys"), [("image/compressed", {}), ("jpeg", {"compressed": True})]
)
def test_compressed_images_of_a_driver_are_decoded(bench, name, keys):
    source = CameraSource(topic=f"{bench.base}/driver/{name}", stamps="arrival", **keys)
    driver = bench.driver(bench.config(cameras={"front": source}))
    camera = bench.add_node("camera").create_publisher(CompressedImage, source.topic, 50)
    pixels = np.full((64, 64, 3), [30, 100, 200], np.uint8)  # blue, green, red
    msg = CompressedImage(format="rgb8; png compressed bgr8")
    msg.data = cv2.imencode(".png", pixels)[1].tobytes()
    bench.until(lambda: "front" in driver.frames(), every=lambda: camera.publish(msg))
    assert (driver.frames()["front"].look() == [200, 100, 30]).all()


def test_an_image_with_an_old_stamp_does_not_renew_the_frame(bench):
    driver, camera = bench.driver(), bench.image_pub()
    stamp = time.time_ns()
    bench.until(lambda: "front" in driver.frames(), every=lambda: camera.publish(image_msg(stamp)))
    bench.graph.spin(0.3)
    first, drops = driver.frames()["front"], driver.robot_node.diagnostics.drops
    for old_stamp in (stamp, stamp - 500_000_000):
        before = drops["image/repeated"]
        camera.publish(image_msg(old_stamp))
        bench.until(lambda before=before: drops["image/repeated"] > before)
    assert driver.frames()["front"] is first
    camera.publish(image_msg(stamp - 3_000_000_000))  # the camera restarted
    bench.until(lambda: driver.frames()["front"].number > first.number)


# Scenes ----------------------------------------------------------------------------------------


def test_a_scene_is_requested_until_it_is_set(bench):
    outcomes = iter([False, False, True])

    def reset(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = next(outcomes)
        return response

    driver = bench.driver(bench.config(episodes=Episodes(reset_service=f"{bench.base}/reset")))
    driver.request_scene(0)
    assert not driver.scene_is_set()
    bench.graph.probe.create_service(Trigger, f"{bench.base}/reset", reset)
    bench.until(driver.scene_is_set)
    assert next(outcomes, None) is None


# The simulated driver's faults -----------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Iterator[ArmWorld]:
    arm_world = ArmWorld(config(), render="fast")
    yield arm_world
    arm_world.close()


def test_wrapped_joints_report_angles_within_one_turn(world):
    world.data.qpos[world._at[:2]] = [math.pi + 0.5, -math.pi - 0.5]
    try:
        wrapped, _, _ = Controller(
            world, Faults(wrap_joints=True, joint_noise_rad=0.0)
        ).sensors.joint_states()
        np.testing.assert_allclose(wrapped[:2], [0.5 - math.pi, math.pi - 0.5])
        unwrapped, _, _ = Controller(world, Faults(joint_noise_rad=0.0)).sensors.joint_states()
        np.testing.assert_allclose(unwrapped[:2], [math.pi + 0.5, -math.pi - 0.5])
    finally:
        world._hold(HOME)


def test_velocities_end_after_the_timeout_or_never(world):
    for timeout, moves in ((0.1, False), (0.0, True)):
        controller = Controller(world, Faults(velocity_timeout_s=timeout, joint_noise_rad=0.0))
        controller.command("velocity", [0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
        controller.advance(1.0)
        assert (abs(controller.sensors.joint_states()[1][0]) > 0.1) == moves
        controller.command("velocity", [0.0] * 6)
        controller.advance(0.5)


def test_wrong_trajectories_are_refused_as_a_whole(world):
    controller = Controller(world)
    position = list(HOME[:6])
    for points in ([], [(0.1, position), (0.1, position)], [(0.1, position), (0.2, position[:5])]):
        before = controller.refused
        controller.trajectory(points)
        assert controller.refused == before + 1


def test_the_simulator_reports_its_faults_on_topics(bench):
    sim = bench.graph.add(ArmSimNode, camera_px=16)
    states: list[JointState] = []
    images: list[tuple[float, Image]] = []
    probe = bench.graph.probe
    probe.create_subscription(JointState, "/arm_sim/joint_states", states.append, 50)
    probe.create_subscription(
        Image, "/arm_sim/front/image_raw", lambda msg: images.append((time.time(), msg)), 50
    )

    def set_parameter(name: str, value) -> None:
        sim.set_parameters([Parameter(name, value=value)])

    def age() -> float:
        received_s, msg = images[-1]
        return received_s - messages.from_time(msg.header.stamp) / 1e9

    bench.until(lambda: states and tuple(states[-1].name) == NAMES and images)
    set_parameter("split_states", True)
    bench.until(lambda: {len(msg.name) for msg in states[-2:]} == {1, 6})
    set_parameter("nan_velocity", True)
    bench.until(lambda: np.isnan([*states[-1].velocity, *states[-1].effort]).all())
    assert len(states[-1].effort) == len(states[-1].name)
    set_parameter("camera_delay_s", 1.5)
    bench.until(lambda: images and age() > 1.4)
    set_parameter("camera_delay_s", 0.0)
    bench.until(lambda: age() < 1.0)


def test_the_driver_of_a_simulated_world_has_the_same_interface():
    driver = SimDriver(config(), render="fast")
    try:
        driver.controller.faults.nan_velocity = True
        driver.wait(0.1)
        first = driver.joints()
        driver.wait(0.1)
        second = driver.joints()
        assert first is not None and second is not None and second.number > first.number
        assert np.isfinite(second.velocity).all()
        driver.halt()
        assert driver.faults() == {} and driver.must_yield is False
    finally:
        driver.close()


def test_a_process_that_publishes_joint_states_but_takes_no_commands_is_no_driver(bench):
    """A joint state publisher runs, and another process subscribes to the commands."""
    bench.add_controller()
    driver = bench.driver()
    context = rclpy.Context()  # another participant of DDS, like another process
    rclpy.init(context=context)
    other_node = Node("joint_state_publisher", context=context, namespace=bench.base)
    publisher = other_node.create_publisher(JointState, f"{bench.base}/driver/joint_states", 50)
    publish = partial(publisher.publish, joint_state())
    name = f"{bench.base}/joint_state_publisher"  # known a moment later than its topics
    bench.until(lambda: name in driver.faults().get("driver_unknown", ""), every=publish)
    assert "driver_node" in driver.faults()["driver_unknown"]
    driver.close()
    driver = bench.driver(bench.config(driver_node="joint_state_publisher"))
    bench.until(lambda: driver.joints() is not None and not driver.faults(), every=publish)
    driver.close()
    other_node.destroy_node()
    rclpy.try_shutdown(context=context)
    driver, states_pub = bench.driver(), bench.joint_states_pub()
    bench.until(
        lambda: driver.joints() is not None and not driver.faults(),
        every=lambda: states_pub.publish(joint_state()),
    )


def test_a_stamp_of_the_simulator_is_correct_when_interrupted(bench, monkeypatch):
    """With a simulated steady clock, so that the machine's load has no effect."""
    sim = bench.graph.add(ArmSimNode, begin=False, render="none")
    random, offset_ns = np.random.default_rng(0), 10**18
    steady_ns, calls, uninterrupted = [0], itertools.count(), set()

    def interrupted_ns() -> int:
        index = next(calls) % CLOCK_READINGS
        before, after = (
            (0, 0) if index in uninterrupted else random.integers(1_000_000, 4_000_000, 2)
        )
        steady_ns[0] += int(before)
        now_ns = steady_ns[0] + offset_ns
        steady_ns[0] += int(after)
        return now_ns

    monkeypatch.setattr(sim, "_now_ns", interrupted_ns)
    monkeypatch.setattr(arm_sim, "time", SimpleNamespace(monotonic_ns=lambda: steady_ns[0]))
    for index in range(CLOCK_READINGS):
        uninterrupted.clear()
        uninterrupted.add(index)
        assert sim._stamp_ns(12.5) == round(12.5e9) + offset_ns
