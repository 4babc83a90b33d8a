"""The robot node: lock-step and real time, plans checked, services, episodes, the end of a run."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from std_msgs.msg import Header, UInt64
from std_srvs.srv import SetBool, Trigger

from wm_nodes.errors import UserError
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.records import Origin, Plan
from wm_nodes.ros import messages, topics

POINT = {"adapter": "tests.wm_nodes.point_robot:PointRobot", "time_limit": 3, "retry_s": 0.1}
ACTOR = Origin("mwm_cpu", "actor", 7)


class Planner:
    """Receives steps and publishes plans."""

    def __init__(self, graph) -> None:
        self.graph = graph
        self.steps = graph.subscribe(topics.STEPS, messages.step_from_msg)
        self.images = graph.subscribe(topics.IMAGE_RAW, messages.image_from_msg, camera="top")
        self.joints = graph.subscribe(topics.JOINT_STATES, messages.joints_from_msg)
        self.plans = topics.PLAN.always(graph.probe)

    def plan(self, push: float = 0.5, stamp_ns: int | None = None, **overrides) -> None:
        """Publish a plan for the newest step (or for another stamp)."""
        stamp_ns = self.steps[-1].stamp_ns if stamp_ns is None else stamp_ns
        plan = Plan(stamp_ns, ACTOR, ("push",), np.float32([[push]]), 0.1)
        msg = messages.plan_to_msg(plan)
        for name, value in overrides.items():
            setattr(msg, name, value)
        self.plans.publish(msg)

    def execute(self, steps: int, push: float = 0.5) -> None:
        """Publish a plan for each of so many observations."""
        for _ in range(steps):
            self.graph.until(lambda: self.steps and not self.steps[-1].is_last)
            newest = self.steps[-1].stamp_ns
            self.plan(push)
            self.graph.until(lambda newest=newest: self.steps[-1].stamp_ns > newest)

    def position(self, stamp_ns: int) -> float:
        """Return the position of the point in the observation of that stamp."""
        self.graph.until(lambda: any(j[0] == stamp_ns for j in self.joints))
        return next(float(j[2][0]) for j in self.joints if j[0] == stamp_ns)

    def distinct_steps(self) -> list:
        """Return the steps without repeated ones."""
        return list({step.stamp_ns: step for step in self.steps}.values())


@pytest.fixture
def start_robot(graph):
    """Return a function that starts a robot node and a planner, matched with each other."""

    def start(**parameters):
        planner = Planner(graph)
        node = graph.add(RobotNode, **{**POINT, **parameters})
        graph.matched(planner.plans)
        graph.until(lambda: planner.steps or parameters.get("mode") == "realtime")
        return node, planner

    return start


def call(graph, name: str, kind, **request):
    client = graph.probe.create_client(kind, name)
    assert client.wait_for_service(5.0)
    future = client.call_async(kind.Request(**request))
    graph.until(future.done)
    return future.result()


def test_an_observation_that_is_not_finite_ends_the_node_as_a_users_mistake(
    start_robot, monkeypatch
) -> None:
    """UserError: exit code 2, with which a graph ends and starts nothing again."""
    node, planner = start_robot()
    monkeypatch.setattr(node._robot, "_proprio", lambda: np.float32([np.nan]))
    with pytest.raises(UserError, match=r"observation of point: proprio: got \[nan\], expected"):
        planner.execute(1)
    assert len(planner.distinct_steps()) == 1


def test_all_messages_of_one_observation_have_one_stamp(graph, start_robot) -> None:
    _, planner = start_robot()
    planner.execute(2)
    stamps = {s.stamp_ns for s in planner.steps}
    graph.until(lambda: {i[0] for i in planner.images} == {j[0] for j in planner.joints} == stamps)
    assert min(stamps) == 100_000_000  # one control period after the start


def test_a_step_has_the_outcome_of_the_plan_before_it(graph, start_robot) -> None:
    _, planner = start_robot()
    planner.execute(2, push=5.0)
    first, second, third = planner.distinct_steps()[:3]
    assert first.is_first and not first.executed.any() and first.weights == -1
    assert second.commanded == [5.0] and second.executed == [1.0]  # clipped to its limits
    assert (second.weights, second.source) == (7, 0)
    assert third.reward == -abs(planner.position(third.stamp_ns))


def test_lockstep_repeats_an_observation_until_a_plan_arrives(graph, start_robot) -> None:
    node, planner = start_robot()
    graph.spin(0.6)
    assert len(planner.steps) >= 3 and len(planner.distinct_steps()) == 1
    assert node.runner.counts.decisions == 0


def test_a_missing_plan_is_a_fault_until_it_arrives(graph, start_robot) -> None:
    node, planner = start_robot(timeout_s=0.2)
    graph.until(lambda: "plan" in node.diagnostics.active_faults)
    planner.execute(1)
    assert "plan" not in node.diagnostics.active_faults and node.diagnostics.faults["plan"] >= 1


def test_a_repeated_plan_is_executed_once(graph, start_robot) -> None:
    node, planner = start_robot()
    stamp = planner.steps[0].stamp_ns
    for _ in range(3):
        planner.plan(stamp_ns=stamp)
        graph.spin(0.1)
    graph.until(lambda: node.diagnostics.drops["plan/stamp"] == 2)
    assert node.runner.counts.decisions == 1


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"joint_names": ["pull"]}, "plan/dimensions"),
        ({"joint_names": ["push", "pull"]}, "plan/size"),
        ({"points": []}, "plan/size"),
        ({"nan": True}, "plan/non-finite"),
        ({"stamp_ns": 1}, "plan/stamp"),
    ],
)
def test_a_wrong_plan_is_never_executed(graph, start_robot, overrides: dict, reason: str) -> None:
    node, planner = start_robot()
    if overrides.pop("nan", False):
        planner.plan(push=float("nan"))
    else:
        planner.plan(**overrides)
    graph.until(lambda: node.diagnostics.drops[reason] == 1)
    assert node.runner.counts.decisions == 0 and len(planner.distinct_steps()) == 1
    planner.execute(1)  # the next valid one is


def test_a_run_ends_after_its_episodes_with_code_0(graph, start_robot) -> None:
    node, planner = start_robot(episodes=2)
    planner.execute(3)
    graph.until(lambda: planner.steps[-1].is_first)
    planner.execute(3)
    graph.until(node.finished.done)
    assert node.exit_code == 0 and node.diagnostics.facts["done"] == "true"
    last_marks = [s.is_last for s in planner.distinct_steps()]
    assert last_marks == [False, False, False, True] * 2


def test_evaluation_episodes_are_marked(graph, start_robot) -> None:
    node, planner = start_robot(episodes=1, eval_every=1, eval_episodes=1)
    for _ in range(2):
        graph.until(lambda: planner.steps[-1].is_first)
        planner.execute(3)
    graph.until(node.finished.done)
    assert [s.explore for s in planner.distinct_steps()] == [True] * 4 + [False] * 4


def test_the_same_seed_repeats_the_run_and_a_restart_continues_it(
    graph, start_robot, tmp_path
) -> None:
    progress = str(tmp_path / "progress.json")
    uninterrupted, planner = start_robot(seed=4)
    planner.execute(3)
    graph.until(lambda: planner.steps[-1].is_first)
    second_start = planner.steps[-1]
    position = planner.position(second_start.stamp_ns)
    uninterrupted.trigger_deactivate()
    stopped, planner = start_robot(seed=4, episodes=1, progress=progress)
    planner.execute(3)
    graph.until(stopped.finished.done)
    stopped.end()
    restarted, planner = start_robot(seed=4, progress=progress)
    assert (
        planner.steps[0].stamp_ns == second_start.stamp_ns and restarted.runner.counts.episodes == 1
    )
    assert planner.position(second_start.stamp_ns) == position


def test_reset_begins_a_new_episode(graph, start_robot) -> None:
    _, planner = start_robot()
    planner.execute(1)
    assert call(graph, "reset", Trigger).success
    graph.until(lambda: len(planner.distinct_steps()) == 3)
    assert planner.steps[-1].is_first


def test_pause_holds_the_plan_and_continues_with_it(graph, start_robot) -> None:
    node, planner = start_robot()
    call(graph, "pause", SetBool, data=True)
    planner.plan()
    graph.spin(0.3)
    assert node.runner.counts.decisions == 0
    call(graph, "pause", SetBool, data=False)
    graph.until(lambda: node.runner.counts.decisions == 1)


def test_estop_latches_until_the_operator_clears_it(graph, start_robot) -> None:
    node, planner = start_robot()
    call(graph, "estop", SetBool, data=True)
    for _ in range(3):
        planner.plan()
        graph.spin(0.1)
    assert node.runner.counts.decisions == 0 and "estop" in node.diagnostics.active_faults
    assert not call(graph, "reset", Trigger).success
    call(graph, "estop", SetBool, data=False)
    planner.execute(1)
    assert "estop" not in node.diagnostics.active_faults


def test_two_robots_in_one_domain_follow_their_own_plans_and_stops(graph) -> None:
    first, second = Planner(graph), Planner(graph.neighbour())
    nodes = [planner.graph.add(RobotNode, **POINT) for planner in (first, second)]
    for planner in (first, second):
        graph.matched(planner.plans)
        graph.until(lambda planner=planner: planner.steps)

    def step_counts() -> list[int]:
        return [node.runner.counts.decisions for node in nodes]

    first.execute(1)
    assert step_counts() == [1, 0]
    call(graph, "estop", SetBool, data=True)
    first.plan()
    second.execute(2)
    assert step_counts() == [1, 2]
    assert ["estop" in node.diagnostics.active_faults for node in nodes] == [True, False]


def test_the_success_service_labels_the_next_step(graph, start_robot) -> None:
    _, planner = start_robot()
    call(graph, "success", SetBool, data=True)
    planner.execute(2)
    assert [s.success for s in planner.distinct_steps()[:3]][1]


def test_an_episode_begins_when_the_recorder_has_its_first_observation(graph, start_robot) -> None:
    node, planner = start_robot(await_recorder_s=30.0)
    recorded = graph.matched(topics.RECORDED.always(graph.probe))
    planner.plan()
    graph.spin(0.3)
    assert node.runner.counts.decisions == 0
    recorded.publish(Header(stamp=messages.to_time(planner.steps[0].stamp_ns)))
    graph.until(lambda: node.runner.counts.decisions == 1)


def test_an_acknowledgement_of_the_robots_previous_process_does_not_count(
    graph, start_robot
) -> None:
    recorded = topics.RECORDED.always(graph.probe)
    recorded.publish(Header(stamp=messages.to_time(3_600_000_000_000)))
    node, planner = start_robot(await_recorder_s=30.0)
    graph.matched(recorded)
    planner.plan()
    graph.spin(0.3)
    assert node.control._recorded_ns == -1 and node.runner.counts.decisions == 0
    recorded.publish(Header(stamp=messages.to_time(3_600_000_000_000)))  # sent late
    graph.until(lambda: node.control._recorded_ns > planner.steps[0].stamp_ns)
    graph.spin(0.3)
    assert node.runner.counts.decisions == 0
    recorded.publish(Header(stamp=messages.to_time(planner.steps[0].stamp_ns)))
    graph.until(lambda: node.runner.counts.decisions == 1)


def test_the_wait_for_a_missing_recorder_occurs_once(graph, start_robot) -> None:
    node, planner = start_robot(await_recorder_s=0.3)
    planner.execute(3)
    assert "recorder" in node.diagnostics.active_faults
    graph.until(lambda: planner.steps[-1].is_first)
    planner.execute(1)
    assert node.runner.counts.decisions == 4


def test_the_robot_waits_when_it_is_ahead_of_the_trainer(graph, start_robot) -> None:
    node, planner = start_robot(ahead=1)
    pace = graph.matched(topics.PACE.always(graph.probe))
    pace.publish(UInt64(data=0))
    graph.until(lambda: node.control._learned_steps == 0)
    planner.execute(2)
    planner.plan()
    graph.spin(0.3)
    assert node.runner.counts.decisions == 2
    pace.publish(UInt64(data=1))
    graph.until(lambda: node.runner.counts.decisions == 3)


def test_in_real_time_it_acts_on_time_and_holds_without_plans(graph, start_robot) -> None:
    node, planner = start_robot(mode="realtime", rate_hz=50.0, time_limit=1000, max_age_s=0.1)
    graph.until(lambda: len(planner.distinct_steps()) > 10)
    assert "plan" in node.diagnostics.active_faults
    assert all(not s.executed.any() and s.weights == -1 for s in planner.distinct_steps()[1:])
    before = len(planner.steps)

    def executed_plan() -> bool:
        """A plan that a busy machine delivers too late is not executed: the next one may be."""
        planner.plan(push=1.0)
        executed = any(s.executed == [1.0] for s in planner.steps[before:])
        return executed and "plan" not in node.diagnostics.active_faults

    graph.until(executed_plan)
    graph.until(lambda: "plan" in node.diagnostics.active_faults)  # the plan got stale
    graph.until(lambda: not planner.steps[-1].executed.any())


def test_in_real_time_plans_of_the_past_or_future_are_dropped(graph, start_robot) -> None:
    node, planner = start_robot(mode="realtime", time_limit=1000)
    graph.until(lambda: planner.steps)
    newest = planner.steps[-1].stamp_ns
    planner.plan(stamp_ns=newest + 3_600_000_000_000)
    planner.plan(stamp_ns=1)
    graph.until(lambda: node.diagnostics.drops["plan/stamp"] >= 1)
    graph.spin(0.2)
    assert isinstance(node.control._plan.due(time.monotonic()), str)  # no plan is active


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"adapter": "metawolrd"}, "Did you mean 'metaworld'"),
        ({"adapter": "tests.wm_nodes.point_robot:Nothing"}, "cannot be imported"),
        ({"adapter": "wm_nodes.ros.diagnostics:NodeDiagnostics"}, "expected a subclass of Robot"),
        ({"adapter": "metaworld", "task": "reech-v3"}, "reach-v3"),
        ({"adapter": "metaworld", "limits": "/nowhere.yaml"}, "expected a YAML file"),
    ],
)
def test_a_wrong_robot_is_refused_in_one_line(graph, parameters: dict, expected: str) -> None:
    with pytest.raises(UserError) as error:
        graph.add(RobotNode, **{**POINT, **parameters})
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_foreign_progress_file_is_refused(graph, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"progress\.json"):
        graph.add(RobotNode, **POINT, progress=str(path))


def test_points_with_too_few_numbers_are_refused(graph, start_robot) -> None:
    node, planner = start_robot()
    plan = Plan(planner.steps[0].stamp_ns, ACTOR, ("push",), np.float32([[0.5]]), 0.1)
    msg = messages.plan_to_msg(plan)
    msg.points[0].positions = array("d")
    planner.plans.publish(msg)
    graph.until(lambda: node.diagnostics.drops["plan/size"] == 1)
