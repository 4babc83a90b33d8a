"""The gripper as an action dimension: commands, executed actions, and holding."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config
from wm_nodes.agent.delay_compensation import DelayCompensator
from wm_nodes.agent.in_process import DelayedPlans
from wm_nodes.errors import UserError
from wm_nodes.records import Step
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.gripper.action import GripperAction
from wm_nodes.robots.arm.gripper.goals import (
    ANSWER_S,
    FRESH_S,
    RETRY_S,
    Ended,
    GripperGoals,
)
from wm_nodes.robots.arm.sensors.joint_readings import JointReadings
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm
from wm_nodes.robots.arm.sim.scripted import ArmExpert, SmoothPlay
from wm_nodes.robots.hold_action import still

LOW, HIGH = float(config().limits.low[-1]), float(config().limits.high[-1])
AWAY = np.zeros(3)


def arm_config(action: str) -> ArmConfig:
    base = config()
    return replace(base, gripper=replace(base.gripper, action=action))


def arm(action: str, task: str = "lift", **options) -> SimulatedArm:
    return SimulatedArm(task, robot=arm_config(action), render="none", **options)


def commanded(arm: SimulatedArm) -> float:
    """Return where the gripper is commanded to be [m]."""
    return float(arm.motion.filter.x[-1])


def position_of(opening: float) -> float:
    return LOW + 0.5 * (opening + 1.0) * (HIGH - LOW)


# Which tasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rests", "topic", "acts"),
    [((), "/grip", True), (("lift",), "/grip", False), (("push",), "/grip", True), ((), "", False)],
)
def test_the_gripper_is_an_action_dimension_unless_it_rests_or_has_no_topic(rests, topic, acts):
    base = config()
    changed = replace(
        base,
        gripper=replace(base.gripper, topic=topic),
        action=replace(base.action, gripper_rests=rests),
    )
    assert changed.gripper_acts("lift") is acts
    with SimulatedArm("lift", robot=changed, render="none") as robot:
        assert ("gripper" in robot.spec.action.names) is acts


def test_shipped_tasks_keep_their_actions():
    dims = {}
    for task in ("reach", "goal", "push", "lift"):
        with SimulatedArm(task, render="none") as robot:
            dims[task] = robot.spec.action.names
    assert dims == {**dict.fromkeys(dims, ("x", "y", "z")), "lift": ("x", "y", "z", "gripper")}


# Executed --------------------------------------------------------------------------------------


def test_executed_speed_is_that_of_the_commanded_joint():
    with arm("velocity") as robot:
        robot.reset(0)
        for target in (1.0, 0.5, -0.3, -1.0, 0.0):
            before = commanded(robot)
            observation = robot.act([*AWAY, target])
            speed = (commanded(robot) - before) / robot.spec.control_period_s
            assert observation.executed[-1] == pytest.approx(speed / config().limits.velocity[-1])


def test_executed_opening_is_the_measured_one():
    with arm("position") as robot:
        robot.reset(0)
        for target in (1.0, 1.0, 0.2, -0.7):
            observation = robot.act([*AWAY, target])
            measured = float(observation.proprio[6])
            opening = np.clip(2.0 * (measured - LOW) / (HIGH - LOW) - 1.0, -1.0, 1.0)
            assert observation.executed[-1] == pytest.approx(opening, abs=1e-4)
            assert observation.commanded[-1] == np.float32(target)


@pytest.mark.parametrize("target", [1.0, 0.4, -0.25, -1.0])
def test_a_target_opening_is_reached_within_the_limits_and_without_overshoot(target):
    limits = config().limits
    with arm("position", time_limit=200) as robot:
        robot.reset(0)
        for _ in range(15):
            robot.act([*AWAY, 0.0])
        start, send, path = commanded(robot), robot._driver.send, []
        robot._driver.send = lambda setpoint: (path.append(setpoint.position[-1]), send(setpoint))
        for _ in range(60):
            robot.act([*AWAY, target])
        assert robot.at_rest()
    goal, tolerance = position_of(target), 2e-3 * (HIGH - LOW)
    assert path[-1] == pytest.approx(goal, abs=tolerance)
    assert min(start, goal) - tolerance <= min(path) and max(path) <= max(start, goal) + tolerance
    for order, bound in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        assert np.abs(np.diff(path, order)).max() <= bound[-1] * robot.period_s**order * 1.001


# Holding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["velocity", "position"])
@pytest.mark.parametrize("target", [-1.0, 0.3, 1.0])
def test_holding_never_moves_the_gripper(action, target):
    with arm(action, time_limit=300) as robot:
        observation = robot.reset(0)
        np.testing.assert_array_equal(observation.commanded, robot.holding())
        before = commanded(robot)
        for _ in range(3):
            observation = robot.act(robot.holding())
        assert commanded(robot) == before
        for _ in range(40):
            robot.act([*AWAY, target])
        robot.stop()
        before = commanded(robot)
        for _ in range(3):
            observation = robot.act(robot.holding())
        assert commanded(robot) == pytest.approx(before, abs=1e-9)
        np.testing.assert_allclose(observation.commanded, robot.holding(), atol=1e-6)


def test_a_step_without_an_action_commands_the_held_opening():
    with arm("position") as robot:
        robot.reset(0)
        for _ in range(10):
            robot.act([*AWAY, 0.5])
        robot.stop()
        before = commanded(robot)
        for _ in range(5):
            robot.sense()
            robot.tick(None)
            robot._driver.wait(robot.period_s)
        robot._finish_step()
        observation = robot.act(np.zeros(4))  # the step is complete: the action is not used
        opening = GripperAction(robot.config).opening(before)
        assert observation.commanded[-1] == pytest.approx(opening, abs=1e-6)
        assert commanded(robot) == before


def test_a_gripper_that_holds_an_object_keeps_squeezing_while_the_arm_holds():
    with arm("position", time_limit=300) as robot:
        observation, expert = robot.reset(0), ArmExpert(robot.spec, robot.world)
        while not observation.success:
            observation = robot.act(expert.act(observation))
        assert (
            observation.executed[-1] > -0.5 and observation.commanded[-1] == -1.0
        )  # the cube is in between
        height = robot.world.state().cube[2]
        for _ in range(30):
            observation = robot.act(still(robot.spec.action.names, observation.commanded))
        assert not robot.latched()
        assert robot.world.state().cube[2] > height - 0.02


@pytest.mark.parametrize("action", ["velocity", "position"])
def test_the_script_lifts_with_either_kind(action):
    with arm(action, time_limit=120) as robot:
        observation, expert = robot.reset(1), ArmExpert(robot.spec, robot.world)
        while not (observation.success or observation.is_last):
            observation = robot.act(expert.act(observation))
        assert observation.success


def test_a_script_without_gripper_commands_keeps_the_opening():
    robot_config = arm_config("position")
    robot_config = replace(robot_config, action=replace(robot_config.action, gripper_rests=()))
    with SimulatedArm("reach", robot=robot_config, render="none") as robot:
        observation, expert = robot.reset(0), ArmExpert(robot.spec, robot.world)
        before = commanded(robot)
        for _ in range(10):
            observation = robot.act(expert.act(observation))
        assert commanded(robot) == before


def test_play_opens_and_closes():
    with arm("position", time_limit=200) as robot:
        observation, play = robot.reset(0), SmoothPlay(robot, 0)
        play.begin(0)
        openings = []
        while not observation.is_last:
            observation = robot.act(play.choose(observation)[1])
            openings.append(observation.executed[-1])
    assert min(openings) < -0.8 and max(openings) > 0.8


def test_plans_that_are_late_or_over_keep_the_opening():
    names = ("x", "gripper_position")
    executed = np.float32([0.1, -0.6])
    delayed_plans = DelayedPlans(0.2, 0.1, names)
    plan = np.float32([[0.3, 0.5]])
    assert delayed_plans.due(0, plan, executed).tolist() == np.float32([0.0, -0.6]).tolist()
    delay = DelayCompensator(0.2)
    delay.record(Step(0, names, executed, executed, is_first=True, explore=False))
    delay.record_planning_time(0.2)
    pending, before = delay.pending_actions(plan, 0.1)
    np.testing.assert_array_equal(pending, np.float32([[0, -0.6], [0, -0.6], [0.3, 0.5], [0, 0.5]]))
    assert before == 2


# Joint states ----------------------------------------------------------------------------------


def test_readings_of_a_gripper_may_be_older_than_those_of_the_arm():
    robot_config = arm_config("velocity")
    names, limits = robot_config.limits.joints, robot_config.limits
    assert robot_config.grace_s.tolist() == pytest.approx([0.0] * 6 + [0.4])
    readings = JointReadings(names, robot_config.home, limits.continuous, robot_config.grace_s)
    readings.take(names, robot_config.home, (), 10.0, 10.0)
    reading = readings.take(names[:6], robot_config.home[:6], (), 10.3, 10.3)
    assert reading.came_s == 10.3  # fresh
    reading = readings.take(names[:6], robot_config.home[:6], (), 10.55, 10.55)
    assert (
        10.55 - reading.came_s > robot_config.watch.driver_s
    )  # beyond gripper.timeout_s the arm stops
    reading = readings.take(names[6:], robot_config.home[6:], (), 10.7, 10.7)
    assert reading.came_s == 10.55  # the arm's joints are as old as they are


# Goals of an action ----------------------------------------------------------------------------


class Server:
    """A stub of an action server: it keeps the goals, and a test answers them."""

    def __init__(self) -> None:
        self.available, self.goals, self.cancelled = True, {}, []
        self._on_answer, self._on_end = {}, {}

    def ready(self) -> bool:
        return self.available

    def send(self, number, position, on_answer, on_end) -> None:
        self.goals[number] = position
        self._on_answer[number], self._on_end[number] = on_answer, on_end

    def cancel(self, number) -> None:
        self.cancelled.append(number)

    def answer(self, number: int, accepted: bool = True) -> None:
        self._on_answer[number](number, accepted)

    def end(self, number: int, status: str = "succeeded", stalled: bool = False) -> None:
        self._on_end[number](number, Ended(status, stalled))


@pytest.fixture
def server() -> Server:
    return Server()


def goals_of(server: Server) -> GripperGoals:
    return GripperGoals(server, "/grip", deadband=0.01, period_s=0.2)


def test_goals_follow_changes_beyond_the_dead_band_at_a_bounded_rate(server):
    goals, positions = goals_of(server), np.concatenate([np.linspace(0, 1, 200), np.full(100, 1.0)])
    times = []
    for tick, position in enumerate(positions):
        before = len(server.goals)
        goals.set_target(position, 0.02 * tick)
        goals.tick(0.02 * tick)
        if len(server.goals) > before:
            times.append(0.02 * tick)
            server.answer(len(server.goals))
    assert min(np.diff(times)) >= 0.2 - 1e-9 and len(times) > 15
    assert abs(server.goals[len(server.goals)] - 1.0) <= 0.01
    count = len(server.goals)
    for tick in range(100):
        goals.set_target(1.0 + 0.009 * (-1) ** tick, 10.0 + 0.2 * tick)
        goals.tick(10.0 + 0.2 * tick)
    assert len(server.goals) == count and not goals.fault


def test_a_newer_goal_cancels_an_older_one_once_it_is_accepted(server):
    goals = goals_of(server)
    for number, position in enumerate((0.1, 0.5, 0.9), start=1):
        goals.set_target(position, float(number))
        goals.tick(float(number))
        assert not server.cancelled[number - 1 :]
        if number != 2:
            server.answer(number)
    assert server.cancelled == [1]
    server.answer(2)  # late: there is a newer one
    assert server.cancelled == [1, 2]
    server.end(1, "canceled")
    server.end(2, "aborted")
    assert not goals.fault  # they were replaced
    server.end(3)
    assert not goals.fault


@pytest.mark.parametrize("status", ["aborted", "canceled"])
def test_an_aborted_goal_is_a_fault_until_a_goal_is_accepted(server, status):
    goals = goals_of(server)
    goals.set_target(0.5, 1.0)
    goals.tick(1.0)
    server.answer(1)
    server.end(1, status)
    assert status in goals.fault and "\n" not in goals.fault
    goals.set_target(0.5, 2.0)
    goals.tick(2.0)
    assert len(server.goals) == 1  # it is not repeated
    goals.set_target(0.1, 3.0)
    goals.tick(3.0)
    server.answer(2)
    assert not goals.fault
    server.end(2, status, stalled=True)
    assert not goals.fault  # an object is held


def test_a_refused_goal_is_a_fault_and_tried_again_later(server):
    goals = goals_of(server)
    goals.set_target(0.5, 1.0)
    goals.tick(1.0)
    server.answer(1, accepted=False)
    assert "refused" in goals.fault
    goals.set_target(0.5, 1.0 + RETRY_S / 2)
    goals.tick(1.0 + RETRY_S / 2)
    assert len(server.goals) == 1
    goals.set_target(0.5, 1.0 + RETRY_S)
    goals.tick(1.0 + RETRY_S)
    assert len(server.goals) == 2 and "refused" in goals.fault
    server.answer(2)
    assert not goals.fault


def test_a_missing_or_unresponsive_server_is_a_fault_and_blocks_nothing(server):
    goals = goals_of(server)
    goals.set_target(0.5, 1.0)
    goals.tick(1.0)
    goals.tick(1.1 + ANSWER_S)
    assert "did not answer" in goals.fault
    goals.set_target(0.5, 1.2 + ANSWER_S + RETRY_S)
    goals.tick(1.2 + ANSWER_S + RETRY_S)
    assert server.goals == {1: 0.5, 2: 0.5} and "did not answer" in goals.fault
    server.answer(1)  # too late
    assert server.cancelled == [1]
    server.available = False
    goals.tick(5.0)
    assert "no server" in goals.fault
    server.available = True
    goals.set_target(0.6, 6.0)
    goals.tick(6.0)
    server.answer(3)
    assert server.goals[3] == 0.6 and not goals.fault


@pytest.mark.parametrize("cause", ["period", "server", "refused", "unresponsive"])
def test_no_goal_is_sent_when_the_opening_is_no_longer_commanded(server, cause):
    goals = goals_of(server)
    goals.set_target(0.5, 1.0)
    server.available = cause != "server"
    goals.tick(1.0)
    if cause == "period":
        server.answer(1)
        goals.set_target(0.9, 1.1)  # not due yet
        goals.tick(1.1)
    elif cause == "refused":
        server.answer(1, accepted=False)
    count = len(server.goals)
    assert count == (0 if cause == "server" else 1)
    for tick in range(1, 200):
        server.available = server.available or tick > 20
        goals.tick(1.1 + FRESH_S + 0.05 * tick)
    assert len(server.goals) == count
    goals.set_target(0.7, 20.0)  # it is commanded again
    goals.tick(20.0)
    assert server.goals[count + 1] == 0.7 and len(server.goals) == count + 1


def test_a_server_that_returns_receives_no_old_opening(server):
    goals = goals_of(server)
    server.available = False
    goals.set_target(0.5, 1.0)
    goals.tick(1.0)
    server.available = True
    goals.tick(1.05)
    assert not server.goals
    goals.set_target(0.6, 1.07)
    goals.tick(1.1)
    assert server.goals == {1: 0.6}


def test_an_opening_is_sent_when_due_within_its_time(server):
    goals = goals_of(server)
    goals.set_target(0.5, 1.0)
    goals.tick(1.0)
    server.answer(1)
    goals.set_target(0.9, 1.05)  # the last command
    for tick in range(1, 10):
        goals.tick(1.0 + 0.05 * tick)
    assert server.goals == {1: 0.5, 2: 0.9}


@pytest.mark.parametrize("opening", [math.nan, math.inf])
def test_an_opening_that_is_not_finite_is_no_goal(server, opening):
    goals = goals_of(server)
    goals.set_target(opening, 1.0)
    goals.tick(1.0)
    assert not server.goals


class Future:
    def __init__(self, result) -> None:
        self._result = result

    def result(self):
        return self._result

    def exception(self):
        return None

    def add_done_callback(self, call) -> None:
        call(self)


class Client:
    """A stub of rclpy's ActionClient; a goal is answered and ends at once."""

    newest: Client

    def __init__(self, node, kind, name) -> None:
        self.sent, Client.newest = [], self

    def server_is_ready(self) -> bool:
        return True

    def send_goal_async(self, goal) -> Future:
        self.sent.append(goal)
        ended = SimpleNamespace(status=6, result=SimpleNamespace(stalled=len(self.sent) == 1))
        return Future(SimpleNamespace(accepted=True, get_result_async=lambda: Future(ended)))


