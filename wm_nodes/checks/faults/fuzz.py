"""Rubbish for every subscription of the robot node, in one process with a simulated arm."""

from __future__ import annotations

import threading
import time
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

BURST = 20  # messages between two looks of the executor
SPIN_S = 0.01
START_S = 30.0


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
    """Give invalid messages to every subscription of the robot node, as the executor would."""
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
        taken = serialize_message(msg) if subscription.raw else msg
        callback: Any = subscription.callback
        informed = len(signature(callback).parameters) > 1
        callback(taken, {}) if informed else callback(taken)


def run_fuzz(count: int, seed: int, interface: str = "position", ns: str = ROBOT) -> Fuzzed:
    """Start simulator and robot node with a command interface, plan for it, give it `count`
    messages. RuntimeError: the arm does not move before the first one.
    """
    with TemporaryDirectory(prefix="wm-fuzz-") as folder:
        return _run(count, seed, robot_file(Path(folder), interface), Path(folder), ns)


def _run(count: int, seed: int, robot: Path, folder: Path, ns: str) -> Fuzzed:
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    driver_ns = beside(ns, "arm_sim")
    config, random = read_config(robot, driver_ns), np.random.default_rng(seed)
    given: dict[str, Any] = {
        "adapter": "arm",
        "mode": "realtime",
        "task": "goal",
        "robot": str(robot),
        "driver_ns": driver_ns,
        "safety_file": str(folder / "safety.json"),
        "time_limit": 10**6,
    }
    given |= {"max_age_s": 0.0, "home": False}
    probe = Node("probe", context=context, namespace=ns)
    scene = _parameters({"task": "goal", "robot": str(robot), "robot_ns": ns})
    sim = ArmSimNode(context=context, namespace=driver_ns, parameter_overrides=scene)
    node = RobotNode(context=context, namespace=ns, parameter_overrides=_parameters(given))
    witness = Witness(probe, config)
    plans, period = topics.PLAN.always(probe), 1.0

    def plan(msg: JointState) -> None:
        step = messages.step_from_msg(msg)
        push = 0.1 * np.sin(step.stamp_ns / 1e9 / period)
        actions = np.repeat(np.array([[0.0, push, 0.0]], np.float32), 4, axis=0)
        answer = Plan(step.stamp_ns, Origin("script", "fuzz"), step.names, actions, 0.1)
        plans.publish(messages.plan_to_msg(answer))

    topics.STEPS.subscription(probe, plan)
    for each in (sim, node):
        executor.add_node(each)
    hearing = SingleThreadedExecutor(context=context)  # the witness must not miss a command
    hearing.add_node(probe)
    thread = threading.Thread(target=hearing.spin, daemon=True)
    thread.start()

    def spin(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.005)

    def moves(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not witness.moving():
            spin(0.05)
        return witness.moving()

    def release() -> None:
        """Clear latches and allow motion, as an operator does."""
        assert isinstance(node.control, RealtimeControl)
        for name in ("clear", "resume"):
            answer = node.control.loop.ask(name)
            while not answer.done():
                spin(0.02)
        witness.auditor.operator_confirmed(time.time())

    try:
        sim.begin()
        node.begin()
        if not moves(START_S):
            raise RuntimeError("the arm does not move before anything is wrong")
        for done in range(0, count, BURST):
            fuzz(node, config, random, min(BURST, count - done))
            spin(SPIN_S)
            if done % 5000 < BURST:
                release()  # invalid messages may have latched
        control = node.control
        alive = isinstance(control, RealtimeControl) and control.alive
        spin(3.0)
        release()
        again = moves(START_S)
        auditor = witness.auditor
        auditor.finish()
        refused = sum(node.diagnostics.drops.values())
    finally:
        for each in (node, sim):
            each.end()
            each.destroy_node()
        executor.shutdown(timeout_sec=1.0)
        hearing.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown(context=context)
        thread.join(2.0)
    return Fuzzed(
        count, auditor.commands, auditor.not_received, auditor.violations, refused, alive, again
    )


def _parameters(values: dict[str, Any]) -> list[Any]:
    return [Parameter(name, value=value) for name, value in values.items()]
