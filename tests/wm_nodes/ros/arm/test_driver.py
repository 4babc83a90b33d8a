"""The bus of an arm with real nodes: who publishes, how old things are, what is commanded."""

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
KINDS = {
    "position": Float64MultiArray,
    "velocity": Float64MultiArray,
    "trajectory": JointTrajectory,
    "twist": TwistStamped,
}
SHORT_S = 0.3  # nodes of one context find each other at once


class DriverNode(ManagedNode):
    NAME = "robot"


class Bench:
    """Buses on topics of their own, and nodes around them."""

    def __init__(self, graph) -> None:
        self.graph, self.made, self.nodes = graph, [], []
        self.base = graph.namespace

    def config(self, interface: str = "position", **changes) -> ArmConfig:
        """Return the simulated arm's configuration with topics of this test."""
        given = {
            "joint_states": f"{self.base}/driver/joint_states",
            "command": Output(interface, f"{self.base}/driver/commands"),
            "gripper": replace(config().gripper, topic=f"{self.base}/driver/gripper"),
            "cameras": {"front": CameraSource(topic=f"{self.base}/driver/image")},
            "episodes": Episodes(),
        }
        return replace(config(), **{**given, **changes})

    def bus(self, given: ArmConfig | None = None) -> RosDriver:
        node = self.graph.add(DriverNode, begin=False)
        bus = RosDriver(node, given or self.config())
        bus.shell = node
        self.made.append(bus)
        return bus

    def other(self, name: str) -> Node:
        node = Node(name, context=self.graph.context, namespace=self.base)
        self.nodes.append(node)
        return node

    def states(self, name: str = "driver"):
        return self.other(name).create_publisher(JointState, f"{self.base}/driver/joint_states", 50)

    def images(self):
        return self.other("camera").create_publisher(Image, f"{self.base}/driver/image", 50)

    def controller(self, interface: str = "position") -> list:
        """Return the list that commands come into."""
        commands: list = []
        topic = f"{self.base}/driver/commands"
        self.graph.probe.create_subscription(KINDS[interface], topic, commands.append, 50)
        return commands

    def until(self, condition, timeout_s: float = 20.0, every=lambda: None) -> None:
        """Spin, and call `every`, until the condition holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            every()
            self.graph.executor.spin_once(timeout_sec=0.01)

    def close(self) -> None:
        for bus in self.made:
            bus.close()
        for node in self.nodes:
            node.destroy_node()


@pytest.fixture
def bench(graph, monkeypatch) -> Iterator[Bench]:
    monkeypatch.setattr(endpoints, "DISCOVERY_S", SHORT_S)
    made = Bench(graph)
    yield made
    made.close()


def state(names=NAMES, position=None, velocity=(), stamp_ns: int = 0) -> JointState:
    position = [0.0] * len(names) if position is None else position
    return JointState(
        header=messages.header(stamp_ns),
        name=list(names),
        position=array("d", position),
        velocity=array("d", velocity),
    )


def image(stamp_ns: int, level: int = 0) -> Image:
    return messages.image_to_msg(np.full((64, 64, 3), level, np.uint8), stamp_ns)


def setpoint(n: int = len(NAMES), periods: int = 0) -> Setpoint:
    x = np.linspace(0.1, 0.2, max(periods, 1))[:, None] * np.ones(n)
    v = np.linspace(0.1, 1e-12, max(periods, 1))[:, None] * np.ones(n)
    stop = Stop(x[:periods], v[:periods], np.zeros((periods, n)))
    return Setpoint(x[0], v[0], np.zeros(n), (), True, False, stop)


# Joint states ----------------------------------------------------------------------------------


def test_arm_and_gripper_in_messages_and_publishers_of_their_own_make_whole_readings(bench):
    bus, arm, gripper = bench.bus(), bench.states("arm"), bench.states("hand")

    def publish() -> None:
        arm.publish(state(NAMES[:6], [0.1] * 6))
        gripper.publish(state(NAMES[6:], [0.02]))

    bench.until(lambda: bus.joints() is not None, every=publish)
    assert bus.joints().position.tolist() == [0.1] * 6 + [0.02]
    bench.until(lambda: len(bus._joints.sources.senders(time.monotonic())) == 2, every=publish)
    bench.until(lambda: "joint_sources" not in bus.faults(), every=publish)
    end = time.monotonic() + 0.5
    bench.until(lambda: time.monotonic() > end, every=publish)
    assert "joint_sources" not in bus.faults()


@pytest.mark.parametrize("first", [True, False])
def test_a_second_publisher_of_our_joints_is_a_fault_while_it_publishes(bench, first):
    bus = bench.bus()
    driver, liar = (bench.states(name) for name in ("driver", "liar"))

    def both() -> None:
        driver.publish(state())
        for _ in range(4):
            liar.publish(state(position=[0.3] * 7))

    def one_is_fine() -> bool:  # by a look at the graph after its first message
        return bus.joints() is not None and "joint_sources" not in bus.faults()

    alone = liar if first else driver
    bench.until(one_is_fine, every=lambda: alone.publish(state()))
    for _ in range(50):  # and by all that follow
        alone.publish(state())
        bench.graph.executor.spin_once(timeout_sec=0.01)
        assert "joint_sources" not in bus.faults()
    bench.until(lambda: "joint_sources" in bus.faults(), every=both)
    text = bus.faults()["joint_sources"]
    assert "driver" in text and "liar" in text and "End the other publisher" in text
    bench.until(lambda: "joint_sources" not in bus.faults(), every=lambda: driver.publish(state()))


def test_a_second_publisher_of_one_joint_is_a_fault_though_arm_and_gripper_are_separate(bench):
    bus, arm, gripper, liar = bench.bus(), *(bench.states(name) for name in ("a", "g", "liar"))

    def publish() -> None:
        arm.publish(state(NAMES[:6]))
        gripper.publish(state(NAMES[6:]))
        liar.publish(state(NAMES[2:3]))

    bench.until(lambda: "joint_sources" in bus.faults(), every=publish)
    assert NAMES[2] in bus.faults()["joint_sources"]


def test_publishers_without_identifiers_are_judged_by_the_graph(bench, monkeypatch):
    monkeypatch.setattr(endpoints, "identifier", lambda data: b"")
    bus, driver = bench.bus(), bench.states()
    bench.until(lambda: bus.joints() is not None, every=lambda: driver.publish(state()))
    assert "joint_sources" not in bus.faults()
    liar = bench.states("liar")

    def both() -> None:
        driver.publish(state())
        liar.publish(state())

    bench.until(lambda: "joint_sources" in bus.faults(), every=both)
    assert "liar" in bus.faults()["joint_sources"]


@pytest.mark.parametrize("full", [True, False])
def test_only_the_configured_node_may_publish_our_joints(bench, full):
    name = f"{bench.base}/broadcaster" if full else "broadcaster"
    bus = bench.bus(bench.config(driver_node=name))
    wrong = bench.states("wrong")
    bench.until(lambda: "joint_sources" in bus.faults(), every=lambda: wrong.publish(state()))
    text = bus.faults()["joint_sources"]
    assert "/wrong" in text and name in text and "driver_node" in text
    bench.nodes.remove(wrong_node := next(n for n in bench.nodes if n.get_name() == "wrong"))
    wrong_node.destroy_node()
    right, device = bench.states("broadcaster"), bench.states("device")

    def publish() -> None:
        right.publish(state())
        device.publish(state(["wheel"]))

    bench.until(lambda: "joint_sources" not in bus.faults(), every=publish)
    assert bus.joints() is not None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (state(position=[math.nan] * 7), "non-finite"),
        (state(position=[0.0] * 6), "size"),
        (state(velocity=[0.0]), "size"),
        (state([*NAMES, NAMES[0]]), "names"),
        (state([f"{'x' * 60}{number}" for number in range(4000)]), "size"),
        (b"rubbish", "serialization"),
    ],
)
def test_a_wrong_message_is_refused_and_counted_and_no_reading(bench, given, reason):
    bus, driver = bench.bus(), bench.states()
    drops = bus.shell.diagnostics.drops
    bench.until(
        lambda: any(key.endswith(f"joint_states/{reason}") for key in drops),
        every=lambda: driver.publish(given),
    )
    assert bus.joints() is None and bus.missing_joints == NAMES
    bench.until(lambda: bus.joints() is not None, every=lambda: driver.publish(state()))


def test_what_is_too_long_is_refused_before_it_is_deserialized(bench, monkeypatch):
    bus, driver = bench.bus(), bench.states()
    sizes = []

    def count(data, kind):
        sizes.append(len(data))
        return deserialize(data, kind)

    deserialize = raw_subscription.deserialize_message
    monkeypatch.setattr(raw_subscription, "deserialize_message", count)
    long = state([f"x{number}" for number in range(50_000)])
    drops = bus.shell.diagnostics.drops
    bench.until(lambda: any("size" in key for key in drops), every=lambda: driver.publish(long))
    bench.until(lambda: bus.joints() is not None, every=lambda: driver.publish(state()))
    assert sizes and max(sizes) <= LARGEST


@pytest.mark.parametrize("velocity", [(), [math.nan] * 7])
def test_missing_and_nan_velocities_are_computed(bench, velocity):
    bus, driver = bench.bus(), bench.states()
    began = time.time_ns()

    def publish() -> None:
        now = time.time_ns()
        driver.publish(state(NAMES, [0.5 * (now - began) / 1e9] * 7, velocity, now))

    def computed() -> bool:
        reading = bus.joints()
        return reading is not None and bool(np.allclose(reading.velocity, 0.5, rtol=0.05))

    bench.until(computed, every=publish)


def test_wrapped_angles_of_continuous_joints_become_a_path_without_jumps(bench):
    limits = replace(config().limits, continuous=np.array([True] * 6 + [False]))
    bus, driver = bench.bus(bench.config(limits=limits)), bench.states()
    for angle in np.arange(0.0, 9.0, 0.3):
        place = [math.remainder(angle, 2 * math.pi)] * 6 + [0.0]

        def arrived(angle=angle) -> bool:
            reading = bus.joints()
            return reading is not None and bool(np.allclose(reading.position[:6], angle))

        bench.until(arrived, every=lambda place=place: driver.publish(state(position=place)))


# Threads ---------------------------------------------------------------------------------------


def test_joint_states_commands_faults_and_services_do_not_wait_for_the_robot_node(bench):
    bus, driver, commands = bench.bus(), bench.states(), bench.controller()
    bus.node.create_service(SetBool, "stop_now", lambda request, response: response)
    client = bench.graph.probe.create_client(SetBool, "stop_now")
    assert client.wait_for_service(10.0)
    free, busy = threading.Event(), threading.Event()

    def block() -> None:
        """Block the robot node's executor."""
        busy.set()
        free.wait(60.0)

    def spin() -> None:
        while not busy.is_set():  # another callback may be executed first
            bench.graph.executor.spin_once(5.0)

    bus.shell.create_timer(0.001, block)
    blocked = threading.Thread(target=spin)
    alone = Node("alone", context=bench.graph.context, namespace=bench.base)
    bench.nodes.append(alone)
    answers = alone.create_client(SetBool, "stop_now")
    taken: list = []
    alone.create_subscription(Float64MultiArray, f"{bench.base}/driver/commands", taken.append, 50)
    blocked.start()
    assert busy.wait(20.0)
    try:
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor(context=bench.graph.context)
        executor.add_node(alone)
        assert answers.wait_for_service(10.0)
        future = answers.call_async(SetBool.Request())

        def until(condition) -> None:
            end = time.monotonic() + 20.0
            while not condition():
                assert time.monotonic() < end, "it did not happen in time"
                driver.publish(state())
                bus.send(setpoint())
                executor.spin_once(timeout_sec=0.01)

        until(lambda: bus.joints() is not None and future.done() and taken)
        until(lambda: "controller" not in bus.faults())
        assert blocked.is_alive() and not commands
        executor.shutdown()
    finally:
        free.set()
        blocked.join()


