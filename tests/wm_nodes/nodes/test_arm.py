"""The robot node with an arm on topics: real nodes, real messages, a simulated driver."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tests.wm_nodes.robots.arm.arms import config
from wm_nodes.checks.faults.fuzz import fuzz
from wm_nodes.control import realtime_control
from wm_nodes.errors import UserError
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.records import Origin, Plan
from wm_nodes.ros import messages, topics
from wm_nodes.ros.arm import endpoints

ARM = {
    "adapter": "arm",
    "mode": "realtime",
    "task": "goal",
    "time_limit": 100_000,
    "max_age_s": 0.0,
}
PLANNER = Origin("mwm_cpu", "cem", 3)
LOW, HIGH = config().limits.low, config().limits.high


class ArmPlanner:
    """Publishes a plan for every step; receives the arm's commands."""

    def __init__(self, graph) -> None:
        self.graph, self.speed, self.points = graph, (0.0, 0.1, 0.0), 4
        self.steps: list = []
        self.commands: list = []
        self.commanded_s = 0.0
        self.plans = topics.PLAN.always(graph.probe)
        topics.STEPS.subscription(graph.probe, self._on_step)
        command = config().command.topic
        graph.probe.create_subscription(Float64MultiArray, command, self._on_command, 100)

    def _on_command(self, msg: Float64MultiArray) -> None:
        self.commands.append(np.array(msg.data))
        self.commanded_s = time.monotonic()

    def _on_step(self, msg: JointState) -> None:
        step = messages.step_from_msg(msg)
        self.steps.append(step)
        if self.speed is not None:
            actions = np.repeat(np.float32([self.speed]), self.points, axis=0)
            plan = Plan(step.stamp_ns, PLANNER, step.names, actions, 0.1)
            self.plans.publish(messages.plan_to_msg(plan))

    def call(self, name: str, on: bool | None = None):
        """Call a service of the robot node; returns its response."""
        kind = Trigger if on is None else SetBool
        client = self.graph.probe.create_client(kind, name)
        self.graph.until(client.service_is_ready)
        request = Trigger.Request() if on is None else SetBool.Request(data=on)
        future = client.call_async(request)
        self.graph.until(future.done)
        return future.result()

    def release(self) -> None:
        """Clear what is latched and allow motion, as an operator does."""
        self.graph.until(
            lambda: self.call("estop", False).success and self.call("resume").success, 30.0
        )

    def at_rest(self) -> bool:
        """Were the last 20 commands equal?"""
        return len(self.commands) > 20 and not np.diff(self.commands[-20:], axis=0).any()

    def assert_still(self, seconds: float = 0.7) -> None:
        """Assert that nothing moves for a while."""
        self.graph.until(self.settled)
        before = len(self.commands)
        self.graph.spin(seconds)
        positions = self.commands[max(before - 1, 0) :]
        assert not len(positions) or not np.ptp(positions, axis=0).any()

    def settled(self) -> bool:
        """Is it at rest, or has no command come for a while? Messages may come in bursts."""
        return self.at_rest() or time.monotonic() - self.commanded_s > 0.5

    def moving(self) -> bool:
        """Do the last commands differ, and is the newest one recent?"""
        if len(self.commands) < 4 or time.monotonic() - self.commanded_s > 0.3:
            return False
        return np.abs(np.diff(self.commands[-3:], axis=0)).max() > 1e-4


@pytest.fixture
def arm(graph, monkeypatch):
    """Return a function that starts simulator, planner, robot node and, by default, an episode."""

    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)  # no other commander is here

    def start(awaits_episode=True, **parameters):
        sim = graph.add(ArmSimNode, task="goal", camera_px=32)
        planner = ArmPlanner(graph)
        node = graph.add(RobotNode, **{**ARM, **parameters})
        if awaits_episode:
            graph.until(lambda: planner.steps)
        return node, sim, planner

    return start


