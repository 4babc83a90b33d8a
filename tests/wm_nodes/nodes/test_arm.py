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


class Brain:
    """Answers every step with a plan; hears the arm's commands."""

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

    def rests(self) -> bool:
        """Has it been told the same place for a while?"""
        return len(self.commands) > 20 and not np.diff(self.commands[-20:], axis=0).any()

    def still(self, seconds: float = 0.7) -> None:
        """Assert that nothing moves for a while."""
        self.graph.until(self.settled)
        before = len(self.commands)
        self.graph.spin(seconds)
        moved = self.commands[max(before - 1, 0) :]
        assert not len(moved) or not np.ptp(moved, axis=0).any()

    def settled(self) -> bool:
        """Does it rest, or has it been told nothing for a while? Messages may come in bursts."""
        return self.rests() or time.monotonic() - self.commanded_s > 0.5

    def moving(self) -> bool:
        """Do the last commands differ, and was there one just now?"""
        if len(self.commands) < 4 or time.monotonic() - self.commanded_s > 0.3:
            return False
        return np.abs(np.diff(self.commands[-3:], axis=0)).max() > 1e-4


@pytest.fixture
def arm(graph, monkeypatch):
    """Return (robot node, simulator, brain), with the arm in an episode unless told otherwise."""

    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)  # no other commander is here

    def made(awaits_episode=True, **parameters):
        sim = graph.add(ArmSimNode, task="goal", camera_px=32)
        brain = Brain(graph)
        node = graph.add(RobotNode, **{**ARM, **parameters})
        if awaits_episode:
            graph.until(lambda: brain.steps)
        return node, sim, brain

    return made


def test_it_moves_as_planned_says_so_and_stops_without_plans(arm) -> None:
    node, _, brain = arm()
    brain.graph.until(lambda: brain.steps[-1].executed[1] > 0.08)
    newest = brain.steps[-1]
    assert (newest.weights, newest.source) == (3, 1)
    assert newest.signal_names == ("latency_ms", "interventions", "stopped")
    assert 0 < newest.signals[0] < 1000
    brain.speed = None
    brain.graph.until(lambda: "plan" in node.diagnostics.active_faults and brain.rests())
    before = len(brain.steps)
    brain.graph.spin(0.5)
    assert len(brain.steps) > before and brain.rests()  # it goes on to say what it sees
    brain.speed = (0.0, -0.1, 0.0)
    brain.graph.until(brain.moving)
    brain.graph.until(lambda: "plan" not in node.diagnostics.active_faults)


def test_the_rest_of_the_last_plan_is_played_to_its_end(arm) -> None:
    node, _, brain = arm()
    brain.points = 10
    brain.graph.until(brain.moving)
    brain.graph.spin(0.3)
    brain.speed = None
    before, stops = len(brain.commands), node._robot.supervisor.stops.copy()
    brain.graph.until(brain.rests)
    more = node._robot.supervisor.stops - stops
    moves = np.abs(np.diff(brain.commands[before:], axis=0)).max(axis=1) > 1e-4
    # Periods of 20 ms: a second was planned. A late period or a silent source ends the plan.
    assert moves.sum() > 30 or more.keys() - {"plan"}


def test_estop_latches_over_topics(arm) -> None:
    node, _, brain = arm()
    brain.graph.until(brain.moving)
    assert brain.call("estop", True).success
    brain.graph.until(lambda: not brain.moving() and "estop" in node.diagnostics.active_faults)
    assert not brain.call("resume").success  # latched
    brain.graph.until(lambda: brain.call("estop", False).success)
    brain.still()  # cleared, and plans come: nothing moves before the operator's call
    assert brain.call("resume").success
    brain.graph.until(brain.moving)


@pytest.mark.parametrize(
    ("switch", "value", "fault"),
    [
        ("camera_dropped", True, "camera"),
        ("camera_frozen", True, "frozen"),
        ("driver_dead", True, "driver"),
        ("protective_stop", True, "tracking"),
    ],
)
def test_a_fault_stops_the_arm_and_its_end_lets_it_go(arm, switch, value, fault) -> None:
    node, sim, brain = arm()
    brain.speed = (0.0, 0.15, 0.0) if fault == "tracking" else (0.0, 0.04, 0.0)
    brain.graph.until(brain.moving)
    sim.set_parameters([Parameter(switch, value=value)])

    def stopped() -> bool:
        """On a stalled machine the protective stop may be found under another name first."""
        latched = fault == "tracking" and node._robot.latched()
        return bool(fault in node.diagnostics.active_faults or latched)

    brain.graph.until(lambda: stopped() and brain.settled())
    sim.set_parameters([Parameter(switch, value=False)])
    if fault == "tracking":
        brain.graph.spin(0.5)
        assert not brain.moving()  # a person has to say so
        brain.release()
    brain.speed = (0.0, -0.1, 0.0)
    brain.graph.until(brain.moving)
    brain.graph.until(lambda: fault not in node.diagnostics.active_faults)


def test_a_dry_run_does_everything_but_command(arm) -> None:
    _, _, brain = arm(dry_run=True, home=False)
    brain.graph.until(lambda: brain.steps[-1].executed[1] > 0.05)
    assert not brain.commands