def install_action(monkeypatch, kind: str) -> None:
    """Replace control_msgs and rclpy's action client."""
    pytest.importorskip("rclpy")
    from wm_nodes.ros.arm import gripper as gripper_driver

    def goal():
        return SimpleNamespace(command=SimpleNamespace())

    module = ModuleType("control_msgs.action")
    setattr(module, kind, SimpleNamespace(Goal=goal))
    monkeypatch.setitem(sys.modules, "control_msgs", ModuleType("control_msgs"))
    monkeypatch.setitem(sys.modules, "control_msgs.action", module)
    monkeypatch.setattr(gripper_driver, "ActionClient", Client)


def test_the_timer_sends_no_goal_for_an_old_setpoint(monkeypatch):
    install_action(monkeypatch, "GripperCommand")
    from wm_nodes.ros.arm import gripper as gripper_driver

    now = [100.0]
    monkeypatch.setattr(gripper_driver, "time", SimpleNamespace(monotonic=lambda: now[0]))
    arm, ticks = config(), []
    gripper = replace(arm.gripper, interface="gripper_command", action_type="GripperCommand")
    node = SimpleNamespace(create_timer=lambda period_s, call, clock: ticks.append(call))
    output = gripper_driver._ActionOutput(node, arm, gripper, "/grip")
    setpoint = SimpleNamespace(stop=(), position=arm.home)
    output.send(setpoint)
    now[0] += FRESH_S + 0.01
    ticks[0]()
    assert not Client.newest.sent
    output.send(setpoint)
    ticks[0]()
    assert [goal.command.position for goal in Client.newest.sent] == [arm.home[-1]]


