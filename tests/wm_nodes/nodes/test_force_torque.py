"""A force-torque sensor: what is recorded of it, and when it stops the arm."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from threading import Thread

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config
from wm_datasets import LogReader
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.config.arm_config import find_config
from wm_nodes.robots.arm.config.sections import ForceTorqueSection
from wm_nodes.robots.arm.sensors.wrench import NAMES, PAUSE_S, ForceWatch, WrenchReadings
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

SENSOR = ForceTorqueSection("/wrench", frame="wrist", max_force_n=60.0, max_torque_nm=5.0)
FORCE = [1.0, -2.0, 3.0, 0.1, -0.2, 0.3]


def arm(section: ForceTorqueSection = SENSOR, task: str = "goal", **options) -> SimulatedArm:
    arm_config = replace(config(), force_torque=section)
    return SimulatedArm(task, robot=arm_config, render="none", **options)


# Readings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "frame", "age_s", "reason"),
    [
        ([math.nan, 0, 0, 0, 0, 0], "wrist", 0.0, "non-finite"),
        ([0, 0, 0, 0, 0, math.inf], "wrist", 0.0, "non-finite"),
        ([1e9, 0, 0, 0, 0, 0], "wrist", 0.0, "non-finite"),
        ([0, 0, 0], "wrist", 0.0, "non-finite"),
        (FORCE, "tool0", 0.0, "frame_id"),
        (FORCE, "wrist", 1e9, "stamp"),
        (FORCE, "wrist", -1.0, "stamp"),
    ],
)
def test_an_unusable_message_is_refused_and_counted_with_its_reason(values, frame, age_s, reason):
    readings = WrenchReadings(SENSOR)
    readings.take(FORCE, "wrist", 10.0, 0.01)
    before = readings.newest
    with pytest.raises(MessageError) as error:
        readings.take(values, frame, 10.1, age_s)
    assert error.value.reason == reason and "\n" not in str(error.value)
    assert readings.newest is before and readings.refused == {reason: 1}
    assert readings.wrong == str(error.value)
    readings.take(FORCE, "wrist", 10.2, 0.01)
    assert not readings.wrong and readings.newest.taken_s == pytest.approx(10.19)


def test_any_frame_and_any_clock_may_be_allowed():
    readings = WrenchReadings(ForceTorqueSection("/w", stamps="arrival"))
    readings.take(FORCE, "anything", 10.0, 1e9)
    assert readings.newest.taken_s == 10.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([36.0, 0, 48.1, 0, 0, 0], "60.1 N, beyond 60 N"),
        ([0, 0, 0, 3.0, 4.1, 0], "5.08 Nm, beyond 5 Nm"),
        ([36.0, 0, 47.9, 3.0, 3.9, 0], ""),
    ],
)
def test_limits_apply_to_the_lengths_of_the_vectors(values, message):
    watch, readings = ForceWatch(SENSOR), WrenchReadings(SENSOR)
    readings.take(values, "wrist", 10.0, 0.0)
    watch.newest = readings.newest
    assert message in watch.excess() and bool(message) == bool(watch.excess())
    unlimited = ForceWatch(ForceTorqueSection("/w"))
    unlimited.newest = readings.newest
    assert unlimited.excess() == ""


PEAKS = [([0, 61.0, 0, 0, 0, 0], "61.0 N"), ([0, 0, 0, 0, 0, -5.5], "5.50 Nm")]


@pytest.mark.parametrize(("peak", "message"), PEAKS)
@pytest.mark.parametrize("peak_index", [0, 7, 19])
def test_a_peak_between_two_checks_is_reported_once_and_not_recorded(peak, message, peak_index):
    watch, readings = ForceWatch(SENSOR), WrenchReadings(SENSOR)

    def check(since_s: float, index_of_peak: int) -> str:
        for index in range(20):
            values = peak if index == index_of_peak else FORCE
            readings.take(values, "wrist", since_s + index / 1000, 0.0)
        watch.newest = readings.newest
        return watch.excess()

    assert check(10.0, -1) == ""
    assert message in check(10.02, peak_index) and message in watch.excess()
    if peak_index < 19:
        assert readings.newest.values.tolist() == FORCE
    assert check(10.04, -1) == ""


def test_no_peak_is_lost_when_another_thread_takes_the_readings():
    watch, readings, count = ForceWatch(SENSOR), WrenchReadings(SENSOR), 3000
    readings.take(FORCE, "wrist", 10.0, 0.0)
    watch.newest = readings.newest
    watch.excess()

    def take() -> None:
        for number in range(1, count + 1):
            force = 100.0 + number if number % 10 == 0 else 0.0
            readings.take([force, 0, 0, 0, 0, 0], "wrist", 10.0 + number * 1e-6, 0.0)

    thread, checked, correct = Thread(target=take), 0, []
    thread.start()
    while checked < count:
        watch.newest = readings.newest
        message, newest = watch.excess(), watch.newest.number
        if newest // 10 > checked // 10:  # a peak, each larger than the one before
            force = 100.0 + newest // 10 * 10
            correct.append(message == f"the force is {force:.1f} N, beyond 60 N")
        checked = newest
    thread.join()
    assert correct and all(correct)


def test_peaks_during_a_pause_of_the_checks_do_not_count():
    watch, readings = ForceWatch(SENSOR), WrenchReadings(SENSOR)
    readings.take([900.0, 0, 0, 0, 0, 0], "wrist", 10.0, 0.0)  # before the loop runs
    readings.take(FORCE, "wrist", 10.001, 0.0)
    watch.newest = readings.newest
    assert watch.excess() == "" and watch.excess() == ""
    readings.take([900.0, 0, 0, 0, 0, 0], "wrist", 20.0, 0.0)
    readings.take(FORCE, "wrist", 20.0 + PAUSE_S, 0.0)
    watch.newest = readings.newest
    assert watch.excess() == "" and watch.excess() == ""


# Recorded --------------------------------------------------------------------------------------


def test_without_the_section_proprioception_has_no_wrench():
    with SimulatedArm("goal", render="none") as robot:
        assert robot.spec.proprio.names[-3:] == ("hand_x", "hand_y", "hand_z")


def test_readings_are_in_the_log_unchanged_with_the_time_of_the_observation(tmp_path):
    with arm(time_limit=10) as robot:
        driver = robot._sim_driver.controller
        driver.sensors.wrench = lambda: driver.world.time_s * np.array(FORCE) / 60.0
        collect(robot, HeldRandom(robot.spec, 3.0, 0), tmp_path / "log", 2, 0)
    with LogReader(tmp_path / "log") as log:
        assert log.spec.proprio.names[-6:] == NAMES
        assert log.spec.proprio.units[-6:] == ("N",) * 3 + ("Nm",) * 3
        wrenches = log.read("proprio", 0, log.length)[:, -6:]
        times_s = log.read("stamp", 0, log.length) / 1e9
    assert len(wrenches) == 22
    np.testing.assert_allclose(wrenches, times_s[:, None] * np.array(FORCE) / 60.0, rtol=1e-6)


def test_the_simulated_sensor_measures_the_weight_of_a_held_object():
    with arm(ForceTorqueSection("/w"), "lift", time_limit=200) as robot:
        from wm_nodes.robots.arm.sim.scripted import ArmExpert

        observation, expert = robot.reset(0), ArmExpert(robot.spec, robot.world)
        free_wrench = np.mean([robot.act(robot.holding()).proprio[-6:] for _ in range(10)], axis=0)
        while not observation.success:
            observation = robot.act(expert.act(robot.observe()))
        held_wrenches = [robot.act([0, 0, 0, -1.0]).proprio[-6:] for _ in range(30)][15:]
        weight_n = np.linalg.norm(np.mean(held_wrenches, axis=0)[:3]) - np.linalg.norm(
            free_wrench[:3]
        )
        assert weight_n == pytest.approx(0.06 * 9.81, rel=0.15)


# Stops -----------------------------------------------------------------------------------------


def drive(robot: SimulatedArm, seconds: float) -> bool:
    """Plan motion for a while; return whether the arm moves at its end."""
    for _ in range(round(seconds / robot.period_s)):
        robot.sense()
        robot.tick(np.float32([0.0, 0.1, 0.0]), observed_s=robot._driver.now_s())
        robot._driver.wait(robot.period_s)
    return not robot.at_rest()


@pytest.mark.parametrize("switch", ["wrench_dropped", "wrench_nan"])
def test_a_sensor_without_usable_readings_stops_the_arm_until_it_is_back(switch):
    with arm() as robot:
        robot.reset(0)
        assert drive(robot, 0.3)
        setattr(robot.switches, switch, True)
        assert drive(robot, 0.3)  # not yet
        assert not drive(robot, 1.2)
        assert (
            robot.supervisor.stopping == ("force_torque",)
            and robot.supervisor.stops["force_torque"] == 1
        )
        assert "force_torque" in robot.faults() and not robot.latched()
        if switch == "wrench_nan":
            assert "finite" in robot.faults()["force_torque"]
        setattr(robot.switches, switch, False)
        assert drive(robot, 0.3) and "force_torque" not in robot.faults()


def test_the_episode_waits_for_the_first_reading():
    with arm() as robot:
        robot.switches.wrench_dropped = True
        robot.prepare(0)
        for _ in range(20):
            robot.sense()
            robot.tick(None)
            robot._driver.wait(robot.period_s)
        assert "no reading of the force-torque sensor on /wrench" in robot.waiting_for()
        robot.switches.wrench_dropped = False
        robot.sense()
        robot.tick(None)
        assert robot.waiting_for() == ""


@pytest.mark.parametrize(("peak", "message"), PEAKS)
def test_a_peak_between_two_periods_latches_and_can_be_cleared(peak, message):
    with arm() as robot:
        robot.reset(0)
        assert drive(robot, 0.4)
        robot._sim_driver._wrenches.take(peak, "wrist", robot._driver.now_s(), 0.0)
        assert not drive(robot, 1.0)
        assert message in robot.latched()["force"]
        assert robot.clear() == "" and drive(robot, 0.4)


def test_too_much_force_stops_within_the_limits_and_latches():
    with arm() as robot:
        robot.reset(0)
        sent, send = [], robot._driver.send
        robot._driver.send = lambda setpoint: (sent.append(setpoint.position), send(setpoint))
        assert drive(robot, 0.4)
        robot.switches.wrench_bias_n = 100.0
        assert not drive(robot, 1.0)
        assert "beyond 60 N" in robot.latched()["force"]
        assert "call clear, then resume" in robot.faults()["force"]
        limits = config().limits
        acceleration = np.abs(np.diff(sent, 2, axis=0)).max(axis=0) / robot.period_s**2
        assert (acceleration <= limits.acceleration * 1.001).all()
        assert "beyond 60 N" in robot.clear()  # the cause is still there
        robot.switches.wrench_bias_n = 0.0
        assert not drive(robot, 0.5) and robot.latched()  # it stays stopped
        assert robot.clear() == "" and not robot.latched()
        assert drive(robot, 0.3)


# On topics -------------------------------------------------------------------------------------


@pytest.fixture
def write_robot_file(graph, tmp_path):
    """Return a function that writes arm_sim's YAML with a sensor and returns its path."""

    def write(**section) -> str:
        source = find_config("arm_sim")
        values = yaml.safe_load(source.read_text())
        values["model"] = str((source.parent / values["model"]).resolve())
        values["force_torque"] = {"topic": "/arm_sim/force_torque/wrench", **section}
        path = tmp_path / "robot.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


