"""A gripper's commands on ROS topics: what its controller gets, and what is said without one."""

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
from tests.wm_nodes.ros.arm.test_driver import HOME, bench, setpoint, state
from wm_nodes.errors import UserError
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.robots.arm.config.arm_config import find_config
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.robots.arm.safety.stopping import Stop
from wm_nodes.ros.arm import endpoints

__all__ = ["bench"]
KINDS = {"position": Float64MultiArray, "trajectory": JointTrajectory}


def gripper_config(bench, interface: str, **changes):
    given = bench.config()
    return replace(given, gripper=replace(given.gripper, interface=interface, **changes))


def controller(bench, interface: str) -> list:
    commands: list = []
    topic = f"{bench.base}/driver/gripper"
    bench.graph.probe.create_subscription(KINDS[interface], topic, commands.append, 50)
    return commands


def test_positions_are_those_of_the_gripper(bench):
    commands, bus = controller(bench, "position"), bench.bus(gripper_config(bench, "position"))
    given = setpoint(periods=3)
    bench.until(lambda: commands, every=lambda: bus.send(given))
    assert list(commands[-1].data) == [given.position[6]]


@pytest.mark.parametrize("periods", [0, 1, 30, 400])
def test_a_gripper_trajectory_is_what_a_trajectory_controller_takes(bench, periods):
    commands, bus = controller(bench, "trajectory"), bench.bus(gripper_config(bench, "trajectory"))
    given = setpoint(periods=periods)
    bench.until(lambda: commands, every=lambda: bus.send(given))
    msg = commands[-1]
    assert list(msg.joint_names) == ["finger_joint"] and msg.points
    due = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in msg.points]
    assert due[0] > 0 and (np.diff(due) > 0).all()
    assert all(len(p.positions) == len(p.velocities) == 1 for p in msg.points)
    assert list(msg.points[-1].velocities) == [0.0]
    end = given.stop.x[-1, 6] if periods else given.position[6]
    assert list(msg.points[-1].positions) == [end]


@pytest.mark.parametrize("interface", KINDS)
def test_a_gripper_without_a_controller_is_reported_and_does_not_stop_the_arm(bench, interface):
    bench.controller()
    bus, driver = bench.bus(gripper_config(bench, interface)), bench.states()

    def publish() -> None:
        driver.publish(state())

    bench.until(lambda: "gripper" in bus.reports(), every=publish)
    assert "got no subscriber" in bus.reports()["gripper"]
    assert "gripper" not in bus.faults()
    controller(bench, interface)
    bench.until(lambda: "gripper" not in bus.reports(), every=publish)


def test_the_simulated_gripper_follows_a_trajectory_to_its_end(bench):
    sim = bench.graph.add(ArmSimNode, render="none")
    topic = "/arm_sim/gripper_trajectory_controller/joint_trajectory"
    given = gripper_config(bench, "trajectory", topic=topic)
    bus = bench.bus(replace(given, joint_states="/arm_sim/joint_states"))
    bench.until(lambda: bus.joints() is not None and "gripper" not in bus.reports())
    x = HOME + np.linspace(0.0, 1.0, 41)[1:, None] * np.array([0.0] * 6 + [0.03])
    stop = Stop(x, np.zeros_like(x), np.zeros_like(x))
    bus.send(Setpoint(x[0], x[0] * 0, x[0] * 0, (), True, False, stop))
    bench.until(lambda: abs(bus.joints().position[6] - 0.03) < 0.003)
    assert sim.diagnostics.facts.get("refused", 0) == 0


def test_goals_without_control_msgs_are_refused_at_the_start_in_one_line(bench):
    try:
        import control_msgs  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"Install ros-.ROS_DISTRO-control-msgs") as error:
            bench.bus(gripper_config(bench, "gripper_command"))
        assert "\n" not in str(error.value)
    else:
        bus = bench.bus(gripper_config(bench, "gripper_command"))
        bench.until(lambda: "no server" in bus.reports().get("gripper", ""))


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
    brain, openings = ArmPlanner(graph), []
    topic = f"/arm_sim/{values['gripper']['topic']}"
    graph.probe.create_subscription(
        Float64MultiArray, topic, lambda msg: openings.append(msg.data[0]), 50
    )
    brain.speed = (0.0, 0.0, 0.0, 0.5)
    graph.add(RobotNode, **{**ARM, "robot": str(path)})
    graph.until(lambda: brain.steps and abs(brain.steps[-1].executed[3] - 0.5) < 0.05)
    assert brain.steps[-1].names == ("x", "y", "z", "gripper_position")
    graph.until(lambda: len(openings) > 20 and np.ptp(openings[-20:]) == 0.0)
    brain.speed = None  # the plan ends: holding keeps the opening
    held = openings[-1]
    graph.until(lambda: brain.steps[-1].signals[2] > 0)  # a step without a plan
    seen = len(openings)
    graph.until(lambda: len(openings) > seen + 20)
    assert set(openings[seen:]) == {held}
    assert brain.steps[-1].commanded[3] == pytest.approx(0.5, abs=5e-3)
