"""The gripper as an action dimension: what is asked, what is done, and what it means to hold."""

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
    given = config()
    return replace(given, gripper=replace(given.gripper, action=action))


def arm(action: str, task: str = "lift", **options) -> SimulatedArm:
    return SimulatedArm(task, robot=arm_config(action), render="none", **options)


def commanded(arm: SimulatedArm) -> float:
    """Return where the gripper is commanded to be [m]."""
    return float(arm.motion.filter.x[-1])


def place(opening: float) -> float:
    return LOW + 0.5 * (opening + 1.0) * (HIGH - LOW)


# Which tasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rests", "topic", "acts"),
    [((), "/grip", True), (("lift",), "/grip", False), (("push",), "/grip", True), ((), "", False)],
)
def test_the_gripper_acts_unless_it_rests_or_takes_no_commands(rests, topic, acts):
    given = config()
    changed = replace(
        given,
        gripper=replace(given.gripper, topic=topic),
        action=replace(given.action, gripper_rests=rests),
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


def test_executed_speed_is_what_the_commanded_joint_did():
    with arm("velocity") as robot:
        robot.reset(0)
        for wanted in (1.0, 0.5, -0.3, -1.0, 0.0):
            before = commanded(robot)
            seen = robot.act([*AWAY, wanted])
            speed = (commanded(robot) - before) / robot.spec.control_period_s
            assert seen.executed[-1] == pytest.approx(speed / config().limits.velocity[-1])


def test_executed_opening_is_what_was_measured():
    with arm("position") as robot:
        robot.reset(0)
        for wanted in (1.0, 1.0, 0.2, -0.7):
            seen = robot.act([*AWAY, wanted])
            measured = float(seen.proprio[6])
            opening = np.clip(2.0 * (measured - LOW) / (HIGH - LOW) - 1.0, -1.0, 1.0)
            assert seen.executed[-1] == pytest.approx(opening, abs=1e-4)
            assert seen.commanded[-1] == np.float32(wanted)


@pytest.mark.parametrize("wanted", [1.0, 0.4, -0.25, -1.0])
def test_a_wanted_opening_is_reached_within_the_limits_and_without_overshoot(wanted):
    limits = config().limits
    with arm("position", time_limit=200) as robot:
        robot.reset(0)
        for _ in range(15):
            robot.act([*AWAY, 0.0])
        start, send, path = commanded(robot), robot._driver.send, []
        robot._driver.send = lambda setpoint: (path.append(setpoint.position[-1]), send(setpoint))
        for _ in range(60):
            robot.act([*AWAY, wanted])
        assert robot.at_rest()
    goal, slack = place(wanted), 2e-3 * (HIGH - LOW)
    assert path[-1] == pytest.approx(goal, abs=slack)
    assert min(start, goal) - slack <= min(path) and max(path) <= max(start, goal) + slack
    for order, most in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        assert np.abs(np.diff(path, order)).max() <= most[-1] * robot.period_s**order * 1.001


# Holding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["velocity", "position"])
@pytest.mark.parametrize("wanted", [-1.0, 0.3, 1.0])
def test_holding_never_moves_the_gripper(action, wanted):
    with arm(action, time_limit=300) as robot:
        seen = robot.reset(0)
        np.testing.assert_array_equal(seen.commanded, robot.holding())
        before = commanded(robot)
        for _ in range(3):
            seen = robot.act(robot.holding())
        assert commanded(robot) == before
        for _ in range(40):
            robot.act([*AWAY, wanted])
        robot.stop()
        before = commanded(robot)
        for _ in range(3):
            seen = robot.act(robot.holding())
        assert commanded(robot) == pytest.approx(before, abs=1e-9)
        np.testing.assert_allclose(seen.commanded, robot.holding(), atol=1e-6)


def test_a_step_without_an_action_asks_for_the_opening_that_is_held():
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
        seen = robot.act(np.zeros(4))  # the step is complete: the action is not used
        opening = GripperAction(robot.config).opening(before)
        assert seen.commanded[-1] == pytest.approx(opening, abs=1e-6)
        assert commanded(robot) == before


def test_a_gripper_that_holds_an_object_keeps_squeezing_while_the_arm_holds():
    with arm("position", time_limit=300) as robot:
        seen, expert = robot.reset(0), ArmExpert(robot.spec, robot.world)
        while not seen.success:
            seen = robot.act(expert.act(seen))
        assert seen.executed[-1] > -0.5 and seen.commanded[-1] == -1.0  # the cube is in between
        height = robot.world.state().cube[2]
        for _ in range(30):
            seen = robot.act(still(robot.spec.action.names, seen.commanded))
        assert not robot.latched()
        assert robot.world.state().cube[2] > height - 0.02


@pytest.mark.parametrize("action", ["velocity", "position"])
def test_the_script_lifts_with_either_kind(action):
    with arm(action, time_limit=120) as robot:
        seen, expert = robot.reset(1), ArmExpert(robot.spec, robot.world)
        while not (seen.success or seen.is_last):
            seen = robot.act(expert.act(seen))
        assert seen.success


def test_a_script_that_leaves_the_gripper_alone_keeps_its_opening():
    given = arm_config("position")
    given = replace(given, action=replace(given.action, gripper_rests=()))
    with SimulatedArm("reach", robot=given, render="none") as robot:
        seen, expert = robot.reset(0), ArmExpert(robot.spec, robot.world)
        before = commanded(robot)
        for _ in range(10):
            seen = robot.act(expert.act(seen))
        assert commanded(robot) == before


def test_play_opens_and_closes():
    with arm("position", time_limit=200) as robot:
        seen, play = robot.reset(0), SmoothPlay(robot, 0)
        play.begin(0)
        openings = []
        while not seen.is_last:
            seen = robot.act(play.choose(seen)[1])
            openings.append(seen.executed[-1])
    assert min(openings) < -0.8 and max(openings) > 0.8


def test_plans_that_are_late_or_over_keep_the_opening():
    names = ("x", "gripper_position")
    done = np.float32([0.1, -0.6])
    coming = DelayedPlans(0.2, 0.1, names)
    plan = np.float32([[0.3, 0.5]])
    assert coming.due(0, plan, done).tolist() == np.float32([0.0, -0.6]).tolist()
    delay = DelayCompensator(0.2)
    delay.record(Step(0, names, done, done, is_first=True, explore=False))
    delay.record_planning_time(0.2)
    underway, before = delay.pending_actions(plan, 0.1)
    np.testing.assert_array_equal(
        underway, np.float32([[0, -0.6], [0, -0.6], [0.3, 0.5], [0, 0.5]])
    )
    assert before == 2


# Joint states ----------------------------------------------------------------------------------


def test_a_gripper_may_be_silent_longer_than_the_arm():
    given = arm_config("velocity")
    names, limits = given.limits.joints, given.limits
    assert given.grace_s.tolist() == pytest.approx([0.0] * 6 + [0.4])
    readings = JointReadings(names, given.home, limits.continuous, given.grace_s)
    readings.take(names, given.home, (), 10.0, 10.0)
    found = readings.take(names[:6], given.home[:6], (), 10.3, 10.3)
    assert found.came_s == 10.3  # fresh
    found = readings.take(names[:6], given.home[:6], (), 10.55, 10.55)
    assert 10.55 - found.came_s > given.watch.driver_s  # beyond gripper.timeout_s the arm stops
    found = readings.take(names[6:], given.home[6:], (), 10.7, 10.7)
    assert found.came_s == 10.55  # the arm's joints are as old as they are


# Goals of an action ----------------------------------------------------------------------------


class Server:
    """An action server at the driver's edge: notes goals and lets a test answer them."""

    def __init__(self) -> None:
        self.there, self.goals, self.cancelled = True, {}, []
        self._answered, self._ended = {}, {}

    def ready(self) -> bool:
        return self.there

    def send(self, number, position, answered, ended) -> None:
        self.goals[number] = position
        self._answered[number], self._ended[number] = answered, ended

    def cancel(self, number) -> None:
        self.cancelled.append(number)

    def answer(self, number: int, accepted: bool = True) -> None:
        self._answered[number](number, accepted)

    def end(self, number: int, status: str = "succeeded", stalled: bool = False) -> None:
        self._ended[number](number, Ended(status, stalled))


@pytest.fixture
def server() -> Server:
    return Server()


def goals_of(server: Server) -> GripperGoals:
    return GripperGoals(server, "/grip", deadband=0.01, period_s=0.2)


def test_goals_follow_changes_beyond_the_dead_band_at_most_so_often(server):
    goals, wanted = goals_of(server), np.concatenate([np.linspace(0, 1, 200), np.full(100, 1.0)])
    times = []
    for tick, position in enumerate(wanted):
        before = len(server.goals)
        goals.set_target(position, 0.02 * tick)
        goals.tick(0.02 * tick)
        if len(server.goals) > before:
            times.append(0.02 * tick)
            server.answer(len(server.goals))
    assert min(np.diff(times)) >= 0.2 - 1e-9 and len(times) > 15
    assert abs(server.goals[len(server.goals)] - 1.0) <= 0.01
    sent = len(server.goals)
    for tick in range(100):
        goals.set_target(1.0 + 0.009 * (-1) ** tick, 10.0 + 0.2 * tick)
        goals.tick(10.0 + 0.2 * tick)
    assert len(server.goals) == sent and not goals.fault


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


def test_a_server_that_is_silent_or_away_is_a_fault_and_blocks_nothing(server):
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
    server.there = False
    goals.tick(5.0)
    assert "no server" in goals.fault
    server.there = True
    goals.set_target(0.6, 6.0)
    goals.tick(6.0)
    server.answer(3)
    assert server.goals[3] == 0.6 and not goals.fault


@pytest.mark.parametrize("what", ["period", "server", "refused", "silent"])
def test_nothing_is_sent_once_the_opening_is_not_commanded_any_more(server, what):
    goals = goals_of(server)
    goals.set_target(0.5, 1.0)
    server.there = what != "server"
    goals.tick(1.0)
    if what == "period":
        server.answer(1)
        goals.set_target(0.9, 1.1)  # not due yet
        goals.tick(1.1)
    elif what == "refused":
        server.answer(1, accepted=False)
    sent = len(server.goals)
    assert sent == (0 if what == "server" else 1)
    for tick in range(1, 200):
        server.there = server.there or tick > 20
        goals.tick(1.1 + FRESH_S + 0.05 * tick)
    assert len(server.goals) == sent
    goals.set_target(0.7, 20.0)  # it is commanded again
    goals.tick(20.0)
    assert server.goals[sent + 1] == 0.7 and len(server.goals) == sent + 1


def test_a_server_that_was_away_for_a_moment_gets_no_opening_of_before(server):
    goals = goals_of(server)
    server.there = False
    goals.set_target(0.5, 1.0)
    goals.tick(1.0)
    server.there = True
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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_opening_that_is_not_finite_is_no_goal(server, bad):
    goals = goals_of(server)
    goals.set_target(bad, 1.0)
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
    """rclpy's ActionClient, as far as it is used; a goal is answered and ended at once."""

    made: Client

    def __init__(self, node, kind, name) -> None:
        self.sent, Client.made = [], self

    def server_is_ready(self) -> bool:
        return True

    def send_goal_async(self, goal) -> Future:
        self.sent.append(goal)
        ended = SimpleNamespace(status=6, result=SimpleNamespace(stalled=len(self.sent) == 1))
        return Future(SimpleNamespace(accepted=True, get_result_async=lambda: Future(ended)))


def install_action(monkeypatch, kind: str) -> None:
    """Stand in for control_msgs and for rclpy's client of its actions."""
    pytest.importorskip("rclpy")
    from wm_nodes.ros.arm import gripper as gripper_driver

    def goal():
        return SimpleNamespace(command=SimpleNamespace())

    module = ModuleType("control_msgs.action")
    setattr(module, kind, SimpleNamespace(Goal=goal))
    monkeypatch.setitem(sys.modules, "control_msgs", ModuleType("control_msgs"))
    monkeypatch.setitem(sys.modules, "control_msgs.action", module)
    monkeypatch.setattr(gripper_driver, "ActionClient", Client)


def test_the_timer_sends_nothing_for_a_setpoint_of_before(monkeypatch):
    install_action(monkeypatch, "GripperCommand")
    from wm_nodes.ros.arm import gripper as gripper_driver

    now = [100.0]
    monkeypatch.setattr(gripper_driver, "time", SimpleNamespace(monotonic=lambda: now[0]))
    given, ticks = config(), []
    gripper = replace(given.gripper, interface="gripper_command", action_type="GripperCommand")
    node = SimpleNamespace(create_timer=lambda period_s, call, clock: ticks.append(call))
    output = gripper_driver._ActionOutput(node, given, gripper, "/grip")
    here = SimpleNamespace(stop=(), position=given.home)
    output.send(here)
    now[0] += FRESH_S + 0.01
    ticks[0]()
    assert not Client.made.sent
    output.send(here)
    ticks[0]()
    assert [goal.command.position for goal in Client.made.sent] == [given.home[-1]]


@pytest.mark.parametrize("kind", ["GripperCommand", "ParallelGripperCommand"])
@pytest.mark.parametrize("effort", [0.0, 40.0])
def test_a_goal_has_the_fields_of_its_action(monkeypatch, kind, effort):
    install_action(monkeypatch, kind)
    from wm_nodes.ros.arm import gripper as gripper_driver

    gripper = replace(config().gripper, action_type=kind, max_effort=effort)
    client = gripper_driver.ActionGoals(None, gripper, "/grip", "r")
    answers, ends = [], []
    for number in (1, 2):
        client.send(number, 0.02, lambda *given: answers.append(given), lambda *g: ends.append(g))
    assert answers == [(1, True), (2, True)]
    assert ends == [(1, Ended("aborted", True)), (2, Ended("aborted", False))]
    command = Client.made.sent[0].command
    if kind == "GripperCommand":
        assert (command.position, command.max_effort) == (0.02, effort)
    else:
        assert list(command.name) == ["finger_joint"] and list(command.position) == [0.02]
        assert list(command.effort) == ([effort] if effort else [])


def test_without_control_msgs_one_line_says_so(monkeypatch):
    pytest.importorskip("rclpy")
    from wm_nodes.ros.arm.gripper import goal_type

    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.setitem(sys.modules, "control_msgs.action", None)
    with pytest.raises(UserError, match=r"control_msgs/action/GripperCommand.*Install") as error:
        goal_type("GripperCommand", "r")
    assert "\n" not in str(error.value)
