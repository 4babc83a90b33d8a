"""Invalid messages for every subscription of the robot node, with a simulated arm."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from wm_nodes.checks.faults.bad_messages import KINDS
from wm_nodes.checks.faults.plant import robot_file
from wm_nodes.checks.faults.witness import Witness
from wm_nodes.control.realtime_control import RealtimeControl
from wm_nodes.namespaces import ROBOT, beside
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.records import Origin, Plan
from wm_nodes.robots.arm.config.arm_config import ArmConfig, read_config
from wm_nodes.ros import camera_info, messages, topics

BURST = 20  # messages between two turns of the executor
SPIN_S = 0.01
START_S = 30.0
PUSH_S = 1.0  # time scale of the planned motion


@dataclass(frozen=True)
class Fuzzed:
    """Outcome; `violations` of commands that left the robot node."""

    messages: int
    commands: int
    not_received: int  # commands that did not reach the witness
    violations: dict[str, int]
    refused: int
    alive: bool
    moves_again: bool

    @property
    def fine(self) -> bool:
        return self.alive and self.moves_again and not self.violations


def fuzz(node: RobotNode, config: ArmConfig, random: np.random.Generator, count: int) -> None:
    """Pass invalid messages to every subscription of the robot node, as the executor does."""
    kinds = {
        config.joint_states: "joint_states",
        config.episodes.score_topic: "score",
        node.resolve_topic_name("plan"): "plan",
        node.resolve_topic_name("recorded"): "recorded",
        config.driver.speed_scaling_topic: "speed",
        **{source.topic: "image" for source in config.cameras.values() if source.topic},
        **{camera_info.beside(s.topic): "camera_info" for s in config.cameras.values() if s.topic},
    }
    if config.force_torque is not None:
        kinds[config.force_torque.topic] = "wrench"
    kinds.pop("", None)
    subscriptions = {
        s.topic_name: s for part in node.nodes for s in part.subscriptions if s.topic_name in kinds
    }
    if set(subscriptions) != set(kinds):
        raise RuntimeError(f"no subscription to {sorted(set(kinds) - set(subscriptions))}")
    names = sorted(subscriptions)
    for _ in range(count):
        topic = names[int(random.integers(len(names)))]
        msg: Any = KINDS[kinds[topic]](random, time.time_ns())
        subscription = subscriptions[topic]
        received = serialize_message(msg) if subscription.raw else msg
        callback: Any = subscription.callback
        takes_info = len(signature(callback).parameters) > 1
        callback(received, {}) if takes_info else callback(received)


def run_fuzz(count: int, seed: int, interface: str = "position", ns: str = ROBOT) -> Fuzzed:
    """Start simulator and robot node with a command interface, plan for it, send `count` messages.

    RuntimeError: the arm does not move before the first one.
    """
    with TemporaryDirectory(prefix="wm-fuzz-") as folder:
        return _run(count, seed, robot_file(Path(folder), interface), Path(folder), ns)


def _run(count: int, seed: int, robot: Path, folder: Path, ns: str) -> Fuzzed:
    random = np.random.default_rng(seed)
    with closing(_Bench(robot, folder, ns)) as bench:
        bench.begin()
        if not bench.moves(START_S):
            raise RuntimeError("the arm does not move before the first invalid message")
        for done in range(0, count, BURST):
            fuzz(bench.node, bench.config, random, min(BURST, count - done))
            bench.spin(SPIN_S)
            if done % 5000 < BURST:
                bench.release()  # invalid messages may have latched
        control = bench.node.control
        alive = isinstance(control, RealtimeControl) and control.alive
        bench.spin(3.0)
        bench.release()
        moves_again = bench.moves(START_S)
        auditor = bench.witness.auditor
        auditor.finish()
        refused = sum(bench.node.diagnostics.drops.values())
    return Fuzzed(
        messages=count,
        commands=auditor.commands,
        not_received=auditor.not_received,
        violations=auditor.violations,
        refused=refused,
        alive=alive,
        moves_again=moves_again,
    )


class _Bench:
    """Simulator, robot node, planner and witness in one process.

    The witness has a thread of its own, so that it misses no command.
    """

    def __init__(self, robot: Path, folder: Path, ns: str) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        driver_ns = beside(ns, "arm_sim")
        self.config = read_config(robot, driver_ns)
        probe = Node("probe", context=self._context, namespace=ns)
        self._sim = ArmSimNode(
            context=self._context,
            namespace=driver_ns,
            parameter_overrides=_parameters({"task": "goal", "robot": str(robot), "robot_ns": ns}),
        )
        self.node = RobotNode(
            context=self._context,
            namespace=ns,
            parameter_overrides=_parameters(_robot_parameters(robot, driver_ns, folder)),
        )
        self.witness = Witness(probe, self.config)
        self._plans = topics.PLAN.always(probe)
        topics.STEPS.subscription(probe, self._plan)
        for each in (self._sim, self.node):
            self._executor.add_node(each)
        self._witness_executor = SingleThreadedExecutor(context=self._context)
        self._witness_executor.add_node(probe)
        self._thread = threading.Thread(target=self._witness_executor.spin, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        self._sim.begin()
        self.node.begin()

    def spin(self, seconds: float) -> None:
        """Handle the events of simulator and robot node for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.005)

    def moves(self, seconds: float) -> bool:
        """Wait until the arm moves; return whether it does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.witness.moving():
            self.spin(0.05)
        return self.witness.moving()

    def release(self) -> None:
        """Clear latches and allow motion, as an operator does."""
        assert isinstance(self.node.control, RealtimeControl)
        for name in ("clear", "resume"):
            answer = self.node.control.loop.ask(name)
            while not answer.done():
                self.spin(0.02)
        self.witness.auditor.operator_confirmed(time.time())

    def close(self) -> None:
        for each in (self.node, self._sim):
            each.end()
            each.destroy_node()
        self._executor.shutdown(timeout_sec=1.0)
        self._witness_executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown(context=self._context)
        self._thread.join(2.0)

    def _plan(self, msg: JointState) -> None:
        """Answer a step with a plan that moves the arm to and fro."""
        step = messages.step_from_msg(msg)
        push = 0.1 * np.sin(step.stamp_ns / 1e9 / PUSH_S)
        actions = np.repeat(np.array([[0.0, push, 0.0]], np.float32), 4, axis=0)
        plan = Plan(step.stamp_ns, Origin("script", "fuzz"), step.names, actions, 0.1)
        self._plans.publish(messages.plan_to_msg(plan))


def _robot_parameters(robot: Path, driver_ns: str, folder: Path) -> dict[str, Any]:
    return {
        "adapter": "arm",
        "mode": "realtime",
        "task": "goal",
        "robot": str(robot),
        "driver_ns": driver_ns,
        "safety_file": str(folder / "safety.json"),
        "time_limit": 10**6,
        "max_age_s": 0.0,
        "home": False,
    }


def _parameters(values: dict[str, Any]) -> list[Any]:
    return [Parameter(name, value=value) for name, value in values.items()]
