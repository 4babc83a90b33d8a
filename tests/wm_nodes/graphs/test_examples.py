"""A robot, a task and a graph of one's own, as docs/examples shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from tests import domains
from wm_datasets import LogReader
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.robots.opening import adapter_class, open_robot, takes
from wm_nodes.robots.robot import RobotError

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
ARM = EXAMPLES / "two_joint_arm.py"
WM = [sys.executable, "-c", "from wm_nodes.cli.main import main; raise SystemExit(main())"]


@pytest.mark.timeout(300)
def test_the_graph_of_an_own_robot_runs_and_records(tmp_path) -> None:
    arguments = ["episodes:=2", "time_limit:=10", "train:=false", "composition:=fused", "run:=mine"]
    result = subprocess.run(
        [*WM, "launch", str(ARM), *arguments],
        cwd=tmp_path,
        env={**os.environ, "ROS_DOMAIN_ID": str(domains.PROCESSES), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    log = LogReader(tmp_path / "runs" / "mine" / "log")
    assert log.spec.robot == "two_joint_arm" and list(log.episodes["length"]) == [11, 11]


def test_an_own_task_has_a_reward_at_the_goal_only() -> None:
    pytest.importorskip("metaworld")
    adapter = f"{EXAMPLES / 'sparse_reach.py'}:SparseReach"
    assert find_graph(str(EXAMPLES / "sparse_reach.py")).name == "sparse_reach"
    with open_robot(adapter, {"task": "reach-v3", "render": "none", "time_limit": 5}) as robot:
        robot.reset(1)
        assert [robot.act([0.1, 0, 0, 0]).reward for _ in range(3)] == [0.0] * 3


def test_a_robot_is_opened_by_file() -> None:
    assert takes(f"{ARM}:TwoJointArm", "limits")
    assert adapter_class(f"{ARM}:TwoJointArm") is adapter_class(f"{ARM}:TwoJointArm")
    with open_robot(f"{ARM}:TwoJointArm", {"task": "reach", "camera": "front"}) as robot:
        assert robot.reset().is_first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "which does not exist, expected a Python file"),
        ("GRAPH = 1", "got no GRAPH"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, content: str | None, message: str) -> None:
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(GraphError, match=message) as error:
        find_graph(str(file))
    assert "\n" not in str(error.value)
    with pytest.raises(RobotError, match="cannot be imported"):
        adapter_class(f"{file}:Mine")


def test_a_robot_that_needs_more_than_the_node_has_is_refused(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from tests.wm_nodes.point_robot import PointRobot\n"
        "class Mine(PointRobot):\n"
        "    def __init__(self, port, limits): ...\n"
    )
    with pytest.raises(RobotError, match=r"requires port, limits.*or limits:=FILE"):
        open_robot(f"{file}:Mine", {"task": "x"})
