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


class Brain:
    """Hears steps and publishes plans."""

    def __init__(self, graph) -> None:
        self.graph = graph
        self.steps = graph.hear(topics.STEPS, messages.step_from_msg)
        self.images = graph.hear(topics.IMAGE_RAW, messages.image_from_msg, camera="top")
        self.joints = graph.hear(topics.JOINT_STATES, messages.joints_from_msg)
        self.plans = topics.PLAN.always(graph.probe)

    def plan(self, push: float = 0.5, stamp_ns: int | None = None, **spoil) -> None:
        """Answer the newest step (or another stamp)."""
        stamp_ns = self.steps[-1].stamp_ns if stamp_ns is None else stamp_ns
        plan = Plan(stamp_ns, ACTOR, ("push",), np.float32([[push]]), 0.1)
        msg = messages.plan_to_msg(plan)
        for name, value in spoil.items():
            setattr(msg, name, value)
        self.plans.publish(msg)

    def play(self, decisions: int, push: float = 0.5) -> None:
        """Answer so many observations."""
        for _ in range(decisions):
            self.graph.until(lambda: self.steps and not self.steps[-1].is_last)
            newest = self.steps[-1].stamp_ns
            self.plan(push)
            self.graph.until(lambda newest=newest: self.steps[-1].stamp_ns > newest)

    def place(self, stamp_ns: int) -> float:
        """Return where the point is in the observation of that stamp."""
        self.graph.until(lambda: any(j[0] == stamp_ns for j in self.joints))
        return next(float(j[2][0]) for j in self.joints if j[0] == stamp_ns)

    def fresh(self) -> list:
        """Return steps without those published again."""
        return list({step.stamp_ns: step for step in self.steps}.values())


@pytest.fixture
def make(graph):
    """Return (robot node, brain), found by each other."""

    def made(**parameters):
        brain = Brain(graph)
        node = graph.add(RobotNode, **{**POINT, **parameters})
        graph.joined(brain.plans)
        graph.until(lambda: brain.steps or parameters.get("mode") == "realtime")
        return node, brain

    return made


def call(graph, name: str, kind, **request):
    client = graph.probe.create_client(kind, name)
    assert client.wait_for_service(5.0)
    future = client.call_async(kind.Request(**request))
    graph.until(future.done)
    return future.result()


def test_everything_of_one_observation_has_one_stamp(graph, make) -> None:
    _, brain = make()
    brain.play(2)
    stamps = {s.stamp_ns for s in brain.steps}
    graph.until(lambda: {i[0] for i in brain.images} == {j[0] for j in brain.joints} == stamps)
    assert min(stamps) == 100_000_000  # one control period after the start


def test_a_step_says_what_the_plan_before_it_brought(graph, make) -> None:
    _, brain = make()
    brain.play(2, push=5.0)
    first, second, third = brain.fresh()[:3]
    assert first.is_first and not first.executed.any() and first.weights == -1
    assert second.commanded == [5.0] and second.executed == [1.0]  # clipped to its limits
    assert (second.weights, second.source) == (7, 0)
    assert third.reward == -abs(brain.place(third.stamp_ns))


def test_lockstep_waits_and_asks_again(graph, make) -> None:
    node, brain = make()
    graph.spin(0.6)
    assert len(brain.steps) >= 3 and len(brain.fresh()) == 1
    assert node.runner.counts.decisions == 0


def test_a_missing_plan_is_reported_and_it_goes_on_when_it_comes(graph, make) -> None:
    node, brain = make(timeout_s=0.2)
    graph.until(lambda: "plan" in node.diagnostics.active_faults)
    brain.play(1)
    assert "plan" not in node.diagnostics.active_faults and node.diagnostics.faults["plan"] >= 1


def test_a_plan_that_comes_twice_moves_once(graph, make) -> None:
    node, brain = make()
    stamp = brain.steps[0].stamp_ns
    for _ in range(3):
        brain.plan(stamp_ns=stamp)
        graph.spin(0.1)
    assert node.runner.counts.decisions == 1 and node.diagnostics.drops["plan/stamp"] == 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"joint_names": ["pull"]}, "plan/dimensions"),
        ({"joint_names": ["push", "pull"]}, "plan/size"),
        ({"points": []}, "plan/size"),
        ({"nan": True}, "plan/non-finite"),
        ({"stamp_ns": 1}, "plan/stamp"),
    ],
)
def test_a_wrong_plan_is_never_executed(graph, make, spoil: dict, reason: str) -> None:
    node, brain = make()
    if spoil.pop("nan", False):
        brain.plan(push=float("nan"))
    else:
        brain.plan(**spoil)
    graph.until(lambda: node.diagnostics.drops[reason] == 1)
    assert node.runner.counts.decisions == 0 and len(brain.fresh()) == 1
    brain.play(1)  # and the next good one is


