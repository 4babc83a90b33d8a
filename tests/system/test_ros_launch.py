"""The graphs under the real `ros2 launch`; skipped where launch_ros and ros2launch are missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests import domains
from wm_datasets.errors import LogError
from wm_datasets.log import LogReader

pytest.importorskip("launch_ros")
pytest.importorskip("ros2launch")

ROOT = Path(__file__).parents[2]
ROS2 = "import sys; from ros2cli.cli import main; sys.exit(main())"
GRAPH = """
from wm_nodes.graphs.graph import Argument, Graph, NodeSpec
from wm_nodes.graphs.launch.ros_launch import launch_description

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
)


def generate_launch_description():
    return launch_description(GRAPH)
"""


@pytest.fixture
def prefix(tmp_path) -> Path:
    """Return an install prefix with a package wm_nodes that has no programs yet."""
    install_prefix = tmp_path / "prefix"
    index = install_prefix / "share" / "ament_index" / "resource_index" / "packages"
    for folder in (index, install_prefix / "lib" / "wm_nodes"):
        folder.mkdir(parents=True)
    (index / "wm_nodes").touch()
    return install_prefix


def program(prefix: Path, name: str, text: str) -> None:
    file = prefix / "lib" / "wm_nodes" / name
    file.write_text(text)
    file.chmod(0o755)


def environment(prefix: Path, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AMENT_PREFIX_PATH": f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}",
        "PYTHONPATH": os.pathsep.join(
            [*(str(ROOT / p) for p in ("", "models", "datasets")), os.environ.get("PYTHONPATH", "")]
        ),
        "ROS_LOG_DIR": str(folder / "logs"),
        "ROS_DOMAIN_ID": str(domains.PROCESSES),
        "OMP_NUM_THREADS": "1",
    }


def command(file: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", ROS2, "launch", str(file), *arguments]


@pytest.fixture
def launch(prefix, tmp_path):
    """Return a function that runs `ros2 launch` on a graph of one stand-in node."""

    def run(node: str, *arguments: str, restart: bool = True) -> subprocess.CompletedProcess[str]:
        program(prefix, "stand_in", f"#!{sys.executable} -S\n{textwrap.dedent(node)}")
        file = tmp_path / "try.launch.py"
        file.write_text(GRAPH.replace("RESTART", str(restart)))
        return subprocess.run(
            command(file, *arguments),
            cwd=tmp_path,
            env=environment(prefix, tmp_path),
            capture_output=True,
            text=True,
            timeout=180,
        )

    return run


def test_a_launch_whose_node_finished_returns_0(launch):
    completed = launch("print('done')")
    assert completed.returncode == 0
    assert "Caught exception" not in completed.stdout + completed.stderr


def test_a_node_that_refuses_its_arguments_fails_the_launch_with_its_line(launch):
    completed = launch("import sys; print('error: rate: given -1.', file=sys.stderr); sys.exit(2)")
    assert completed.returncode == 1
    assert (
        "robot refused its arguments: error: rate: given -1." in completed.stdout + completed.stderr
    )


def test_a_node_that_crashes_again_and_again_fails_the_launch_with_its_last_error(launch):
    completed = launch("print('begins', flush=True)\nraise RuntimeError('the arm is gone')")
    output = completed.stdout + completed.stderr
    assert completed.returncode == 1
    assert output.count("begins") == 6
    assert output.count("robot crashed (1) and is started again: RuntimeError: the arm is") == 5
    assert "robot crashed 6 times in 60 s, the last with 1: RuntimeError: the arm is" in output


def test_a_node_that_is_not_started_again_fails_the_launch(launch):
    completed = launch("import sys; print('no log', file=sys.stderr); sys.exit(1)", restart=False)
    assert completed.returncode == 1
    assert "robot ended with 1: no log" in completed.stdout + completed.stderr


def test_a_wrong_argument_fails_the_launch_before_any_process_starts(launch):
    completed = launch("print('begins')", "rate:=fast")
    output = completed.stdout + completed.stderr
    assert completed.returncode == 1
    assert "rate: got 'fast', expected a number from 0.0." in output
    assert "begins" not in output


@pytest.mark.parametrize("name", ["0483", "12E5", "1e3", "007", "true", "null"])
def test_a_run_of_digits_keeps_its_name(launch, tmp_path, name):
    assert launch("", f"run:={name}", f"task:={name}", "rate:=3").returncode == 0
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [name]
    file = tmp_path / "runs" / name / "logs" / "params" / "robot.yaml"
    parameters = yaml.safe_load(Path(file).read_text())["/**"]["ros__parameters"]
    assert parameters["task"] == name and isinstance(parameters["rate"], float)


TWO_ARMS = """
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace

ARGUMENTS = {"policy": "random", "task": "goal", "time_limit": "1000", "home": "false"}


def arm(side, seed):
    arguments = {**ARGUMENTS, "run": side, "seed": seed, "frame_prefix": side + "_"}
    file = PythonLaunchDescriptionSource("FILE")
    included = IncludeLaunchDescription(file, launch_arguments=arguments.items())
    return GroupAction([PushRosNamespace(side), included])


def generate_launch_description():
    return LaunchDescription([arm("left", "1"), arm("right", "2")])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_arms_below_pushed_namespaces_record_a_log_each(prefix, tmp_path) -> None:
    for node in ("arm_sim", "scripted_policy", "robot", "recorder", "monitor"):
        program(prefix, node, f'#!/bin/sh\nexec {sys.executable} -m wm_nodes.nodes.{node} "$@"\n')
    file = tmp_path / "two.launch.py"
    file.write_text(TWO_ARMS.replace("FILE", str(ROOT / "launch" / "arm_mpc.launch.py")))
    output = tmp_path / "output.txt"
    with output.open("wb") as stream:
        running = subprocess.Popen(
            command(file),
            cwd=tmp_path,
            env=environment(prefix, tmp_path),
            stdout=stream,
            stderr=stream,
        )
    logs = [tmp_path / "runs" / side / "log" for side in ("left", "right")]
    try:
        end = time.monotonic() + 180
        while not all(rows(log) >= 5 for log in logs):
            assert running.poll() is None and time.monotonic() < end, output.read_text()
            time.sleep(0.5)
    finally:
        running.send_signal(signal.SIGINT)
        code = running.wait(180)
    printed = output.read_text()
    assert code == 0, printed
    for side, log in zip(("left", "right"), logs):
        assert f"[{side}.robot.robot]: active" in printed
        assert f"[{side}.arm_sim.arm_sim]: active" in printed
        with LogReader(log) as reader:
            assert len(reader.episodes) == 1  # not cut by another arm's images
            assert (np.diff(reader.read("stamp", 0, reader.length)) > 0).all()


def rows(log: Path) -> int:
    try:
        with LogReader(log) as reader:
            return reader.length
    except (LogError, OSError):
        return 0
