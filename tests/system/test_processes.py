"""Real processes: whole runs, killed nodes, Ctrl-C, and wrong arguments."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from tests import domains
from tests.wm_nodes.conftest import ROOT
from wm_datasets.log import LogReader
from wm_datasets.log.verify import verify

WAIT_S = 180.0  # a loaded machine imports torch slowly
POINT = ["adapter:=tests.wm_nodes.point_robot:PointRobot", "retry_s:=0.2",
         "await_recorder_s:=600.0"]  # fmt: skip
TOP = ["camera:=top"]
ENV = {
    "OMP_NUM_THREADS": "1",
    "ROS_DOMAIN_ID": str(domains.PROCESSES),
    "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "models", "datasets")),
}
NODES = ["camera", "encoder", "world_model", "policy", "agent", "robot", "recorder", "trainer",
         "monitor"]  # fmt: skip


class Processes:
    """Node processes of one test; `logs` has their output."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, {}

    def start(
        self, name: str, *parameters: str, arguments: tuple[str, ...] = ()
    ) -> subprocess.Popen:
        options = [option for p in parameters for option in ("-p", p)]
        with (self.folder / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    f"wm_nodes.nodes.{name}",
                    "--ros-args",
                    *options,
                    *arguments,
                ],
                cwd=ROOT,
                env={**os.environ, **ENV},
                stdout=out,
                stderr=out,
            )
        self.running[name] = process
        return process

    def output(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_for_output(self, name: str, text: str, timeout_s: float = WAIT_S) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.output(name):
            assert self.running[name].poll() is None, self.output(name)
            assert time.monotonic() < end, f"{name} did not log {text!r}: {self.output(name)}"
            time.sleep(0.02)

    def stop(self, name: str, number: int = signal.SIGINT) -> int:
        """Send a signal; return the exit code."""
        process = self.running.pop(name)
        process.send_signal(number)
        return process.wait(WAIT_S)

    def kill_all(self) -> None:
        """Kill running nodes and print what each node logged: pytest shows it when a test fails."""
        for name, process in self.running.items():
            print(f"{name}: {'running' if process.poll() is None else process.returncode}")
            process.kill()
            process.wait()
        for path in sorted(self.folder.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}")


@pytest.fixture
def processes(tmp_path: Path):
    started_processes = Processes(tmp_path)
    yield started_processes
    started_processes.kill_all()


def run(processes: Processes, composition: str, store, log: Path, episodes: int = 3) -> str:
    """Run the whole graph to its end; return the digest of its log."""
    weights = [f"weights:={store.path(1)}"]
    if composition == "fused":
        processes.start("agent", *TOP, *weights)
    else:
        processes.start("camera", *TOP)
        processes.start("encoder", *TOP, *weights)
        processes.start("world_model", *weights)
        processes.start("policy", *weights)
    processes.start("recorder", f"log:={log}")
    robot = processes.start("robot", *POINT, "time_limit:=10", f"episodes:={episodes}")
    assert robot.wait(2 * WAIT_S) == 0, processes.output("robot")
    for name in [n for n in processes.running if n != "robot"]:
        assert processes.stop(name) == 0, processes.output(name)
    processes.running.clear()
    return digest(log, episodes * 11)


def digest(path: Path, rows: int) -> str:
    log = LogReader(path)
    assert log.length == rows and log.episodes["complete"].all()
    log_hash = hashlib.sha256()
    for name in log.spec.fields:
        log_hash.update(log.read(name, 0, rows).tobytes())
    return log_hash.hexdigest()


@pytest.mark.timeout(600)
def test_a_run_repeats_bit_for_bit_split_or_fused(processes, store, tmp_path) -> None:
    fused = run(processes, "fused", store, tmp_path / "a")
    split = run(processes, "split", store, tmp_path / "b")
    assert fused == split
    log = LogReader(tmp_path / "a")
    assert set(log.read("weights", 0, 33)) == {1} and set(log.read("source", 0, 33)) <= {0, 2}


def rows(path: Path) -> int:
    return LogReader(path).length if (path / "zarr.json").exists() else 0


def wait_for_rows(path: Path, by: int, timeout_s: float = WAIT_S) -> None:
    start, end = rows(path), time.monotonic() + timeout_s
    while rows(path) < start + by:
        assert time.monotonic() < end, f"{rows(path) - start} new rows, expected {by}"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_a_run_continues_after_a_killed_agent_was_restarted(processes, store, tmp_path) -> None:
    log = tmp_path / "log"
    weights = f"weights:={store.path(1)}"
    processes.start("agent", *TOP, weights)
    processes.start("recorder", f"log:={log}")
    processes.start("robot", *POINT, "time_limit:=20", "pace_hz:=50.0")
    wait_for_rows(log, 5)
    processes.stop("agent", signal.SIGKILL)
    time.sleep(0.5)
    before = rows(log)
    processes.start("agent", *TOP, weights)
    wait_for_rows(log, 30)
    assert processes.stop("robot") == 0
    assert processes.stop("recorder") == 0
    reader = LogReader(log)
    stamps = reader.read("stamp", 0, reader.length)
    gaps = np.flatnonzero(np.diff(stamps) != 100_000_000) + 1
    # Images that the recorder had not received when the agent was killed are lost, all at one
    # place; the rows after them are a separate episode.
    assert len(gaps) <= 1 and set(gaps) <= set(reader.episodes["start"])
    assert (np.diff(stamps) > 0).all() and before < reader.length


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_killed_node_of_the_split_graph_is_restarted(processes, store, tmp_path) -> None:
    log = tmp_path / "log"
    weights = f"weights:={store.path(1)}"
    parameters_of_nodes = {
        "camera": TOP,
        "encoder": [*TOP, weights],
        "world_model": [weights],
        "policy": [weights],
        "robot": [*POINT, "time_limit:=20", f"progress:={tmp_path / 'progress.json'}"],
    }
    processes.start("recorder", f"log:={log}")
    for name, parameters in parameters_of_nodes.items():
        processes.start(name, *parameters, "autostart:=true")
    wait_for_rows(log, 5)
    for name, parameters in parameters_of_nodes.items():
        processes.stop(name, signal.SIGKILL)
        processes.start(name, *parameters)
        wait_for_rows(log, 100)
    assert processes.stop("robot") == processes.stop("recorder") == 0
    reader = LogReader(log)
    table = reader.episodes
    stamps = reader.read("stamp", 0, reader.length)
    jumps = np.flatnonzero(np.diff(stamps) != 100_000_000) + 1
    # The log is cut in two places at most: where the robot starts again, and where the encoder got
    # an image and the recorder did not, because the camera node was killed or not yet discovered.
    ends = table["start"] + table["length"]
    cuts = {*jumps, *ends[:-1][~table["complete"][:-1]]}
    assert len(cuts) <= 2 and cuts <= set(table["start"])
    at_cut = np.isin(table["start"], list(cuts)) | np.isin(ends, list(cuts))
    assert (table["length"][~at_cut][:-1] == 21).all() and (table["length"] == 21).sum() > 10


@pytest.mark.timeout(600)
def test_a_killed_recorder_loses_no_recorded_row_and_control_continues(
    processes, store, tmp_path
) -> None:
    log = tmp_path / "log"
    processes.start("agent", *TOP)
    processes.start("recorder", f"log:={log}")
    progress = tmp_path / "progress.json"
    robot_parameters = [*POINT[:-1], "await_recorder_s:=30.0"]
    processes.start(
        "robot", *robot_parameters, "time_limit:=5", "pace_hz:=50.0", f"progress:={progress}"
    )
    wait_for_rows(log, 5)
    processes.stop("recorder", signal.SIGKILL)
    rows_before = rows(log)
    processes.start("recorder", f"log:={log}")
    wait_for_rows(log, 10)
    reader = LogReader(log)
    assert reader.length > rows_before
    assert processes.stop("robot") == processes.stop("recorder") == 0


@pytest.mark.timeout(600)
def test_a_full_disk_stops_no_other_node_and_recording_continues_when_there_is_space(
    processes, tmp_path
) -> None:
    log, progress = tmp_path / "log", tmp_path / "progress.json"
    processes.start("agent", *TOP)
    recorder = processes.start("recorder", f"log:={log}")
    processes.start("robot", *POINT, "time_limit:=5", "pace_hz:=50.0", f"progress:={progress}")
    wait_for_rows(log, 20)
    # A file size limit: to the recorder process it is the same as a full disk.
    unlimited = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in (log / "wal").iterdir())
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (largest + 20_000, unlimited[1]))
    processes.wait_for_output("recorder", "no room to record")
    rows_before, steps_before = rows(log), agent_steps(progress)
    end = time.monotonic() + WAIT_S
    while agent_steps(progress) < steps_before + 200:
        assert recorder.poll() is None, processes.output("recorder")
        assert time.monotonic() < end, [processes.output(name) for name in processes.running]
        time.sleep(0.05)
    assert rows(log) - rows_before < 100
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, unlimited)
    processes.wait_for_output("recorder", "recording again")
    wait_for_rows(log, 20)
    assert processes.stop("robot") == processes.stop("recorder") == 0
    assert "unrecorded" not in processes.output("robot")
    table = LogReader(log).episodes
    assert (table["complete"] | (table["length"] < 6)).all() and table["complete"].sum() > 4
    assert {fault.kind for fault in verify(log).faults} <= {"rate"}