def test_a_run_ends_after_its_episodes_with_code_0(graph, make) -> None:
    node, brain = make(episodes=2)
    brain.play(3)
    graph.until(lambda: brain.steps[-1].is_first)
    brain.play(3)
    graph.until(node.finished.done)
    assert node.exit_code == 0 and node.diagnostics.facts["done"] == "true"
    lasts = [s.is_last for s in brain.fresh()]
    assert lasts == [False, False, False, True] * 2


def test_evaluation_episodes_are_marked(graph, make) -> None:
    node, brain = make(episodes=1, eval_every=1, eval_episodes=1)
    for _ in range(2):
        graph.until(lambda: brain.steps[-1].is_first)
        brain.play(3)
    graph.until(node.finished.done)
    assert [s.explore for s in brain.fresh()] == [True] * 4 + [False] * 4


def test_the_same_seed_gives_the_same_run_and_a_restart_goes_on(graph, make, tmp_path) -> None:
    progress = str(tmp_path / "progress.json")
    whole, brain = make(seed=4)
    brain.play(3)
    graph.until(lambda: brain.steps[-1].is_first)
    second = brain.steps[-1]
    place = brain.place(second.stamp_ns)
    whole.trigger_deactivate()
    once, brain = make(seed=4, episodes=1, progress=progress)
    brain.play(3)
    graph.until(once.finished.done)
    once.end()
    again, brain = make(seed=4, progress=progress)
    assert brain.steps[0].stamp_ns == second.stamp_ns and again.runner.counts.episodes == 1
    assert brain.place(second.stamp_ns) == place


def test_reset_begins_a_new_episode(graph, make) -> None:
    _, brain = make()
    brain.play(1)
    assert call(graph, "reset", Trigger).success
    graph.until(lambda: len(brain.fresh()) == 3)
    assert brain.steps[-1].is_first


def test_pause_holds_and_goes_on_with_the_same_plan(graph, make) -> None:
    node, brain = make()
    call(graph, "pause", SetBool, data=True)
    brain.plan()
    graph.spin(0.3)
    assert node.runner.counts.decisions == 0
    call(graph, "pause", SetBool, data=False)
    graph.until(lambda: node.runner.counts.decisions == 1)


def test_estop_latches_until_a_person_clears_it(graph, make) -> None:
    node, brain = make()
    call(graph, "estop", SetBool, data=True)
    for _ in range(3):
        brain.plan()
        graph.spin(0.1)
    assert node.runner.counts.decisions == 0 and "estop" in node.diagnostics.active_faults
    assert not call(graph, "reset", Trigger).success
    call(graph, "estop", SetBool, data=False)
    brain.play(1)
    assert "estop" not in node.diagnostics.active_faults


def test_two_robots_in_one_domain_obey_their_own_plans_and_stops(graph) -> None:
    left, right = Brain(graph), Brain(graph.neighbour())
    nodes = [brain.graph.add(RobotNode, **POINT) for brain in (left, right)]
    for brain in (left, right):
        graph.joined(brain.plans)
        graph.until(lambda brain=brain: brain.steps)

    def decisions() -> list[int]:
        return [node.runner.counts.decisions for node in nodes]

    left.play(1)
    assert decisions() == [1, 0]
    call(graph, "estop", SetBool, data=True)
    left.plan()
    right.play(2)
    assert decisions() == [1, 2]
    assert ["estop" in node.diagnostics.active_faults for node in nodes] == [True, False]


def test_a_person_labels_the_next_step(graph, make) -> None:
    _, brain = make()
    call(graph, "success", SetBool, data=True)
    brain.play(2)
    assert [s.success for s in brain.fresh()[:3]][1]


def test_an_episode_begins_when_the_recorder_has_its_first_observation(graph, make) -> None:
    node, brain = make(await_recorder_s=30.0)
    recorded = graph.joined(topics.RECORDED.always(graph.probe))
    brain.plan()
    graph.spin(0.3)
    assert node.runner.counts.decisions == 0
    recorded.publish(Header(stamp=messages.to_time(brain.steps[0].stamp_ns)))
    graph.until(lambda: node.runner.counts.decisions == 1)