def test_close_ends_thread_and_nodes_and_may_be_called_twice(bench):
    bus = bench.bus()
    name = bus.node.get_name()
    bench.until(lambda: name in bench.graph.probe.get_node_names())
    bus.close()
    bus.close()
    assert not bus.thread.alive
    bench.until(lambda: name not in bench.graph.probe.get_node_names())
    assert not [s for s in bus.shell.subscriptions if s.topic_name.endswith("/image")]


def test_an_error_in_the_thread_is_a_fault_and_ends_the_readings(bench, monkeypatch):
    bus, driver = bench.bus(), bench.states()
    bench.until(lambda: bus.joints() is not None, every=lambda: driver.publish(state()))
    monkeypatch.setattr(bus._joints.readings, "take", lambda *given: 1 / 0)
    bench.until(lambda: "driver_thread" in bus.faults(), every=lambda: driver.publish(state()))
    assert bus.joints() is None and "division by zero" in bus.faults()["driver_thread"]


# The controller and other commanders -----------------------------------------------------------


def test_no_controller_of_the_right_type_is_a_fault_until_it_is_there(bench):
    bus = bench.bus()
    assert "expected a controller" in bus.faults()["controller"]  # from the start
    topic = f"{bench.base}/driver/commands"
    context = rclpy.Context()  # of another process, as it were: one has one type for each topic
    rclpy.init(context=context)
    wrong = Node("wrong", context=context)
    try:
        wrong.create_subscription(JointTrajectory, topic, lambda msg: None, 5)
        bench.until(lambda: "JointTrajectory" in bus.faults()["controller"])
    finally:
        wrong.destroy_node()
        rclpy.shutdown(context=context)
    bench.controller()
    bench.until(lambda: "controller" not in bus.faults())


