"""The graphs under the real `ros2 launch`; skipped where launch_ros and ros2launch are missing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch_ros")
pytest.importorskip("ros2launch")

ROS2 = "import sys; from ros2cli.cli import main; sys.exit(main())"
GRAPH = """
from wm_nodes.graphs.declaration import Argument, Graph, NodeSpec
from wm_nodes.graphs.ros_launch import launch_description

GRAPH = Graph(
    "try",
    "A try.",
    (
        Argument("run", "", "Run."),
        Argument("rate", 0.0, "A number.", low=0.0),
        Argument("task", "reach", "Text."),
    ),
    (
        NodeSpec(
            "robot",
            "stand_in",
            lambda values: {"rate": values["rate"], "task": values["task"]},
            namespace=lambda values: "/try",
            restart=RESTART,
            on_exit="shutdown",
        ),
    ),
    namespaces=lambda values, pushed: {},
)


def generate_launch_description():
    return launch_description(GRAPH)
"""


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs `ros2 launch` on a graph of one stand-in node."""

    def run(node: str, *words: str, restart: bool = True) -> subprocess.CompletedProcess[str]:
        prefix = tmp_path / "prefix"
        index = prefix / "share" / "ament_index" / "resource_index" / "packages"
        programs = prefix / "lib" / "wm_nodes"
        for folder in (index, programs):
            folder.mkdir(parents=True)
        (index / "wm_nodes").touch()
        program = programs / "stand_in"
        program.write_text(f"#!{sys.executable} -S\n{textwrap.dedent(node)}")
        program.chmod(0o755)
        file = tmp_path / "try.launch.py"
        file.write_text(GRAPH.replace("RESTART", str(restart)))
        paths = f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}"
        return subprocess.run(
            [sys.executable, "-c", ROS2, "launch", str(file), *words],
            cwd=tmp_path,
            env={**os.environ, "AMENT_PREFIX_PATH": paths, "ROS_LOG_DIR": str(tmp_path / "logs")},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_run_that_is_over_returns_0(launch):
    done = launch("print('done')")
    assert done.returncode == 0
    assert "Caught exception" not in done.stdout + done.stderr


def test_a_node_that_refuses_its_arguments_fails_the_launch_with_its_line(launch):
    done = launch("import sys; print('error: rate: given -1.', file=sys.stderr); sys.exit(2)")
    assert done.returncode == 1
    assert "robot refused its arguments: error: rate: given -1." in done.stdout + done.stderr


def test_a_node_that_crashes_again_and_again_fails_the_launch_with_its_last_error(launch):
    done = launch("print('begins', flush=True)\nraise RuntimeError('the arm is gone')")
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert output.count("begins") == 6
    assert output.count("robot crashed (1) and is started again: RuntimeError: the arm is") == 5
    assert "robot crashed 6 times in 60 s, the last with 1: RuntimeError: the arm is" in output


def test_a_node_that_is_not_started_again_fails_the_launch(launch):
    done = launch("import sys; print('no log', file=sys.stderr); sys.exit(1)", restart=False)
    assert done.returncode == 1
    assert "robot ended with 1: no log" in done.stdout + done.stderr


def test_a_wrong_argument_fails_the_launch_before_any_process_starts(launch):
    done = launch("print('begins')", "rate:=fast")
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "rate: given 'fast', right is a number from 0.0." in output
    assert "begins" not in output


@pytest.mark.parametrize("name", ["0483", "12E5", "1e3", "007", "true", "null"])
def test_a_run_of_digits_keeps_its_name(launch, tmp_path, name):
    assert launch("", f"run:={name}", f"task:={name}", "rate:=3").returncode == 0
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [name]
    file = tmp_path / "runs" / name / "logs" / "params" / "robot.yaml"
    given = yaml.safe_load(Path(file).read_text())["/**"]["ros__parameters"]
    assert given["task"] == name and isinstance(given["rate"], float)
