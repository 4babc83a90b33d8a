"""The whole graph as real processes: an episode from simulator to log, and a clean end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("metaworld")

from tests import domains
from tests.wm_nodes.node_parameters import assert_declared
from wm_datasets import LogReader
from wm_nodes.graphs.sim_metaworld import GRAPH

START_S = 180.0  # a loaded machine imports torch slowly


@pytest.fixture
def launch(tmp_path):
    """Start `wm launch` of a graph in an empty folder; end the processes that still run."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, graph: str = "sim_metaworld") -> subprocess.Popen[str]:
        program = "from wm_nodes.cli.main import main; raise SystemExit(main())"
        command = [sys.executable, "-c", program, "launch", graph, "run:=one", *arguments]
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domains.PROCESSES)}
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=START_S)


def rows(folder: Path) -> int:
    log = folder / "runs/one/log"
    if not (log / "zarr.json").exists():
        return 0
    with LogReader(log) as reader:
        return reader.length


def wait_for_rows(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + START_S
    while rows(folder) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{rows(folder)} rows after {START_S:.0f} s"
        time.sleep(0.2)


def processes_of(folder: Path) -> list[str]:
    output = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return [line for line in output.splitlines() if str(folder) in line]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("composition", ["split", pytest.param("fused", marks=pytest.mark.slow)])
def test_episodes_of_the_simulator_are_recorded_in_the_log(launch, tmp_path, composition):
    process = launch("train:=false", "episodes:=2", "time_limit:=30", f"composition:={composition}")
    output, _ = process.communicate(timeout=2 * START_S)
    assert process.returncode == 0, output
    with LogReader(tmp_path / "runs/one/log") as log:
        assert log.episodes["complete"].tolist() == [True, True]
        assert log.episodes["length"].tolist() == [31, 31]
    assert re.search(r"120 steps, 2 episodes", output), output
    assert processes_of(tmp_path) == []


@pytest.mark.timeout(600)
def test_dm_control_is_recorded_with_its_background_and_shows_returns_only(launch, tmp_path):
    pytest.importorskip("dm_control")
    arguments = ("train:=false", "episodes:=2", "time_limit:=20", "composition:=fused")
    process = launch(*arguments, "background:=procedural:distracting", graph="sim_dmc")
    output, _ = process.communicate(timeout=2 * START_S)
    assert process.returncode == 0, output
    assert "return" in output and "success" not in output
    with LogReader(tmp_path / "runs/one/log") as log:
        assert log.episodes["length"].tolist() == [21, 21]
        assert (log.spec.robot, log.spec.task) == ("dmc", "cartpole_balance")
        assert log.spec.extra["background"] == "procedural:distracting"
        assert not log.spec.success
        images = log.read("image/main", 0, 2)
        assert (images[0] != images[1]).mean() > 0.5


@pytest.mark.timeout(600)
def test_ctrl_c_ends_a_learning_run_with_all_rows_kept_and_the_same_command_continues_it(
    launch, tmp_path
):
    process = launch("time_limit:=30", "composition:=fused")
    wait_for_rows(tmp_path, process, 35)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 0, output
    assert processes_of(tmp_path) == []
    before = rows(tmp_path)
    assert before >= 35

    continued = launch()
    wait_for_rows(tmp_path, continued, before + 5)
    continued.send_signal(signal.SIGINT)
    output, _ = continued.communicate(timeout=START_S)
    assert "run one continues" in output
    with LogReader(tmp_path / "runs/one/log") as log:
        assert log.episodes["length"][0] == 31
        assert log.read("is_first", before, before + 1).all()  # a restart begins a new episode


def test_every_declared_parameter_is_one_of_its_node(tmp_path):
    """The graph and the nodes must agree on names, types and ranges, for every node."""
    run_values = {"run": str(tmp_path), "log": str(tmp_path / "log"), "demos": 3}
    values = {**GRAPH.defaults(), **run_values}
    assert len(GRAPH.nodes) > 5
    several = {**values, "envs": 2, "composition": "fused"}
    for node in GRAPH.nodes:
        assert_declared(
            node.executable, node.parameters(values if node.condition(values) else several)
        )
