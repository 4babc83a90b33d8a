"""Two simulated arms in one ROS domain, as real processes: each has its own plans and stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from tests import domains
from wm_nodes.cli.main import main
from wm_nodes.records import Origin, Plan
from wm_nodes.ros import messages, topics

pytestmark = pytest.mark.realtime

DOMAIN = domains.PROCESSES
ENV = {
    **os.environ,
    "ROS_DOMAIN_ID": str(DOMAIN),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "OMP_NUM_THREADS": "1",
}
WM = [sys.executable, "-c", "from wm_nodes.cli.main import main; raise SystemExit(main())"]
SIDES = ("left", "right")
START_S = 180.0  # a loaded machine starts slowly
MOVED_RAD, STILL_RAD = 0.15, 1e-9
AT_REST = 3  # equal commands: an arm at rest after a stop gets no more
RECENT = 60  # measurements: 0.6 s
NOISE_RAD = 0.03  # of measurements of an arm that stands
ORIGIN = Origin("script", "test")


class Arm:
    """Topics of one arm: its commands, measured joints, diagnostics, and plans sent to it."""

    def __init__(self, node: Node, side: str) -> None:
        self.ns, self.driver_ns = f"/{side}/robot", f"/{side}/arm_sim"
        self.send_plans = False
        self.commands: list[np.ndarray] = []
        self.commanded_at = 0.0
        self.positions: list[np.ndarray] = []
        self.keys: set[str] = set()  # of all diagnostics so far
        self.hardware = ""
        self.message = ""
        subscribe = node.create_subscription
        command = f"{self.driver_ns}/forward_position_controller/commands"
        subscribe(Float64MultiArray, command, self._on_command, 100)
        subscribe(JointState, f"{self.driver_ns}/joint_states", self._on_joints, 100)
        subscribe(JointState, f"{self.ns}/step", self._on_step, topics.STEP)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, topics.REPORTS)
        self.plans = node.create_publisher(topics.PLAN.type, f"{self.ns}/plan", topics.PLAN.qos)

    def _on_command(self, msg: Float64MultiArray) -> None:
        self.commands.append(np.array(msg.data))
        self.commanded_at = time.monotonic()

    def _on_joints(self, msg: JointState) -> None:
        self.positions.append(np.array(msg.position))

    def _on_step(self, msg: JointState) -> None:
        step = messages.step_from_msg(msg)
        if not self.send_plans:
            return
        velocity = 0.15 * np.sin(step.stamp_ns / 1e9)
        actions = np.repeat(np.array([[0.0, velocity, 0.0]], np.float32), 6, axis=0)
        self.plans.publish(
            messages.plan_to_msg(Plan(step.stamp_ns, ORIGIN, step.names, actions, 0.1))
        )

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name == f"{self.ns}: robot":
                self.keys |= {pair.key for pair in status.values}
                self.hardware, self.message = status.hardware_id, status.message

    def clear(self) -> None:
        self.commands.clear()
        self.positions.clear()

    @property
    def commanded(self) -> float:
        """Largest range of a joint's commands since `clear` [rad]."""
        return float(np.ptp(self.commands, axis=0).max()) if self.commands else 0.0

    @property
    def measured_range(self) -> float:
        return float(np.ptp(self.positions, axis=0).max()) if self.positions else 0.0

    @property
    def at_rest(self) -> bool:
        """Return whether the newest measurements are equal, and so are the newest commands, if
        there were any within the last second."""
        commands, positions = self.commands[-AT_REST:], self.positions[-RECENT:]
        commands = commands if time.monotonic() - self.commanded_at < 1.0 else []
        commanded = bool(commands) and float(np.ptp(commands, axis=0).max()) > STILL_RAD
        still = len(positions) == RECENT and float(np.ptp(positions, axis=0).max()) <= NOISE_RAD
        return still and not commanded