def test_an_acknowledgement_of_the_robots_previous_process_does_not_count(graph, make) -> None:
    recorded = topics.RECORDED.always(graph.probe)
    recorded.publish(Header(stamp=messages.to_time(3_600_000_000_000)))
    node, brain = make(await_recorder_s=30.0)
    graph.joined(recorded)
    brain.plan()
    graph.spin(0.3)
    assert node.control._recorded_ns == -1 and node.runner.counts.decisions == 0
    recorded.publish(Header(stamp=messages.to_time(3_600_000_000_000)))  # sent late
    graph.until(lambda: node.control._recorded_ns > brain.steps[0].stamp_ns)
    graph.spin(0.3)
    assert node.runner.counts.decisions == 0
    recorded.publish(Header(stamp=messages.to_time(brain.steps[0].stamp_ns)))
    graph.until(lambda: node.runner.counts.decisions == 1)


def test_a_missing_recorder_is_waited_for_once(graph, make) -> None:
    node, brain = make(await_recorder_s=0.3)
    brain.play(3)
    assert "recorder" in node.diagnostics.active_faults
    graph.until(lambda: brain.steps[-1].is_first)
    brain.play(1)
    assert node.runner.counts.decisions == 4


def test_the_robot_does_not_run_away_from_the_trainer(graph, make) -> None:
    node, brain = make(ahead=1)
    pace = graph.joined(topics.PACE.always(graph.probe))
    pace.publish(UInt64(data=0))
    graph.until(lambda: node.control._learned_steps == 0)
    brain.play(2)
    brain.plan()
    graph.spin(0.3)
    assert node.runner.counts.decisions == 2
    pace.publish(UInt64(data=1))
    graph.until(lambda: node.runner.counts.decisions == 3)


def test_in_real_time_it_acts_on_time_and_holds_without_plans(graph, make) -> None:
    node, brain = make(mode="realtime", rate_hz=50.0, time_limit=1000, max_age_s=0.1)
    graph.until(lambda: len(brain.fresh()) > 10)
    assert "plan" in node.diagnostics.active_faults
    assert all(not s.executed.any() and s.weights == -1 for s in brain.fresh()[1:])
    before = len(brain.steps)

    def acts() -> bool:
        """A plan that a busy machine delivers too late is not executed: the next one may be."""
        brain.plan(push=1.0)
        executed = any(s.executed == [1.0] for s in brain.steps[before:])
        return executed and "plan" not in node.diagnostics.active_faults

    graph.until(acts)
    graph.until(lambda: "plan" in node.diagnostics.active_faults)  # the plan got stale
    graph.until(lambda: not brain.steps[-1].executed.any())


def test_in_real_time_plans_of_the_past_or_future_are_not_kept(graph, make) -> None:
    node, brain = make(mode="realtime", time_limit=1000)
    graph.until(lambda: brain.steps)
    newest = brain.steps[-1].stamp_ns
    brain.plan(stamp_ns=newest + 3_600_000_000_000)
    brain.plan(stamp_ns=1)
    graph.until(lambda: node.diagnostics.drops["plan/stamp"] >= 1)
    graph.spin(0.2)
    assert isinstance(node.control._plan.due(time.monotonic()), str)  # none is followed


@pytest.mark.parametrize(
    ("parameters", "right"),
    [
        ({"adapter": "metawolrd"}, "Did you mean 'metaworld'"),
        ({"adapter": "tests.wm_nodes.point_robot:Nothing"}, "cannot be imported"),
        ({"adapter": "wm_nodes.ros.diagnostics:NodeDiagnostics"}, "expected a subclass of Robot"),
        ({"adapter": "metaworld", "task": "reech-v3"}, "reach-v3"),
        ({"adapter": "metaworld", "limits": "/nowhere.yaml"}, "expected a YAML file"),
    ],
)
def test_a_wrong_robot_is_refused_in_one_line(graph, parameters: dict, right: str) -> None:
    with pytest.raises(UserError) as error:
        graph.add(RobotNode, **{**POINT, **parameters})
    assert right in str(error.value) and "\n" not in str(error.value)


def test_a_foreign_progress_file_is_refused(graph, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"progress\.json"):
        graph.add(RobotNode, **POINT, progress=str(path))


def test_points_with_too_few_numbers_are_refused(graph, make) -> None:
    node, brain = make()
    plan = Plan(brain.steps[0].stamp_ns, ACTOR, ("push",), np.float32([[0.5]]), 0.1)
    msg = messages.plan_to_msg(plan)
    msg.points[0].positions = array("d")
    brain.plans.publish(msg)
    graph.until(lambda: node.diagnostics.drops["plan/size"] == 1)
