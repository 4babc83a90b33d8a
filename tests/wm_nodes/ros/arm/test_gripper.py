"""Commands of a gripper on ROS topics, and the report when it has no controller."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from tests.wm_nodes.nodes.test_arm import ARM, ArmPlanner
from tests.wm_nodes.ros.arm.test_driver import HOME, bench, joint_state, setpoint
from wm_nodes.errors import UserError
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.robots.arm.config.arm_config import find_config
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.robots.arm.safety.stopping import Stop
from wm_nodes.ros.arm import endpoints

__all__ = ["bench"]
COMMAND_TYPES = {"position": Float64MultiArray, "trajectory": JointTrajectory}


def gripper_config(bench, interface: str, **changes):
    arm_config = bench.config()
    return replace(arm_config, gripper=replace(arm_config.gripper, interface=interface, **changes))


def add_controller(bench, interface: str) -> list:
    commands: list = []
    topic = f"{bench.base}/driver/gripper"
    bench.graph.probe.create_subscription(COMMAND_TYPES[interface], topic, commands.append, 50)
    return commands


def test_a_position_command_is_that_of_the_gripper(bench):
    commands, driver = (
        add_controller(bench, "position"),
        bench.driver(gripper_config(bench, "position")),
    )
    sent = setpoint(periods=3)
    bench.until(lambda: commands, every=lambda: driver.send(sent))
    assert list(commands[-1].data) == [sent.position[6]]


@pytest.mark.parametrize("periods", [0, 1, 30, 400])
def test_a_gripper_trajectory_is_valid_for_a_trajectory_controller(bench, periods):
    commands, driver = (
        add_controller(bench, "trajectory"),
        bench.driver(gripper_config(bench, "trajectory")),
    )
    sent = setpoint(periods=periods)
    bench.until(lambda: commands, every=lambda: driver.send(sent))
    msg = commands[-1]
    assert list(msg.joint_names) == ["finger_joint"] and msg.points
    times_s = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in msg.points]
    assert times_s[0] > 0 and (np.diff(times_s) > 0).all()
    assert all(len(p.positions) == len(p.velocities) == 1 for p in msg.points)
    assert list(msg.points[-1].velocities) == [0.0]
    last_position = sent.stop.x[-1, 6] if periods else sent.position[6]
    assert list(msg.points[-1].positions) == [last_position]


@pytest.mark.parametrize("interface", COMMAND_TYPES)
def test_a_gripper_without_a_controller_is_reported_and_does_not_stop_the_arm(bench, interface):
    bench.add_controller()
    driver, states_pub = bench.driver(gripper_config(bench, interface)), bench.joint_states_pub()

    def publish() -> None:
        states_pub.publish(joint_state())

    bench.until(lambda: "gripper" in driver.reports(), every=publish)
    assert "got no subscriber" in driver.reports()["gripper"]
    assert "gripper" not in driver.faults()
    add_controller(bench, interface)
    bench.until(lambda: "gripper" not in driver.reports(), every=publish)


def test_the_simulated_gripper_follows_a_trajectory_to_its_end(bench):
    sim = bench.graph.add(ArmSimNode, render="none")
    topic = "/arm_sim/gripper_trajectory_controller/joint_trajectory"
    arm_config = gripper_config(bench, "trajectory", topic=topic)
    driver = bench.driver(replace(arm_config, joint_states="/arm_sim/joint_states"))
    bench.until(lambda: driver.joints() is not None and "gripper" not in driver.reports())
    x = HOME + np.linspace(0.0, 1.0, 41)[1:, None] * np.array([0.0] * 6 + [0.03])
    stop = Stop(x, np.zeros_like(x), np.zeros_like(x))
    driver.send(Setpoint(x[0], x[0] * 0, x[0] * 0, (), True, False, stop))
    bench.until(lambda: abs(driver.joints().position[6] - 0.03) < 0.003)
    assert sim.diagnostics.facts.get("refused", 0) == 0


def test_goals_without_control_msgs_are_refused_at_the_start_in_one_line(bench):
    try:
        import control_msgs  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"Install ros-.ROS_DISTRO-control-msgs") as error:
            bench.driver(gripper_config(bench, "gripper_command"))
        assert "\n" not in str(error.value)
    else:
        driver = bench.driver(gripper_config(bench, "gripper_command"))
        bench.until(lambda: "no server" in driver.reports().get("gripper", ""))


def test_a_planned_opening_is_reached_and_kept_when_plans_end(graph, monkeypatch, tmp_path):
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)
    source = find_config("arm_sim")
    values = yaml.safe_load(source.read_text())
    values["model"] = str((source.parent / values["model"]).resolve())
    values["gripper"]["action"] = "position"
    values["action"]["gripper_rests"] = []
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(values))
    graph.add(ArmSimNode, task="goal", camera_px=32)
    planner, openings = ArmPlanner(graph), []
    topic = f"/arm_sim/{values['gripper']['topic']}"
    graph.probe.create_subscription(
        Float64MultiArray, topic, lambda msg: openings.append(msg.data[0]), 50
    )
    planner.speed = (0.0, 0.0, 0.0, 0.5)
    graph.add(RobotNode, **{**ARM, "robot": str(path)})
    graph.until(lambda: planner.steps and abs(planner.steps[-1].executed[3] - 0.5) < 0.05)
    assert planner.steps[-1].names == ("x", "y", "z", "gripper_position")
    graph.until(lambda: len(openings) > 20 and np.ptp(openings[-20:]) == 0.0)
    planner.speed = None  # the plan ends: holding keeps the opening
    last_opening = openings[-1]
    graph.until(lambda: planner.steps[-1].signals[2] > 0)  # a step without a plan
    count = len(openings)
    graph.until(lambda: len(openings) > count + 20)
    assert set(openings[count:]) == {last_opening}
    assert planner.steps[-1].commanded[3] == pytest.approx(0.5, abs=5e-3)