@pytest.mark.parametrize("key", ["interpolate_from_desired_state", "open_loop_control"])
def test_a_trajectory_controller_must_go_on_from_its_last_command(bench, key):
    controller = bench.other("joint_trajectory_controller")
    for name in {"interpolate_from_desired_state", key}:
        controller.declare_parameter(name, False)
    topic = f"{bench.base}/driver/commands"
    controller.create_subscription(JointTrajectory, topic, lambda msg: None, 5)
    bench.graph.executor.add_node(controller)
    bus = bench.bus(bench.config("trajectory"))
    bench.until(lambda: "controller_settings" in bus.faults())
    text = bus.faults()["controller_settings"]
    assert f"{bench.base}/joint_trajectory_controller: got interpolate" in text
    controller.set_parameters([Parameter(key, value=True)])
    bench.until(lambda: "controller_settings" not in bus.faults())
    bench.graph.executor.remove_node(controller)


def test_a_taker_of_trajectories_without_such_settings_is_accepted(bench):
    bench.controller("trajectory")
    bus = bench.bus(bench.config("trajectory"))
    settings = bus.connections.settings
    bench.until(lambda: settings._asked_s)
    end = time.monotonic() + 0.5
    bench.until(lambda: time.monotonic() > end)
    assert "controller_settings" not in bus.faults() and "controller" not in bus.faults()


