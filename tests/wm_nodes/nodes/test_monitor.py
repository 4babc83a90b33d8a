"""The monitor: it prints and writes what the nodes published; it ends with the run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray

from tests.wm_nodes.point_robot import UnscoredPoint
from wm_nodes.nodes.monitor import MonitorNode
from wm_nodes.records import Step
from wm_nodes.ros import messages, topics
from wm_nodes.ros.diagnostics import NodeDiagnostics


class Run:
    """Publishes what a run's nodes publish."""

    def __init__(self, graph, node) -> None:
        self.graph, self.node, self.stamp = graph, node, 0
        self.steps = graph.matched(topics.STEPS.always(graph.probe))
        self.diagnostics = graph.matched(topics.DIAGNOSTICS.always(graph.probe))

    def publish_diagnostics(self, name: str, namespace: str | None = None, **facts: object) -> None:
        """Publish one node's diagnostics and wait until the monitor has them."""
        node = NodeDiagnostics()
        node.facts.update(facts)
        full_name = f"{namespace or self.graph.namespace}/{name}"
        self.diagnostics.publish(DiagnosticArray(status=[node.status(full_name)]))
        if namespace is None:
            key, value = next(iter(facts.items()))
            self.graph.until(lambda: self.node._reports.fact(name, key) == str(value))

    def publish_episode(self, success: bool, explore: bool = True, length: int = 3) -> None:
        for index in range(length + 1):
            self.stamp += 1
            step = Step(
                self.stamp,
                ("x",),
                np.zeros(1, np.float32),
                np.zeros(1, np.float32),
                reward=float(index > 0),
                is_first=index == 0,
                is_last=index == length,
                success=success and index == length,
                explore=explore,
                weights=7,
            )
            self.steps.publish(messages.step_to_msg(step))
            self.graph.spin(0.01)


@pytest.fixture
def run(graph, tmp_path):
    node = graph.add(MonitorNode, run=str(tmp_path), every_s=0.2)
    return Run(graph, node)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_episode_is_a_row(graph, run, tmp_path) -> None:
    run.publish_diagnostics("robot", steps=12)
    run.publish_episode(True)
    run.publish_episode(False, length=4)
    path = tmp_path / "metrics" / "episodes.csv"
    graph.until(lambda: path.exists() and len(read_table(path)) == 2)
    first, second = read_table(path)
    assert (first["kind"], first["steps"], first["length"], first["success"]) == (
        "train", "12", "3", "1",
    )  # fmt: skip
    assert (second["return"], second["success"], second["weights"]) == ("4.0", "0", "7")


def test_a_block_of_evaluation_is_a_row_with_its_interval(graph, run, tmp_path, capfd) -> None:
    run.publish_diagnostics("robot", steps=100)
    for success in (True, True, False, True):
        run.publish_episode(success, explore=False)
    run.publish_episode(False)
    path = tmp_path / "metrics" / "evaluations.csv"
    graph.until(path.exists)
    (row,) = read_table(path)
    assert row["success"] == "0.75" and float(row["low"]) < 0.75 < float(row["high"])
    assert "success 0.75" in capfd.readouterr().out


def test_the_line_holds_the_facts_of_the_nodes(graph, run, capfd) -> None:
    run.publish_diagnostics("robot", steps=500, episodes=2)
    run.publish_diagnostics("trainer", updates=40, updates_per_s="3.1", phase="behaviour")
    run.publish_diagnostics("recorder", rows=502, log_mb=6.2)
    run.publish_episode(True)
    graph.spin(0.5)
    line = capfd.readouterr().out.splitlines()[-1]
    for text in ("500 steps, 2 episodes", "40 updates, 3.1/s", "behaviour", "502 rows, 6.2 MB",
                  "success 1.00", "latency"):  # fmt: skip
        assert text in line


def test_a_task_that_reports_no_success_has_returns_only(graph, run, tmp_path, capfd) -> None:
    spec = graph.matched(topics.SPEC.always(graph.probe))
    spec.publish(messages.spec_to_msg(UnscoredPoint().spec.log_spec()))
    graph.until(lambda: not run.node._scored)
    run.publish_diagnostics("robot", steps=100)
    run.publish_episode(False, explore=False)
    run.publish_episode(False)
    episodes = tmp_path / "metrics" / "episodes.csv"
    graph.until(lambda: episodes.exists() and len(read_table(episodes)) == 2)
    (row,) = read_table(tmp_path / "metrics" / "evaluations.csv")
    assert (row["success"], row["low"], row["high"], row["return"]) == ("", "", "", "3.0")
    assert [each["success"] for each in read_table(episodes)] == ["", ""]
    assert run.node.summary()["success_rate"] is None
    graph.spin(0.5)
    text = capfd.readouterr().out
    assert "return 3" in text and "success" not in text