@pytest.mark.parametrize(
    ("parameters", "right"),
    [
        ({"mode": "lockstep"}, "mode:=realtime"),
        ({"robot": "ur5"}, "Did you mean 'ur5e'"),
        ({"robot": "/nowhere.yaml"}, "expected a YAML file"),
    ],
)
def test_a_wrong_arm_is_refused_in_one_line(graph, parameters, right) -> None:
    with pytest.raises(UserError) as error:
        graph.add(RobotNode, **{**ARM, **parameters})
    assert right in str(error.value) and "\n" not in str(error.value)


def test_nothing_heard_moves_the_arm_out_of_bounds_or_kills_the_node(arm) -> None:
    node, _, brain = arm()
    brain.graph.until(brain.moving)
    for seed in range(10):
        fuzz(node, config(), np.random.default_rng(seed), 200)
        brain.graph.spin(0.05)
    for place in brain.commands:
        assert (place >= LOW[:6]).all() and (place <= HIGH[:6]).all()
    assert np.abs(np.diff(brain.commands, axis=0)).max() <= config().limits.velocity.max() * 0.02
    assert node.control.alive
    brain.release()
    brain.speed = (0.0, -0.1, 0.0)
    brain.graph.until(brain.moving)


def test_a_latch_survives_the_process_and_needs_clear_and_resume(arm, tmp_path) -> None:
    """The process ends without a word: the record is all that the next one has."""
    record = tmp_path / "safety.json"
    node, _, brain = arm(safety_file=str(record))
    brain.graph.until(brain.moving)
    assert brain.call("estop", True).success
    kept = record.read_text()  # on the disk when the call has answered
    brain.graph.remove(node)
    record.write_text(kept)  # as kill -9 would have left it
    brain.graph.spin(0.3)
    brain.commands.clear()
    node = brain.graph.add(RobotNode, **{**ARM, "safety_file": str(record)})
    brain.graph.until(lambda: "estop" in node.diagnostics.active_faults)
    brain.graph.spin(1.0)
    assert not brain.commands
    assert not brain.call("resume").success
    brain.graph.until(lambda: brain.call("estop", False).success)
    brain.still()
    assert brain.call("resume").success
    brain.graph.until(brain.moving)


def test_a_node_that_did_not_end_cleanly_needs_resume(arm, tmp_path) -> None:
    record = tmp_path / "safety.json"
    record.write_text('{"latched": {}, "running": true}')
    node, _, brain = arm(safety_file=str(record), awaits_episode=False)
    brain.graph.until(lambda: "restarted" in node.diagnostics.active_faults.get("waiting", ""))
    brain.still(1.0)
    assert not brain.steps
    assert brain.call("resume").success
    brain.graph.until(brain.moving)


def test_a_clean_end_leaves_a_record_without_latches(arm, tmp_path) -> None:
    record = tmp_path / "safety.json"
    node, _, brain = arm(safety_file=str(record))
    assert '"running": true' in record.read_text()
    brain.graph.remove(node)
    assert '"running": false' in record.read_text()


def test_a_plan_before_the_first_episode_is_dropped(arm) -> None:
    node, _, brain = arm(awaits_episode=False, await_planner_s=1000.0)
    actions = np.float32([[0.1, 0.0, 0.0]])
    msg = messages.plan_to_msg(Plan(1, PLANNER, ("x", "y", "z"), actions, 0.1))
    for _ in range(3):
        node._on_plan(messages.plan_from_msg(msg))
    assert node.diagnostics.drops["plan/phase"] == 3
    brain.graph.spin(0.2)
    assert node.control.alive


def test_reset_ends_the_episode_in_the_control_loop(arm) -> None:
    node, _, brain = arm()
    brain.graph.until(brain.moving)
    assert brain.call("reset").success
    brain.graph.until(lambda: brain.steps[-1].is_last or any(s.is_last for s in brain.steps))
    before = len(brain.steps)
    brain.graph.until(lambda: any(s.is_first for s in brain.steps[before:]))
    assert node.control.alive


def test_an_absurdly_long_plan_is_not_read(arm) -> None:
    node, _, brain = arm()
    brain.graph.until(brain.moving)
    point = JointTrajectoryPoint(positions=[0.0, 0.1, 0.0])
    long = JointTrajectory(joint_names=["x", "y", "z"], points=[point] * 20_000)
    long.header.frame_id = str(PLANNER)
    speed, brain.speed = brain.speed, None  # a newer plan would take its place in the queue
    brain.plans.publish(long)
    brain.graph.until(lambda: node.diagnostics.drops["plan/size"])
    brain.speed = speed
    brain.graph.until(brain.moving)


def test_a_clock_that_stands_still_moves_nothing_and_renews_nothing(arm) -> None:
    """use_sim_time without /clock: images cannot be dated, so that no episode begins."""
    node, _, brain = arm(use_sim_time=True, awaits_episode=False)
    brain.graph.until(lambda: "camera_clock" in node.diagnostics.active_faults)
    brain.still(1.0)
    assert not brain.steps


def test_real_time_that_is_required_and_not_allowed_is_refused(graph, monkeypatch) -> None:
    monkeypatch.setattr(realtime_control, "realtime_allowed", lambda: False)
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)
    with pytest.raises(UserError, match="rtprio"):
        graph.add(RobotNode, **{**ARM, "require_realtime": True})