@pytest.mark.parametrize("kind", ["GripperCommand", "ParallelGripperCommand"])
@pytest.mark.parametrize("effort", [0.0, 40.0])
def test_a_goal_has_the_fields_of_its_action(monkeypatch, kind, effort):
    install_action(monkeypatch, kind)
    from wm_nodes.ros.arm import gripper as gripper_driver

    gripper = replace(config().gripper, action_type=kind, max_effort=effort)
    client = gripper_driver.ActionGoals(None, gripper, "/grip", "r")
    answers, ends = [], []
    for number in (1, 2):
        client.send(
            number,
            0.02,
            lambda *arguments: answers.append(arguments),
            lambda *arguments: ends.append(arguments),
        )
    assert answers == [(1, True), (2, True)]
    assert ends == [(1, Ended("aborted", True)), (2, Ended("aborted", False))]
    command = Client.newest.sent[0].command
    if kind == "GripperCommand":
        assert (command.position, command.max_effort) == (0.02, effort)
    else:
        assert list(command.name) == ["finger_joint"] and list(command.position) == [0.02]
        assert list(command.effort) == ([effort] if effort else [])


def test_without_control_msgs_the_error_is_one_line(monkeypatch):
    pytest.importorskip("rclpy")
    from wm_nodes.ros.arm.gripper import goal_type

    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.setitem(sys.modules, "control_msgs.action", None)
    with pytest.raises(UserError, match=r"control_msgs/action/GripperCommand.*Install") as error:
        goal_type("GripperCommand", "r")
    assert "\n" not in str(error.value)