def test_a_second_robot_node_does_not_start_and_the_first_goes_on(bench):
    bench.controller()
    bus = bench.bus()
    with pytest.raises(UserError) as error:
        bench.bus()
    text = str(error.value)
    assert bus.node.get_name() in text and "End that node" in text and "\n" not in text
    bench.until(lambda: bus.faults() == {})
    assert not bus.must_yield


@pytest.mark.parametrize("topic", ["commands", "gripper"])
def test_any_other_publisher_of_commands_prevents_the_start(bench, topic):
    name = f"{bench.base}/driver/{topic}"
    bench.other("teleop").create_publisher(Float64MultiArray, name, 5)
    with pytest.raises(UserError, match="teleop"):
        bench.bus()
    threads = [thread.name for thread in threading.enumerate()]
    assert "arm_bus" not in threads


def test_of_two_buses_the_later_yields_while_the_other_is_there(bench, monkeypatch):
    bench.controller()
    monkeypatch.setattr(RosDriver, "_await_precedence", lambda self: None)  # started at once
    first, second = bench.bus(), bench.bus()
    bench.until(lambda: second.must_yield)
    assert first.node.get_name() in second.faults()["commander"]
    counted = first.shell.diagnostics.faults
    bench.until(lambda: counted["commander"] == 1)
    assert not first.must_yield and "commander" not in first.faults()
    assert not first.shell.diagnostics.active_faults
    first.close()
    bench.until(lambda: not second.must_yield)
    assert "commander" not in second.faults()


