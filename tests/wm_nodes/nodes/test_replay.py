"""The replay node: real processes record what it plays, and nothing differs from the original."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rosgraph_msgs.msg import Clock

from tests import domains
from tests.wm_nodes.conftest import ROOT
from tests.wm_nodes.point_robot import PointRobot
from wm_datasets.log import LogReader
from wm_nodes.cli.main import main
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.errors import UserError
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.replay import GRAPH
from wm_nodes.nodes.replay import ReplayNode
from wm_nodes.records import RANDOM, Plan
from wm_nodes.ros import messages, topics
from wm_nodes.ros.parameters import checked

ACTIONS = 6
START_S = 250.0  # a loaded machine starts processes slowly


@pytest.fixture
def log(tmp_path) -> Path:
    with PointRobot(time_limit=ACTIONS) as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "log", 2, 0)
    return tmp_path / "log"


def row_count(path: Path) -> int:
    return LogReader(path).length if (path / "zarr.json").exists() else 0


class PlanPublisher:
    """Publishes a plan of zeros for every step; `stamps` are those of the steps, as received."""

    def __init__(self, graph) -> None:
        self.graph, self.stamps = graph, []
        self.plans = topics.PLAN.always(graph.probe)
        topics.STEPS.subscription(graph.probe, self.on_step)

    def on_step(self, msg) -> None:
        step = messages.step_from_msg(msg)
        self.stamps.append(step.stamp_ns)
        actions = np.zeros((1, 1), np.float32)
        plan = Plan(step.stamp_ns, RANDOM, step.names, actions, 0.1)
        self.plans.publish(messages.plan_to_msg(plan))


def logged_stamps(log: Path, episode: int) -> list[int]:
    with LogReader(log) as reader:
        start, count, _ = reader.episodes[episode].tolist()
        return reader.read("stamp", start, start + count).tolist()


def test_with_plans_awaited_the_observations_are_published_in_order(graph, log) -> None:
    policy = PlanPublisher(graph)
    node = graph.add(ReplayNode, log=str(log), episode=0, rate=0.0, answers=["plan"])
    graph.until(node.finished.done)
    graph.until(lambda: sorted(set(policy.stamps)) == logged_stamps(log, 0))
    assert policy.stamps == sorted(policy.stamps) and node.exit_code == 0


def test_a_missing_answer_does_not_stop_the_episode(graph, log) -> None:
    steps = graph.subscribe(topics.STEPS, messages.step_from_msg)
    options = {"retry_s": 0.1, "patience_s": 3.0, "rate": 0.0}
    node = graph.add(ReplayNode, log=str(log), answers=["recorded", "plan"], **options)
    graph.until(node.finished.done)
    expected = logged_stamps(log, -1)
    graph.until(lambda: list(dict.fromkeys(step.stamp_ns for step in steps)) == expected)
    stamps = [step.stamp_ns for step in steps]
    assert stamps.count(expected[0]) > 1  # repeated until patience_s passed
    assert all(stamps.count(stamp) == 1 for stamp in expected[1:])
    assert "answer" in node.diagnostics.active_faults


def test_the_timing_is_that_of_the_log_divided_by_the_rate(graph, log) -> None:
    received: list[float] = []
    graph.subscribe(topics.STEPS, lambda msg: received.append(time.perf_counter()))
    node = graph.add(ReplayNode, log=str(log), rate=2.0)
    graph.until(node.finished.done)
    graph.until(lambda: len(received) == ACTIONS + 1)
    assert 0.9 * ACTIONS * 0.1 / 2.0 < received[-1] - received[0] < 30.0  # late on a loaded machine


def test_with_restamp_the_stamps_are_of_the_present(graph, log) -> None:
    stamps = graph.subscribe(topics.STEPS, lambda msg: messages.step_from_msg(msg).stamp_ns)
    before = time.time_ns()
    node = graph.add(ReplayNode, log=str(log), rate=0.0, restamp=True)
    graph.until(node.finished.done)
    graph.until(lambda: len(stamps) == ACTIONS + 1)
    assert before < stamps[0] and stamps == sorted(set(stamps)) and stamps[-1] < time.time_ns()


def test_with_use_sim_time_the_logged_stamps_are_the_clock(graph, log) -> None:
    received: list[int] = []
    graph.probe.create_subscription(
        Clock, "/clock", lambda msg: received.append(messages.from_time(msg.clock)), 10
    )
    node = graph.add(
        ReplayNode, log=str(log), episode=0, answers=["plan"], rate=0.0, use_sim_time=True
    )
    graph.until(lambda: received)
    PlanPublisher(graph)
    graph.until(node.finished.done)
    graph.until(lambda: sorted(set(received)) == logged_stamps(log, 0))
    assert received == sorted(received) and "clock" not in node.diagnostics.active_faults


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log": "/nowhere"}, "no log at /nowhere"),
        ({"episode": 2}, "expected 0 to 1, or -1"),
        ({"answers": ["robot"]}, "one of recorded, plan"),
        ({"rate": -1.0}, "from 0"),
    ],
)
def test_a_wrong_parameter_is_refused(graph, log, settings, message) -> None:
    with pytest.raises(UserError, match=message):
        graph.add(ReplayNode, **{"log": str(log), **settings})


def test_the_command_refuses_a_missing_log(capsys) -> None:
    assert main(["replay", "/nowhere"]) == 2
    error = capsys.readouterr().err
    assert "no log at /nowhere" in error and "Traceback" not in error


@pytest.mark.timeout(600)
def test_the_recorder_records_a_replay_as_the_same_log(log, tmp_path) -> None:
    copy_path = tmp_path / "again"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ROS_DOMAIN_ID": str(domains.PROCESSES),
        "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "models", "datasets")),
    }

    def start(node: str, *parameters: str) -> subprocess.Popen:
        arguments = [argument for p in parameters for argument in ("-p", p)]
        command = [sys.executable, "-m", f"wm_nodes.nodes.{node}", "--ros-args", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=environment)

    recorder = start("recorder", f"log:={copy_path}")
    try:
        for episode in range(2):
            options = ("rate:=20.0", "as_camera:=true", "answers:=[recorded]")
            replay = start("replay", f"log:={log}", f"episode:={episode}", *options)
            assert replay.wait(START_S) == 0
        end = time.monotonic() + START_S
        while row_count(copy_path) < 2 * (ACTIONS + 1) and time.monotonic() < end:
            time.sleep(0.05)
        recorder.send_signal(signal.SIGINT)
        assert recorder.wait(START_S) == 0
    finally:
        recorder.kill()
    with LogReader(log) as original, LogReader(copy_path) as copy:
        assert copy.spec == original.spec
        assert copy.length == original.length == 2 * (ACTIONS + 1)
        assert copy.episodes.tolist() == original.episodes.tolist()
        for name in original.spec.fields:
            copied, logged = copy.read(name, 0, copy.length), original.read(name, 0, copy.length)
            assert copied.dtype == logged.dtype and np.array_equal(copied, logged), name


def test_the_graph_starts_the_node_with_parameters_that_it_declares(log, tmp_path) -> None:
    arguments = {"log": str(log), "run": str(tmp_path), "record": True, "composition": "fused"}
    values = {**GRAPH.defaults(), **arguments}
    GRAPH.check(values)
    nodes = {node.name: node.parameters(values) for node in GRAPH.running(values)}
    assert set(nodes) == {"agent", "recorder", "replay"} and nodes["agent"]["camera"] == "top"
    assert nodes["replay"]["answers"] == ["recorded", "plan"]
    specs = {spec.name: spec for spec in fields(ReplayNode.PARAMS)}
    for name, value in nodes["replay"].items():
        checked(specs[name], value, "replay")
    with pytest.raises(GraphError, match="got 'bottom', expected one of the log's: top"):
        GRAPH.check({**values, "camera": "bottom"})
    with pytest.raises(GraphError, match="which is no replay log"):
        GRAPH.check({**values, "log": str(tmp_path / "nix")})