def test_it_executes_and_reports_plans_and_stops_without_them(arm) -> None:
    node, _, planner = arm()
    planner.graph.until(lambda: planner.steps[-1].executed[1] > 0.08)
    newest = planner.steps[-1]
    assert (newest.weights, newest.source) == (3, 1)
    assert newest.signal_names == ("latency_ms", "interventions", "stopped")
    assert 0 < newest.signals[0] < 1000
    planner.speed = None
    planner.graph.until(lambda: "plan" in node.diagnostics.active_faults and planner.at_rest())
    before = len(planner.steps)
    planner.graph.spin(0.5)
    assert len(planner.steps) > before and planner.at_rest()  # it still publishes observations
    planner.speed = (0.0, -0.1, 0.0)
    planner.graph.until(planner.moving)
    planner.graph.until(lambda: "plan" not in node.diagnostics.active_faults)


def test_the_last_plan_is_executed_to_its_end(arm) -> None:
    node, _, planner = arm()
    planner.points = 10
    planner.graph.until(planner.moving)
    planner.graph.spin(0.3)
    planner.speed = None
    before, stops = len(planner.commands), node._robot.supervisor.stops.copy()
    planner.graph.until(planner.at_rest)
    new_stops = node._robot.supervisor.stops - stops
    moves = np.abs(np.diff(planner.commands[before:], axis=0)).max(axis=1) > 1e-4
    # Periods of 20 ms: a second was planned. A late period or a silent source ends the plan.
    assert moves.sum() > 30 or new_stops.keys() - {"plan"}


def test_estop_latches_over_topics(arm) -> None:
    node, _, planner = arm()
    planner.graph.until(planner.moving)
    assert planner.call("estop", True).success
    planner.graph.until(lambda: not planner.moving() and "estop" in node.diagnostics.active_faults)
    assert not planner.call("resume").success  # latched
    planner.graph.until(lambda: planner.call("estop", False).success)
    planner.assert_still()  # cleared, and plans come: nothing moves before the operator's call
    assert planner.call("resume").success
    planner.graph.until(planner.moving)


@pytest.mark.parametrize(
    ("fault_switch", "value", "fault"),
    [
        ("camera_dropped", True, "camera"),
        ("camera_frozen", True, "frozen"),
        ("driver_dead", True, "driver"),
        ("protective_stop", True, "tracking"),
    ],
)
def test_a_fault_stops_the_arm_until_it_ends(arm, fault_switch, value, fault) -> None:
    node, sim, planner = arm()
    planner.speed = (0.0, 0.15, 0.0) if fault == "tracking" else (0.0, 0.04, 0.0)
    planner.graph.until(planner.moving)
    sim.set_parameters([Parameter(fault_switch, value=value)])

    def stopped() -> bool:
        """On a stalled machine the protective stop may be detected as another fault first."""
        latched = fault == "tracking" and node._robot.latched()
        return bool(fault in node.diagnostics.active_faults or latched)

    planner.graph.until(lambda: stopped() and planner.settled())
    sim.set_parameters([Parameter(fault_switch, value=False)])
    if fault == "tracking":
        planner.graph.spin(0.5)
        assert not planner.moving()  # the operator has to clear it
        planner.release()
    planner.speed = (0.0, -0.1, 0.0)
    planner.graph.until(planner.moving)
    planner.graph.until(lambda: fault not in node.diagnostics.active_faults)


def test_a_dry_run_sends_no_commands(arm) -> None:
    _, _, planner = arm(dry_run=True, home=False)
    planner.graph.until(lambda: planner.steps[-1].executed[1] > 0.05)
    assert not planner.commands


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"mode": "lockstep"}, "mode:=realtime"),
        ({"robot": "ur5"}, "Did you mean 'ur5e'"),
        ({"robot": "/nowhere.yaml"}, "expected a YAML file"),
    ],
)
def test_a_wrong_arm_is_refused_in_one_line(graph, parameters, expected) -> None:
    with pytest.raises(UserError) as error:
        graph.add(RobotNode, **{**ARM, **parameters})
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_no_message_moves_the_arm_out_of_bounds_or_ends_the_node(arm) -> None:
    node, _, planner = arm()
    planner.graph.until(planner.moving)
    for seed in range(10):
        fuzz(node, config(), np.random.default_rng(seed), 200)
        planner.graph.spin(0.05)
    for position in planner.commands:
        assert (position >= LOW[:6]).all() and (position <= HIGH[:6]).all()
    assert np.abs(np.diff(planner.commands, axis=0)).max() <= config().limits.velocity.max() * 0.02
    assert node.control.alive
    planner.release()
    planner.speed = (0.0, -0.1, 0.0)
    planner.graph.until(planner.moving)