def test_a_foreign_publisher_makes_a_bus_yield_while_it_is_there(bench):
    bench.controller()
    bus, teleop = bench.bus(), bench.other("teleop")
    publisher = teleop.create_publisher(Float64MultiArray, f"{bench.base}/driver/commands", 5)
    bench.until(lambda: bus.must_yield)
    assert "teleop" in bus.faults()["commander"]
    teleop.destroy_publisher(publisher)
    bench.until(lambda: not bus.must_yield and "commander" not in bus.faults())


# Commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", KINDS)
def test_halt_commands_standing_still_where_a_motion_would_go_on(bench, interface):
    bus, commands = bench.bus(bench.config(interface)), bench.controller(interface)
    bench.until(lambda: "controller" not in bus.faults())
    bench.until(lambda: len(commands) > 0, every=lambda: bus.send(setpoint(periods=3)))
    commands.clear()
    if interface in ("velocity", "twist"):

        def stands() -> bool:
            if not commands:
                return False
            if interface == "velocity":
                return list(commands[-1].data) == [0.0] * 6
            parts = commands[-1].twist.linear, commands[-1].twist.angular
            return all(getattr(part, axis) == 0.0 for part in parts for axis in "xyz")

        bench.until(stands, every=bus.halt)
        return
    bench.graph.spin(0.3)
    commands.clear()
    bus.halt()
    bus.send(setpoint(periods=3))
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
    before = 0
    for index, point in enumerate(message.points):
        due = point.time_from_start.sec * 10**9 + point.time_from_start.nanosec
        if index and due <= before:
            return "times"
        before = due
        sizes = len(point.positions), len(point.velocities), len(point.accelerations)
        if sizes not in {(len(joints),) * 2 + (0,), (len(joints),) * 3}:
            return "sizes"
        if len(point.effort):
            return "effort"
    return ""


@pytest.mark.parametrize("periods", [0, 1, 57])
def test_trajectories_as_sent_pass_the_checks_of_joint_trajectory_controller(bench, periods):
    commands, bus = bench.controller("trajectory"), bench.bus(bench.config("trajectory"))
    bench.until(lambda: "controller" not in bus.faults())
    bench.until(lambda: len(commands) > 3, every=lambda: bus.send(setpoint(periods=periods)))
    assert not {rejected(message, list(NAMES[:6])) for message in commands} - {""}


@pytest.mark.parametrize("periods", [0, 1, 2, POINTS - 1, POINTS, POINTS + 1, 57, 400])
@pytest.mark.parametrize("rate_hz", [30.0, 50.0, 333.0])
def test_a_trajectory_is_what_a_trajectory_controller_takes(periods, rate_hz):
    given = setpoint(periods=periods)
    points = trajectory_points(given, slice(6), rate_hz)
    assert 1 <= len(points) <= POINTS
    due = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in points]
    assert due[0] == pytest.approx(1 / rate_hz) and (np.diff(due) > 0).all()
    assert due[-1] == pytest.approx(max(periods, 1) / rate_hz)
    assert all(len(p.positions) == len(p.velocities) == 6 for p in points)
    assert list(points[-1].velocities) == [0.0] * 6
    for point, at in zip(points, due):
        index = round(at * rate_hz) - 1
        place = given.stop.x[index, :6] if periods else given.position[:6]
        np.testing.assert_array_equal(point.positions, place)


