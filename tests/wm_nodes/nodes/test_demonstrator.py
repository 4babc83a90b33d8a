"""The demonstrator records the task of the robot node, of a class of one's own too."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("metaworld")

from wm_datasets import LogReader
from wm_nodes.errors import UserError
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.nodes import demonstrator
from wm_nodes.nodes.demonstrator import DemonstratorNode
from wm_nodes.robots.opening import open_robot

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "sparse_reach.py"


@pytest.mark.timeout(240)
def test_demonstrations_of_an_own_task_have_its_rewards(graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Without images: software rendering in this process and torch's triton may not meet.
    without_rendering = lambda name, settings: open_robot(name, {**settings, "render": "none"})  # noqa: E731
    monkeypatch.setattr(demonstrator, "open_robot", without_rendering)
    example = find_graph(str(EXAMPLE))
    run = open_run(example, {"demos": "1", "time_limit": "40"})
    spec = next(node for node in example.nodes if node.name == "demonstrator")
    parameters = dict(spec.parameters(run.values))
    node = graph.add(DemonstratorNode, **parameters)
    graph.until(node.finished.done, 180)
    with LogReader(run.path / "demos") as log:
        assert log.spec.task == "reach-sparse"
        rewards = log.read("reward", 0, log.length)
        assert set(rewards.tolist()) == {0.0, 1.0}  # those of Meta-World are in between


def test_a_robot_without_a_script_is_refused(graph, tmp_path):
    adapter = "tests.wm_nodes.point_robot:PointRobot"
    graph.add(DemonstratorNode, adapter=adapter, task="origin", out=str(tmp_path / "demos"))
    with pytest.raises(UserError, match="robot 'point' has no expert"):
        graph.spin(20)
    assert not (tmp_path / "demos").exists()