def agent_steps(progress: Path) -> int:
    """Number of agent steps that the robot has executed."""
    return json.loads(progress.read_text())["decisions"] if progress.exists() else 0


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("agent", signal.SIGINT),
        ("agent", signal.SIGTERM),
        ("robot", signal.SIGINT),
        ("recorder", signal.SIGTERM),
        ("camera", signal.SIGINT),
        ("monitor", signal.SIGTERM),
    ],
)
def test_a_signal_ends_a_node(processes, tmp_path, name: str, number: int) -> None:
    parameters = {"robot": POINT, "recorder": [f"log:={tmp_path / 'log'}"]}.get(name, [])
    processes.start(name, *parameters)
    processes.wait_for_output(name, "active")
    assert processes.stop(name, number) == 0, processes.output(name)
    assert "Traceback" not in processes.output(name)


@pytest.mark.parametrize(
    ("name", "parameters", "arguments", "expected"),
    [
        ("robot", ["taks:=reach-v3"], (), "Did you mean 'task'"),
        ("robot", ["episodes:=-1"], (), "a whole number from 0"),
        ("robot", ["adapter:=nothing"], (), "metaworld"),
        ("agent", ["weights:=/nowhere"], (), "nothing at /nowhere"),
        ("policy", ["planner:=dreams"], (), "one of actor, cem, mppi"),
        ("recorder", ["durable_s:=no"], (), "a number"),
        ("camera", ["source:=/nowhere.mp4"], (), "cannot be opened"),
        ("trainer", ["model:=mwm_cpuu"], (), "mwm_cpu"),
        ("monitor", [], ("--params-file", "/nowhere.yaml"), "nowhere.yaml"),
        ("monitor", [], ("-p", "every_s"), "Expected: --ros-args"),
    ],
)
def test_a_wrong_argument_is_refused_in_two_lines(
    processes, name, parameters, arguments, expected
) -> None:
    code = processes.start(name, *parameters, arguments=arguments).wait(WAIT_S)
    output = processes.output(name)
    lines = [line for line in output.splitlines() if line.startswith("error")]
    assert code == 2 and expected in output and len(lines) == 1, output
    assert "Traceback" not in output and len(output.splitlines()) <= 4


def test_a_malformed_file_of_parameters_is_refused(processes, tmp_path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("robot:\n  ros__parameters: [")
    code = processes.start("robot", arguments=("--params-file", str(path))).wait(WAIT_S)
    output = processes.output("robot")
    assert code == 2 and "params.yaml" in output and "Traceback" not in output


def test_every_node_has_a_main() -> None:
    for name in NODES:
        assert "def main()" in (ROOT / "wm_nodes" / "nodes" / f"{name}.py").read_text()