def test_the_simulated_driver_follows_such_a_trajectory_to_its_end(bench):
    sim = bench.graph.add(ArmSimNode, render="none")
    command = Output("trajectory", "/arm_sim/joint_trajectory_controller/joint_trajectory")
    bus = bench.bus(bench.config(command=command, joint_states="/arm_sim/joint_states"))
    bench.until(lambda: bus.joints() is not None and "controller" not in bus.faults())
    goal = HOME + np.array([0.1] * 6 + [0.0])
    x = HOME + np.linspace(0.0, 1.0, 41)[1:, None] * (goal - HOME)
    stop = Stop(x, np.zeros_like(x), np.zeros_like(x))
    bus.send(Setpoint(x[0], x[0] * 0, x[0] * 0, (), True, False, stop))

    def there() -> bool:
        return bool(np.abs(bus.joints().position - goal)[:6].max() < 0.02)

    bench.until(there)
    assert sim.diagnostics.facts.get("refused", 0) == 0


# Images ----------------------------------------------------------------------------------------


def test_images_are_taken_as_the_driver_offers_them_and_only_the_newest(bench):
    bus, camera = bench.bus(), bench.images()

    def images() -> Subscription:
        topic = camera.topic_name
        return next(s for s in bus.shell.subscriptions if s.topic_name == topic)

    offered = camera.qos_profile.reliability
    bench.until(lambda: images().qos_profile.reliability == offered)
    assert offered == ReliabilityPolicy.RELIABLE and images().qos_profile.depth == 1


def test_an_image_was_taken_when_its_stamp_says(bench):
    bus, camera = bench.bus(), bench.images()
    for age in (0.05, 2.0, 9.0):

        def delayed(age=age) -> bool:
            frame = bus.frames().get("front")
            return frame is not None and 0 <= frame.came_s - frame.taken_s - age < 1.0

        def publish(age=age) -> None:
            camera.publish(image(time.time_ns() - round(age * 1e9)))

        bench.until(delayed, every=publish)
        assert "camera_clock" not in bus.faults()


@pytest.mark.parametrize(
    ("age", "text", "reason"),
    [(60.0, "s old", "old"), (-5.0, "s in the future", "future"), (1e9, "s old", "old")],
)
def test_stamps_of_another_clock_are_a_fault_and_no_fresh_image(bench, age, text, reason):
    bus, camera = bench.bus(), bench.images()

    def publish() -> None:
        camera.publish(image(time.time_ns() - round(age * 1e9)))

    bench.until(lambda: "camera_clock" in bus.faults(), every=publish)
    assert bus.frames()["front"].taken_s == -math.inf
    fault = bus.faults()["camera_clock"]
    assert "front" in fault and text in fault and "chrony" in fault and "stamps: arrival" in fault
    assert bus.shell.diagnostics.facts[f"stamps/front/{reason}"] >= 1
    if age > 0:  # the stamps advance: the clocks were synchronised
        bench.until(
            lambda: "camera_clock" not in bus.faults(),
            every=lambda: camera.publish(image(time.time_ns())),
        )


def test_a_camera_whose_stamps_are_not_used_counts_by_arrival(bench):
    source = CameraSource(topic=f"{bench.base}/driver/image", stamps="arrival")
    bus, camera = bench.bus(bench.config(cameras={"front": source})), bench.images()

    def renewed() -> bool:
        frame = bus.frames().get("front")
        return frame is not None and frame.number > 3

    bench.until(renewed, every=lambda: camera.publish(image(0)))
    frame = bus.frames()["front"]
    assert frame.taken_s == frame.came_s and "camera_clock" not in bus.faults()


