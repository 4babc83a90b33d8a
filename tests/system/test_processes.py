"""Real processes: whole runs, killed nodes, Ctrl-C, and mistakes of the user."""

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

    def start(self, name: str, *parameters: str, words: tuple[str, ...] = ()) -> subprocess.Popen:
        given = [word for p in parameters for word in ("-p", p)]
        with (self.folder / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", f"wm_nodes.nodes.{name}", "--ros-args", *given, *words],
                cwd=ROOT,
                env={**os.environ, **ENV},
                stdout=out,
                stderr=out,
            )
        self.running[name] = process
        return process

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def until_said(self, name: str, text: str, timeout_s: float = WAIT_S) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.said(name):
            assert self.running[name].poll() is None, self.said(name)
            assert time.monotonic() < end, f"{name} did not say {text!r}: {self.said(name)}"
            time.sleep(0.02)

    def stop(self, name: str, number: int = signal.SIGINT) -> int:
        """Send a signal; return the exit code."""
        process = self.running.pop(name)
        process.send_signal(number)
        return process.wait(WAIT_S)

    def kill_all(self) -> None:
        """Kill what is left and print what each node logged: pytest shows it when a test fails."""
        for name, process in self.running.items():
            print(f"{name}: {'running' if process.poll() is None else process.returncode}")
            process.kill()
            process.wait()
        for path in sorted(self.folder.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}")


@pytest.fixture
def processes(tmp_path: Path):
    made = Processes(tmp_path)
    yield made
    made.kill_all()


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
    assert robot.wait(2 * WAIT_S) == 0, processes.said("robot")
    for name in [n for n in processes.running if n != "robot"]:
        assert processes.stop(name) == 0, processes.said(name)
    processes.running.clear()
    return digest(log, episodes * 11)


def digest(path: Path, rows: int) -> str:
    log = LogReader(path)
    assert log.length == rows and log.episodes["complete"].all()
    found = hashlib.sha256()
    for name in log.spec.fields:
        found.update(log.read(name, 0, rows).tobytes())
    return found.hexdigest()


@pytest.mark.timeout(600)
def test_a_run_repeats_bit_for_bit_split_or_fused(processes, store, tmp_path) -> None:
    fused = run(processes, "fused", store, tmp_path / "a")
    split = run(processes, "split", store, tmp_path / "b")
    assert fused == split
    log = LogReader(tmp_path / "a")
    assert set(log.read("weights", 0, 33)) == {1} and set(log.read("source", 0, 33)) <= {0, 2}


def rows(path: Path) -> int:
    return LogReader(path).length if (path / "zarr.json").exists() else 0


def grows(path: Path, by: int, timeout_s: float = WAIT_S) -> None:
    start, end = rows(path), time.monotonic() + timeout_s
    while rows(path) < start + by:
        assert time.monotonic() < end, f"{rows(path) - start} rows more, not {by}"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_a_killed_agent_comes_back_and_the_run_goes_on(processes, store, tmp_path) -> None:
    log = tmp_path / "log"
    weights = f"weights:={store.path(1)}"
    processes.start("agent", *TOP, weights)
    processes.start("recorder", f"log:={log}")
    processes.start("robot", *POINT, "time_limit:=20", "pace_hz:=50.0")
    grows(log, 5)
    processes.stop("agent", signal.SIGKILL)
    time.sleep(0.5)
    before = rows(log)
    processes.start("agent", *TOP, weights)
    grows(log, 30)
    assert processes.stop("robot") == 0
    assert processes.stop("recorder") == 0
    read = LogReader(log)
    stamps = read.read("stamp", 0, read.length)
    gaps = np.flatnonzero(np.diff(stamps) != 100_000_000) + 1
    # Pictures that the recorder had not fetched from the agent die with it, all at one place; what
    # comes after them is an episode of its own.
    assert len(gaps) <= 1 and set(gaps) <= set(read.episodes["start"])
    assert (np.diff(stamps) > 0).all() and before < read.length


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_killed_node_of_the_split_graph_comes_back(processes, store, tmp_path) -> None:
    log = tmp_path / "log"
    weights = f"weights:={store.path(1)}"
    given = {
        "camera": TOP,
        "encoder": [*TOP, weights],
        "world_model": [weights],
        "policy": [weights],
        "robot": [*POINT, "time_limit:=20", f"progress:={tmp_path / 'progress.json'}"],
    }
    processes.start("recorder", f"log:={log}")
    for name, parameters in given.items():
        processes.start(name, *parameters, "autostart:=true")
    grows(log, 5)
    for name, parameters in given.items():
        processes.stop(name, signal.SIGKILL)
        processes.start(name, *parameters)
        grows(log, 100)
    assert processes.stop("robot") == processes.stop("recorder") == 0
    read = LogReader(log)
    table = read.episodes
    stamps = read.read("stamp", 0, read.length)
    jumps = np.flatnonzero(np.diff(stamps) != 100_000_000) + 1
    # The log is cut in two places at most: where the robot starts again, and where the encoder got
    # a picture and the recorder did not, because the camera node died or was not yet discovered.
    ends = table["start"] + table["length"]
    cuts = {*jumps, *ends[:-1][~table["complete"][:-1]]}
    assert len(cuts) <= 2 and cuts <= set(table["start"])
    beside = np.isin(table["start"], list(cuts)) | np.isin(ends, list(cuts))
    assert (table["length"][~beside][:-1] == 21).all() and (table["length"] == 21).sum() > 10


