"""Two simulated arms in one ROS domain, as real processes: each obeys its own plans and stops."""

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
SEEN = 60  # measurements: 0.6 s
NOISE_RAD = 0.03  # of measurements of an arm that stands
ORIGIN = Origin("script", "test")


class Arm:
    """One arm as others see it: its commands, measured joints, diagnostics, and plans for it."""

    def __init__(self, node: Node, side: str) -> None:
        self.ns, self.driver_ns = f"/{side}/robot", f"/{side}/arm_sim"
        self.planned = False
        self.commands: list[np.ndarray] = []
        self.commanded_at = 0.0
        self.places: list[np.ndarray] = []
        self.keys: set[str] = set()  # of all diagnostics so far
        self.hardware = ""
        self.message = ""
        listen = node.create_subscription
        command = f"{self.driver_ns}/forward_position_controller/commands"
        listen(Float64MultiArray, command, self._on_command, 100)
        listen(JointState, f"{self.driver_ns}/joint_states", self._on_joints, 100)
        listen(JointState, f"{self.ns}/step", self._on_step, topics.STEP)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, topics.REPORTS)
        self.plans = node.create_publisher(topics.PLAN.type, f"{self.ns}/plan", topics.PLAN.qos)

    def _on_command(self, msg: Float64MultiArray) -> None:
        self.commands.append(np.array(msg.data))
        self.commanded_at = time.monotonic()

    def _on_joints(self, msg: JointState) -> None:
        self.places.append(np.array(msg.position))

    def _on_step(self, msg: JointState) -> None:
        step = messages.step_from_msg(msg)
        if not self.planned:
            return
        push = 0.15 * np.sin(step.stamp_ns / 1e9)
        actions = np.repeat(np.array([[0.0, push, 0.0]], np.float32), 6, axis=0)
        self.plans.publish(
            messages.plan_to_msg(Plan(step.stamp_ns, ORIGIN, step.names, actions, 0.1))
        )

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name == f"{self.ns}: robot":
                self.keys |= {pair.key for pair in status.values}
                self.hardware, self.message = status.hardware_id, status.message

    def forget(self) -> None:
        self.commands.clear()
        self.places.clear()

    @property
    def commanded(self) -> float:
        """How far the commands since `forget` went [rad]."""
        return float(np.ptp(self.commands, axis=0).max()) if self.commands else 0.0

    @property
    def measured(self) -> float:
        return float(np.ptp(self.places, axis=0).max()) if self.places else 0.0

    @property
    def rests(self) -> bool:
        """Return whether the newest measurements are equal, and so are the newest commands, if
        there were any within the last second."""
        commands, places = self.commands[-AT_REST:], self.places[-SEEN:]
        commands = commands if time.monotonic() - self.commanded_at < 1.0 else []
        commanded = bool(commands) and float(np.ptp(commands, axis=0).max()) > STILL_RAD
        still = len(places) == SEEN and float(np.ptp(places, axis=0).max()) <= NOISE_RAD
        return still and not commanded


class Plant:
    """Simulators and robot nodes of both sides, and a node that watches and plans."""

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

    def start(self, side: str, name: str, **given: object) -> None:
        ns = f"/{side}/{name}"
        words = [sys.executable, "-m", f"wm_nodes.nodes.{name}", "--ros-args", "-r", f"__ns:={ns}"]
        for key, value in given.items():
            words += ["-p", f"{key}:={value}"]
        self.processes[side, name] = subprocess.Popen(words, env=self.env)

    def until(self, condition: Callable[[], object], seconds: float = START_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, [(arm.message, arm.commanded) for arm in self.arms]
            ended = {who: p.poll() for who, p in self.processes.items() if p.poll() is not None}
            assert not ended, ended
            self.executor.spin_once(timeout_sec=0.02)

    def wm(self, *words: str) -> tuple[int, str]:
        """Run `wm arm WORDS` while plans go on; return its exit code and output."""
        process = subprocess.Popen(
            [*WM, "arm", *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
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
    made = Plant(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_arms_in_one_domain_do_not_disturb_each_other(plant):
    left, right = plant.arms
    record = {arm: f"arm_sim@{DOMAIN}_{arm.ns[1:].replace('/', '.')}.json" for arm in plant.arms}

    # A plan for one moves only that one.
    left.planned = True
    plant.until(lambda: left.commanded > MOVED_RAD and len(right.places) > SEEN)
    plant.until(lambda: left.measured > MOVED_RAD / 2)
    assert right.commanded <= STILL_RAD and right.measured <= NOISE_RAD
    right.planned = True
    plant.until(lambda: right.commanded > MOVED_RAD)
    goals = {name for name, _ in plant.node.get_topic_names_and_types() if "goal/image" in name}
    assert goals == {"/left/robot/goal/image", "/right/robot/goal/image"}

    # Emergency stop of one leaves the other moving.
    code, text = plant.wm("stop", "--ns", left.ns)
    assert (code, text) == (0, f"{left.ns}: stopped and latched\n")
    plant.until(lambda: left.rests)
    for arm in plant.arms:
        arm.forget()
    plant.until(lambda: right.commanded > MOVED_RAD and len(left.places) > SEEN)
    assert left.commanded <= STILL_RAD and left.measured <= NOISE_RAD
    assert plant.latched() == {record[left]}

    # What may move an arm is refused where it is not clear which one; stopping never is.
    for command in ("resume", "clear", "home"):
        code, text = plant.wm(command)
        assert code == 2 and text.count("\n") == 1
        assert f"{left.ns}, {right.ns}" in text and "--ns" in text
    code, text = plant.wm("stop")
    assert code == 0
    assert sorted(text.splitlines()) == [f"{arm.ns}: stopped and latched" for arm in plant.arms]
    plant.until(lambda: left.rests and right.rests)
    assert plant.latched() == set(record.values())

    # Neither took the other for a second driver or commander.
    plant.until(lambda: all("steps" in arm.keys for arm in plant.arms))
    for arm in plant.arms:
        assert not {"faults/commander", "faults/joint_sources"} & arm.keys
        assert arm.hardware == arm.ns

    # The only one that runs needs no name.
    robot = plant.processes.pop(("right", "robot"))
    robot.terminate()
    assert robot.wait(START_S) == 0
    code, text = plant.wm("clear")
    assert text.startswith(f"{left.ns}: ")


@pytest.mark.parametrize(
    ("words", "expected_message"),
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
def test_what_the_operator_cannot_mean_is_refused_in_one_line(
    words, expected_message, monkeypatch, capsys
):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domains.EMPTY))
    assert main(["arm", *words]) == 2
    printed = capsys.readouterr()
    assert expected_message in printed.err and printed.err.count("\n") == 1 and not printed.out