@pytest.mark.parametrize(
    ("name", "keys"), [("image/compressed", {}), ("jpeg", {"compressed": True})]
)
def test_compressed_images_of_a_driver_are_taken(bench, name, keys):
    source = CameraSource(topic=f"{bench.base}/driver/{name}", stamps="arrival", **keys)
    bus = bench.bus(bench.config(cameras={"front": source}))
    camera = bench.other("camera").create_publisher(CompressedImage, source.topic, 50)
    pixels = np.full((64, 64, 3), [30, 100, 200], np.uint8)  # blue, green, red
    msg = CompressedImage(format="rgb8; png compressed bgr8")
    msg.data = cv2.imencode(".png", pixels)[1].tobytes()
    bench.until(lambda: "front" in bus.frames(), every=lambda: camera.publish(msg))
    assert (bus.frames()["front"].look() == [200, 100, 30]).all()


def test_an_image_with_an_old_stamp_does_not_renew_the_frame(bench):
    bus, camera = bench.bus(), bench.images()
    stamp = time.time_ns()
    bench.until(lambda: "front" in bus.frames(), every=lambda: camera.publish(image(stamp)))
    bench.graph.spin(0.3)
    first, drops = bus.frames()["front"], bus.shell.diagnostics.drops
    for old in (stamp, stamp - 500_000_000):
        before = drops["image/repeated"]
        camera.publish(image(old))
        bench.until(lambda before=before: drops["image/repeated"] > before)
    assert bus.frames()["front"] is first
    camera.publish(image(stamp - 3_000_000_000))  # the camera began anew
    bench.until(lambda: bus.frames()["front"].number > first.number)


# Scenes ----------------------------------------------------------------------------------------


