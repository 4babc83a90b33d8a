"""The end of the robot node as a process: signals in motion, and the arm's last command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from tests.wm_nodes.conftest import graph
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.records import Origin, Plan
from wm_nodes.robots.arm.config.arm_config import find_config
from wm_nodes.ros import messages, topics

pytestmark = pytest.mark.realtime

__all__ = ["graph"]
MOVING = 0.02  # rad/s, or rad per period divided by it
END_S = 120.0


def robot_file(folder, interface: str) -> tuple[str, str]:
    """Return the path of the simulated arm's YAML with another interface, and its command topic."""
    shipped = find_config("arm_sim")
    config = yaml.safe_load(shipped.read_text())
    config["model"] = str(shipped.parent / config["model"])
    topic = f"/arm_sim/forward_{interface}_controller/commands"
    config["command"] = {"interface": interface, "topic": topic}
    path = folder / "arm.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path), topic


@pytest.mark.parametrize("interface", ["position", "velocity"])
@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGINT, signal.SIGTERM]])
def test_signals_in_motion_leave_the_arm_at_rest(graph, tmp_path, interface, signals) -> None:
    """A second signal does not cut the stop short."""
    path, topic = robot_file(tmp_path, interface)
    sim = graph.add(ArmSimNode, robot=path, task="goal", camera_px=32)
    commands: list[np.ndarray] = []
    graph.probe.create_subscription(
        Float64MultiArray, topic, lambda msg: commands.append(np.array(msg.data)), 1000
    )
    plans = topics.PLAN.always(graph.probe)

    def send_plan(msg: JointState) -> None:
        step = messages.step_from_msg(msg)
        actions = np.repeat(np.float32([[0.0, 0.15, 0.0]]), 10, axis=0)
        plan = Plan(step.stamp_ns, Origin("script", "test"), step.names, actions, 0.1)
        plans.publish(messages.plan_to_msg(plan))

    topics.STEPS.subscription(graph.probe, send_plan)
    command = [sys.executable, "-m", "wm_nodes.nodes.robot", "--ros-args", "-r"]
    command += [f"__ns:={graph.namespace}"]
    parameters = {"adapter": "arm", "robot": path, "mode": "realtime", "task": "goal"}
    parameters |= {
        "time_limit": 100000,
        "max_age_s": 0.0,
        "safety_file": str(tmp_path / "safety.json"),
    }
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]

    def speed() -> float:
        if interface == "velocity":
            return float(np.abs(commands[-1]).max()) if commands else 0.0
        return float(np.abs(np.diff(commands[-2:], axis=0)).max(initial=0.0)) * 50.0

    with subprocess.Popen(command) as process:
        graph.until(lambda: speed() > 5 * MOVING, END_S)
        for number in signals:
            process.send_signal(number)
            graph.spin(0.03)
        end = time.monotonic() + END_S
        while process.poll() is None and time.monotonic() < end:
            graph.spin(0.02)
        assert process.poll() == 0
    graph.until(lambda: speed() == 0.0)
    before = sim._driver.world.positions()
    graph.spin(0.5)
    assert speed() == 0.0
    assert np.abs(sim._driver.world.positions() - before)[:6].max() < 0.01