@pytest.fixture
def start_arm(graph, monkeypatch):
    pytest.importorskip("rclpy")
    from tests.wm_nodes.nodes.test_arm import ARM, ArmPlanner
    from wm_nodes.nodes.arm_sim import ArmSimNode
    from wm_nodes.nodes.robot import RobotNode
    from wm_nodes.ros.arm import endpoints

    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)

    def start(path: str):
        sim = graph.add(ArmSimNode, task="goal", camera_px=32)
        planner = ArmPlanner(graph)
        return graph.add(RobotNode, **{**ARM, "robot": path}), sim, planner

    return start


def test_what_a_sensor_publishes_is_recorded_bit_for_bit(
    graph, start_arm, write_robot_file, tmp_path
):
    from geometry_msgs.msg import WrenchStamped

    from wm_nodes.nodes.recorder import RecorderNode
    from wm_nodes.ros import messages

    topic = f"{graph.namespace}/ft"
    sensor = graph.probe.create_publisher(WrenchStamped, topic, 10)
    sent: list[tuple[int, np.ndarray]] = []

    def publish() -> None:
        now = graph.probe.get_clock().now().nanoseconds
        values = np.random.default_rng(len(sent)).normal(size=6) * 10
        msg = WrenchStamped(header=messages.header(now, "ft"))
        for vector, components in ((msg.wrench.force, values[:3]), (msg.wrench.torque, values[3:])):
            vector.x, vector.y, vector.z = components.tolist()
        sent.append((now, values.astype(np.float32)))
        sensor.publish(msg)

    graph.probe.create_timer(0.01, publish)
    graph.add(RecorderNode, log=str(tmp_path / "log"), raw=True)
    start_arm(write_robot_file(topic=topic, frame="ft"))
    graph.until(lambda: (tmp_path / "log" / "zarr.json").exists())
    enough = len(sent) + 200
    graph.until(lambda: len(sent) > enough)
    for node in reversed(list(graph.nodes)):
        graph.remove(node)
    with LogReader(tmp_path / "log") as log:
        rows = log.read("proprio", 0, log.length)[:, -6:]
        stamps = log.read("stamp", 0, log.length)
    index_of = {values.tobytes(): index for index, (_, values) in enumerate(sent)}
    indices = [index_of[row.tobytes()] for row in rows]  # every row is one that was sent
    assert len(rows) > 5 and all(a <= b for a, b in pairwise(indices))
    assert all(sent[index][0] <= stamp for index, stamp in zip(indices, stamps))