def test_a_scene_is_asked_for_until_it_is_set(bench):
    answers = iter([False, False, True])

    def reset(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = next(answers)
        return response

    bus = bench.bus(bench.config(episodes=Episodes(reset_service=f"{bench.base}/reset")))
    bus.request_scene(0)
    assert not bus.scene_is_set()
    bench.graph.probe.create_service(Trigger, f"{bench.base}/reset", reset)
    bench.until(bus.scene_is_set)
    assert next(answers, None) is None


# The simulated driver's faults -----------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Iterator[ArmWorld]:
    made = ArmWorld(config(), render="fast")
    yield made
    made.close()


def test_wrapped_joints_report_angles_within_one_turn(world):
    world.data.qpos[world._at[:2]] = [math.pi + 0.5, -math.pi - 0.5]
    try:
        place, _, _ = Controller(
            world, Faults(wrap_joints=True, joint_noise_rad=0.0)
        ).sensors.joint_states()
        np.testing.assert_allclose(place[:2], [0.5 - math.pi, math.pi - 0.5])
        whole, _, _ = Controller(world, Faults(joint_noise_rad=0.0)).sensors.joint_states()
        np.testing.assert_allclose(whole[:2], [math.pi + 0.5, -math.pi - 0.5])
    finally:
        world._hold(HOME)


def test_velocities_end_after_the_timeout_or_never(world):
    for timeout, moves in ((0.1, False), (0.0, True)):
        driver = Controller(world, Faults(velocity_timeout_s=timeout, joint_noise_rad=0.0))
        driver.command("velocity", [0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
        driver.advance(1.0)
        assert (abs(driver.sensors.joint_states()[1][0]) > 0.1) == moves
        driver.command("velocity", [0.0] * 6)
        driver.advance(0.5)


def test_wrong_trajectories_are_refused_as_a_whole(world):
    driver = Controller(world)
    here = list(HOME[:6])
    for points in ([], [(0.1, here), (0.1, here)], [(0.1, here), (0.2, here[:5])]):
        before = driver.refused
        driver.trajectory(points)
        assert driver.refused == before + 1


def test_the_simulator_reports_its_faults_on_topics(bench):
    sim = bench.graph.add(ArmSimNode, camera_px=16)
    states: list[JointState] = []
    images: list[tuple[float, Image]] = []
    probe = bench.graph.probe
    probe.create_subscription(JointState, "/arm_sim/joint_states", states.append, 50)
    probe.create_subscription(
        Image, "/arm_sim/front/image_raw", lambda msg: images.append((time.time(), msg)), 50
    )

    def switch(name: str, value) -> None:
        sim.set_parameters([Parameter(name, value=value)])

    def age() -> float:
        came, msg = images[-1]
        return came - messages.from_time(msg.header.stamp) / 1e9

    bench.until(lambda: states and tuple(states[-1].name) == NAMES and images)
    switch("split_states", True)
    bench.until(lambda: {len(msg.name) for msg in states[-2:]} == {1, 6})
    switch("nan_velocity", True)
    bench.until(lambda: np.isnan([*states[-1].velocity, *states[-1].effort]).all())
    assert len(states[-1].effort) == len(states[-1].name)
    switch("camera_delay_s", 1.5)
    bench.until(lambda: images and age() > 1.4)
    switch("camera_delay_s", 0.0)
    bench.until(lambda: age() < 1.0)


def test_the_bus_of_a_simulated_world_has_the_same_interface():
    bus = SimDriver(config(), render="fast")
    try:
        bus.controller.faults.nan_velocity = True
        bus.wait(0.1)
        first = bus.joints()
        bus.wait(0.1)
        second = bus.joints()
        assert first is not None and second is not None and second.number > first.number
        assert np.isfinite(second.velocity).all()
        bus.halt()
        assert bus.faults() == {} and bus.must_yield is False
    finally:
        bus.close()


def test_joint_states_of_a_process_that_takes_no_commands_are_no_driver(bench):
    """A joint state publisher runs, and something else listens to the commands."""
    bench.controller()
    bus = bench.bus()
    context = rclpy.Context()  # a process of its own, as far as DDS knows
    rclpy.init(context=context)
    tool = Node("joint_state_publisher", context=context, namespace=bench.base)
    publisher = tool.create_publisher(JointState, f"{bench.base}/driver/joint_states", 50)
    publish = partial(publisher.publish, state())
    name = f"{bench.base}/joint_state_publisher"  # known a moment later than its topics
    bench.until(lambda: name in bus.faults().get("driver_unknown", ""), every=publish)
    assert "driver_node" in bus.faults()["driver_unknown"]
    bus.close()
    bus = bench.bus(bench.config(driver_node="joint_state_publisher"))
    bench.until(lambda: bus.joints() is not None and not bus.faults(), every=publish)
    bus.close()
    tool.destroy_node()
    rclpy.try_shutdown(context=context)
    bus, driver = bench.bus(), bench.states()
    bench.until(
        lambda: bus.joints() is not None and not bus.faults(),
        every=lambda: driver.publish(state()),
    )


def test_a_stamp_of_the_simulator_is_right_though_it_is_interrupted(bench, monkeypatch):
    """By a steady clock of the test's own, so that the machine's load does not count."""
    sim = bench.graph.add(ArmSimNode, begin=False, render="none")
    random, offset_ns = np.random.default_rng(0), 10**18
    steady_ns, calls, quiet = [0], itertools.count(), set()

    def interrupted() -> int:
        index = next(calls) % CLOCK_READINGS
        before, after = (0, 0) if index in quiet else random.integers(1_000_000, 4_000_000, 2)
        steady_ns[0] += int(before)
        now_ns = steady_ns[0] + offset_ns
        steady_ns[0] += int(after)
        return now_ns

    monkeypatch.setattr(sim, "_now_ns", interrupted)
    monkeypatch.setattr(arm_sim, "time", SimpleNamespace(monotonic_ns=lambda: steady_ns[0]))
    for index in range(CLOCK_READINGS):
        quiet.clear()
        quiet.add(index)
        assert sim._stamp_ns(12.5) == round(12.5e9) + offset_ns