class Plant:
    """Simulators and robot nodes of both sides, and a node that monitors them and sends plans."""

    def __init__(self, folder) -> None:
        self.env = {**ENV, "XDG_STATE_HOME": str(folder)}
        self.records = folder / "wm_nodes" / "robots"
        self.processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = Node("watch", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.left, self.right = self.arms = [Arm(self.node, side) for side in SIDES]
        for side in SIDES:
            self.start(side, "arm_sim", task="goal", camera_px=32)
            self.start(
                side, "robot", adapter="arm", mode="realtime", task="goal", home="false",
                driver_ns=f"/{side}/arm_sim", time_limit=100000, max_age_s=0.0,
            )  # fmt: skip

    def start(self, side: str, name: str, **parameters: object) -> None:
        ns = f"/{side}/{name}"
        command = [sys.executable, "-m", f"wm_nodes.nodes.{name}"]
        command += ["--ros-args", "-r", f"__ns:={ns}"]
        for parameter, value in parameters.items():
            command += ["-p", f"{parameter}:={value}"]
        self.processes[side, name] = subprocess.Popen(command, env=self.env)

    def until(self, condition: Callable[[], object], seconds: float = START_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, [(arm.message, arm.commanded_range) for arm in self.arms]
            ended = {key: p.poll() for key, p in self.processes.items() if p.poll() is not None}
            assert not ended, ended
            self.executor.spin_once(timeout_sec=0.02)

    def wm(self, *arguments: str) -> tuple[int, str]:
        """Run `wm arm ARGUMENTS` while plans are sent; return its exit code and output."""
        process = subprocess.Popen(
            [*WM, "arm", *arguments], env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.until(lambda: process.poll() is not None)
        return process.returncode, process.communicate()[0]

    def latched(self) -> set[str]:
        """Return the names of the records on the disk that hold an emergency stop."""
        files = self.records.glob("*.json")
        return {file.name for file in files if "estop" in json.loads(file.read_text())["latched"]}

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def plant(tmp_path) -> Iterator[Plant]:
    started_plant = Plant(tmp_path)
    yield started_plant
    started_plant.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_arms_in_one_domain_do_not_disturb_each_other(plant):
    left, right = plant.arms
    record = {arm: f"arm_sim@{DOMAIN}_{arm.ns[1:].replace('/', '.')}.json" for arm in plant.arms}

    # A plan for one arm moves only that arm.
    left.send_plans = True
    plant.until(lambda: left.commanded_range > MOVED_RAD and len(right.positions) > RECENT)
    plant.until(lambda: left.measured_range > MOVED_RAD / 2)
    assert right.commanded_range <= STILL_RAD and right.measured_range <= NOISE_RAD
    right.send_plans = True
    plant.until(lambda: right.commanded_range > MOVED_RAD)
    goals = {name for name, _ in plant.node.get_topic_names_and_types() if "goal/image" in name}
    assert goals == {"/left/robot/goal/image", "/right/robot/goal/image"}

    # Emergency stop of one leaves the other moving.
    code, text = plant.wm("stop", "--ns", left.ns)
    assert (code, text) == (0, f"{left.ns}: stopped and latched\n")
    plant.until(lambda: left.at_rest)
    for arm in plant.arms:
        arm.clear()
    plant.until(lambda: right.commanded_range > MOVED_RAD and len(left.positions) > RECENT)
    assert left.commanded_range <= STILL_RAD and left.measured_range <= NOISE_RAD
    assert plant.latched() == {record[left]}

    # Commands that may move an arm are refused without a namespace; stopping never is.
    for command in ("resume", "clear", "home"):
        code, text = plant.wm(command)
        assert code == 2 and text.count("\n") == 1
        assert f"{left.ns}, {right.ns}" in text and "--ns" in text
    code, text = plant.wm("stop")
    assert code == 0
    assert sorted(text.splitlines()) == [f"{arm.ns}: stopped and latched" for arm in plant.arms]
    plant.until(lambda: left.at_rest and right.at_rest)
    assert plant.latched() == set(record.values())

    # Neither reported the other as a second driver or commander.
    plant.until(lambda: all("steps" in arm.keys for arm in plant.arms))
    for arm in plant.arms:
        assert not {"faults/commander", "faults/joint_sources"} & arm.keys
        assert arm.hardware == arm.ns

    # A single running arm needs no namespace.
    robot = plant.processes.pop(("right", "robot"))
    robot.terminate()
    assert robot.wait(START_S) == 0
    code, text = plant.wm("clear")
    assert text.startswith(f"{left.ns}: ")


@pytest.mark.parametrize(
    ("arguments", "expected_message"),
    [
        (["stop", "--ns", "left arm"], "--ns: got 'left arm', expected "),
        (["stop", "--all", "--ns", "/a"], "--all: got --ns, expected wm arm stop --all"),
        (["resume", "--all"], "--all: got wm arm resume, expected wm arm stop --all"),
        (["goal", "--here", "--ns", "1"], "--ns: got '1', expected "),
        (["check", "--ns", "1"], "--ns: got '1', expected "),
        (["check", "--driver-ns", "a b"], "--driver-ns: got 'a b', expected "),
        (["stop", "--ns", "/nowhere", "--wait-s", "0.1"], "offers /nowhere/estop within 0.1 s"),
        (["stop", "--wait-s", "0.1"], "no robot node runs within 0.1 s"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, expected_message, monkeypatch, capsys):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domains.EMPTY))
    assert main(["arm", *arguments]) == 2
    printed = capsys.readouterr()
    assert expected_message in printed.err and printed.err.count("\n") == 1 and not printed.out