@pytest.mark.timeout(600)
def test_a_killed_recorder_loses_nothing_it_had_and_control_goes_on(
    processes, store, tmp_path
) -> None:
    log = tmp_path / "log"
    processes.start("agent", *TOP)
    processes.start("recorder", f"log:={log}")
    progress = tmp_path / "progress.json"
    point = [*POINT[:-1], "await_recorder_s:=30.0"]
    processes.start("robot", *point, "time_limit:=5", "pace_hz:=50.0", f"progress:={progress}")
    grows(log, 5)
    processes.stop("recorder", signal.SIGKILL)
    had = rows(log)
    processes.start("recorder", f"log:={log}")
    grows(log, 10)
    read = LogReader(log)
    assert read.length > had
    assert processes.stop("robot") == processes.stop("recorder") == 0


@pytest.mark.timeout(600)
def test_a_full_disk_stops_no_other_node_and_recording_goes_on_when_there_is_room(
    processes, tmp_path
) -> None:
    log, progress = tmp_path / "log", tmp_path / "progress.json"
    processes.start("agent", *TOP)
    recorder = processes.start("recorder", f"log:={log}")
    processes.start("robot", *POINT, "time_limit:=5", "pace_hz:=50.0", f"progress:={progress}")
    grows(log, 20)
    # A file may grow no more: what a full disk is to the one process that writes there.
    unlimited = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in (log / "wal").iterdir())
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (largest + 20_000, unlimited[1]))
    processes.until_said("recorder", "not recording: no room")
    had, done = rows(log), decisions(progress)
    end = time.monotonic() + WAIT_S
    while decisions(progress) < done + 200:
        assert recorder.poll() is None, processes.said("recorder")
        assert time.monotonic() < end, [processes.said(name) for name in processes.running]
        time.sleep(0.05)
    assert rows(log) - had < 100
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, unlimited)
    processes.until_said("recorder", "recording again")
    grows(log, 20)
    assert processes.stop("robot") == processes.stop("recorder") == 0
    assert "unrecorded" not in processes.said("robot")
    table = LogReader(log).episodes
    assert (table["complete"] | (table["length"] < 6)).all() and table["complete"].sum() > 4
    assert {fault.kind for fault in verify(log).faults} <= {"rate"}


def decisions(progress: Path) -> int:
    """How many decisions has the robot made?"""
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
    processes.until_said(name, "active")
    assert processes.stop(name, number) == 0, processes.said(name)
    assert "Traceback" not in processes.said(name)


@pytest.mark.parametrize(
    ("name", "parameters", "words", "right"),
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
def test_a_mistake_is_refused_in_two_lines(processes, name, parameters, words, right) -> None:
    code = processes.start(name, *parameters, words=words).wait(WAIT_S)
    said = processes.said(name)
    lines = [line for line in said.splitlines() if line.startswith("error")]
    assert code == 2 and right in said and len(lines) == 1, said
    assert "Traceback" not in said and len(said.splitlines()) <= 4


def test_a_malformed_file_of_parameters_is_refused(processes, tmp_path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("robot:\n  ros__parameters: [")
    code = processes.start("robot", words=("--params-file", str(path))).wait(WAIT_S)
    said = processes.said("robot")
    assert code == 2 and "params.yaml" in said and "Traceback" not in said


def test_every_node_has_a_main() -> None:
    for name in NODES:
        assert "def main()" in (ROOT / "wm_nodes" / "nodes" / f"{name}.py").read_text()