def test_a_latch_survives_the_process_and_needs_clear_and_resume(arm, tmp_path) -> None:
    """The process is killed: the next one has only the record."""
    record = tmp_path / "safety.json"
    node, _, planner = arm(safety_file=str(record))
    planner.graph.until(planner.moving)
    assert planner.call("estop", True).success
    saved = record.read_text()  # on the disk when the call has answered
    planner.graph.remove(node)
    record.write_text(saved)  # as kill -9 would have left it
    planner.graph.spin(0.3)
    planner.commands.clear()
    node = planner.graph.add(RobotNode, **{**ARM, "safety_file": str(record)})
    planner.graph.until(lambda: "estop" in node.diagnostics.active_faults)
    planner.graph.spin(1.0)
    assert not planner.commands
    assert not planner.call("resume").success
    planner.graph.until(lambda: planner.call("estop", False).success)
    planner.assert_still()
    assert planner.call("resume").success
    planner.graph.until(planner.moving)


def test_a_node_that_did_not_end_cleanly_needs_resume(arm, tmp_path) -> None:
    record = tmp_path / "safety.json"
    record.write_text('{"latched": {}, "running": true}')
    node, _, planner = arm(safety_file=str(record), awaits_episode=False)
    planner.graph.until(lambda: "restarted" in node.diagnostics.active_faults.get("waiting", ""))
    planner.assert_still(1.0)
    assert not planner.steps
    assert planner.call("resume").success
    planner.graph.until(planner.moving)


def test_a_clean_end_leaves_a_record_without_latches(arm, tmp_path) -> None:
    record = tmp_path / "safety.json"
    node, _, planner = arm(safety_file=str(record))
    assert '"running": true' in record.read_text()
    planner.graph.remove(node)
    assert '"running": false' in record.read_text()


def test_a_plan_before_the_first_episode_is_dropped(arm) -> None:
    node, _, planner = arm(awaits_episode=False, await_planner_s=1000.0)
    actions = np.float32([[0.1, 0.0, 0.0]])
    msg = messages.plan_to_msg(Plan(1, PLANNER, ("x", "y", "z"), actions, 0.1))
    for _ in range(3):
        node._on_plan(messages.plan_from_msg(msg))
    assert node.diagnostics.drops["plan/phase"] == 3
    planner.graph.spin(0.2)
    assert node.control.alive


def test_reset_ends_the_episode_in_the_control_loop(arm) -> None:
    node, _, planner = arm()
    planner.graph.until(planner.moving)
    assert planner.call("reset").success
    planner.graph.until(lambda: planner.steps[-1].is_last or any(s.is_last for s in planner.steps))
    before = len(planner.steps)
    planner.graph.until(lambda: any(s.is_first for s in planner.steps[before:]))
    assert node.control.alive


def test_a_plan_that_is_too_long_is_dropped(arm) -> None:
    node, _, planner = arm()
    planner.graph.until(planner.moving)
    point = JointTrajectoryPoint(positions=[0.0, 0.1, 0.0])
    long_plan = JointTrajectory(joint_names=["x", "y", "z"], points=[point] * 20_000)
    long_plan.header.frame_id = str(PLANNER)
    speed, planner.speed = planner.speed, None  # a newer plan would take its place in the queue
    planner.plans.publish(long_plan)
    planner.graph.until(lambda: node.diagnostics.drops["plan/size"])
    planner.speed = speed
    planner.graph.until(planner.moving)


def test_without_a_clock_the_arm_rests_and_no_episode_begins(arm) -> None:
    """use_sim_time without /clock: images cannot be dated, so that no episode begins."""
    node, _, planner = arm(use_sim_time=True, awaits_episode=False)
    planner.graph.until(lambda: "camera_clock" in node.diagnostics.active_faults)
    planner.assert_still(1.0)
    assert not planner.steps


def test_real_time_that_is_required_and_not_allowed_is_refused(graph, monkeypatch) -> None:
    monkeypatch.setattr(realtime_control, "realtime_allowed", lambda: False)
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)
    with pytest.raises(UserError, match="rtprio"):
        graph.add(RobotNode, **{**ARM, "require_realtime": True})