def test_over_topics_missing_readings_stop_and_too_much_force_latches(start_arm, write_robot_file):
    from rclpy.parameter import Parameter

    node, sim, planner = start_arm(write_robot_file(frame="wrist", max_force_n=60.0))
    planner.speed = (0.0, 0.04, 0.0)
    planner.graph.until(planner.moving)
    sim.set_parameters([Parameter("wrench_nan", value=True)])
    planner.graph.until(
        lambda: "force_torque" in node.diagnostics.active_faults and not planner.moving()
    )
    assert any(key.endswith("wrench/non-finite") for key in node.diagnostics.drops)
    sim.set_parameters([Parameter("wrench_nan", value=False)])
    planner.speed = (0.0, -0.04, 0.0)
    planner.graph.until(planner.moving)
    sim.set_parameters([Parameter("wrench_bias_n", value=100.0)])
    planner.graph.until(lambda: "force" in node.diagnostics.active_faults and not planner.moving())
    assert not planner.call("estop", False).success
    sim.set_parameters([Parameter("wrench_bias_n", value=0.0)])
    planner.assert_still(0.3)
    planner.release()
    planner.graph.until(planner.moving)


def test_a_wrong_frame_and_a_second_publisher_are_named(graph, start_arm, write_robot_file):
    from geometry_msgs.msg import WrenchStamped

    node, _, _ = start_arm(write_robot_file(frame="tool0"))
    graph.until(lambda: "expected 'tool0'" in str(node._robot.faults().get("force_torque")))
    graph.until(lambda: "no reading of the force-torque" in node.control.loop.waiting_for())
    other = graph.probe.create_publisher(WrenchStamped, "/arm_sim/force_torque/wrench", 10)
    graph.until(lambda: "wrench_sources" in node.diagnostics.active_faults)
    graph.probe.destroy_publisher(other)
    graph.until(lambda: "wrench_sources" not in node.diagnostics.active_faults)