def test_another_robots_nodes_do_not_count(graph, run) -> None:
    run.publish_diagnostics("robot", namespace="/elsewhere", steps=9, done="true")
    graph.spin(0.3)
    assert not run.node._reports.nodes.get("robot") and run.node._done_at is None


def test_the_run_ends_with_a_summary(graph, run, tmp_path) -> None:
    run.publish_diagnostics("robot", steps=12)
    run.publish_episode(True, explore=False)
    run.publish_episode(False, explore=False)
    run.publish_diagnostics("robot", done="true", steps=24)
    graph.until(run.node.finished.done)
    summary = json.loads((tmp_path / "metrics" / "summary.json").read_text())
    assert summary["success_rate"] == 0.5 and summary["judged"] == "evaluation"
    assert summary["steps"] == 24 and run.node.exit_code == 0


def test_curves_are_written_for_tensorboard(graph, run, tmp_path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run.publish_diagnostics("robot", steps=12)
    run.publish_episode(True)
    graph.spin(0.5)
    graph.remove(run.node)
    events = accumulator.EventAccumulator(str(tmp_path / "metrics" / "tensorboard")).Reload()
    (point,) = events.Scalars("episode/return_train")
    assert (point.step, point.value) == (12, 3.0)
    assert "robot/latency_p50_ms" in events.Tags()["scalars"]


def test_without_a_run_folder_nothing_is_written(graph, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(graph, graph.add(MonitorNode))
    run.publish_episode(True)
    run.publish_diagnostics("robot", done="true")
    graph.until(run.node.finished.done)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_reported_and_the_run_ends(
    graph, tmp_path, capfd
) -> None:
    run = Run(graph, graph.add(MonitorNode, run=str(tmp_path), report=True))
    run.publish_diagnostics("robot", done="true")
    graph.until(run.node.finished.done)
    assert "no report" in capfd.readouterr().err and run.node.exit_code == 0


def test_several_environments_are_counted_together(graph, tmp_path, capfd) -> None:
    node = graph.add(MonitorNode, run=str(tmp_path), every_s=0.2, envs=2)
    diagnostics = graph.matched(topics.DIAGNOSTICS.always(graph.probe))

    def publish(name: str, **facts: object) -> None:
        status = NodeDiagnostics()
        status.facts.update(facts)
        full_name = f"{graph.namespace}/{name}"
        diagnostics.publish(DiagnosticArray(status=[status.status(full_name)]))
        key, value = next(iter(facts.items()))
        graph.until(lambda: node._reports.fact(name, key) == str(value))

    steps = [graph.matched(topics.STEPS.below(f"env_{n}").always(graph.probe)) for n in range(2)]
    for number in range(2):
        publish(f"env_{number}/robot", steps=10 + number, episodes=1 + number)
        publish(f"env_{number}/recorder", rows=5, log_mb=1.5)
    nothing = np.zeros(1, np.float32)
    for index in range(3):  # episodes of both at the same time, with equal stamps
        for number, publisher in enumerate(steps):
            ends = {"is_first": index == 0, "is_last": index == 2}
            step = Step(index + 1, ("x",), nothing, nothing, reward=float(number), **ends)
            publisher.publish(messages.step_to_msg(step))
    path = tmp_path / "metrics" / "episodes.csv"
    graph.until(lambda: path.exists() and len(read_table(path)) == 2)
    assert {(row["env"], row["length"]) for row in read_table(path)} == {("0", "2"), ("1", "2")}
    graph.spin(0.5)
    assert "21 steps, 3 episodes" in (text := capfd.readouterr().out) and "10 rows, 3.0 MB" in text
    publish("env_0/robot", done="true", steps=10)
    graph.spin(0.3)
    assert node._done_at is None  # environment 1 goes on
    publish("env_1/robot", done="true", steps=12)
    graph.until(node.finished.done)
    assert json.loads((tmp_path / "metrics" / "summary.json").read_text())["steps"] == 22
