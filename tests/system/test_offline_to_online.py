"""`wm train --run NAME`, then `wm launch sim_metaworld run:=NAME`: one run, as real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("metaworld")

from tests import domains
from wm_datasets import LogReader
from wm_models.weights.store import WeightStore, read_manifest

START_S = 180.0  # a loaded machine imports torch slowly
OFFLINE = 4  # updates


@pytest.fixture
def wm(tmp_path):
    """Start `wm ARGUMENTS` in an empty folder; end the processes that still run."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        program = "from wm_nodes.cli.main import main; raise SystemExit(main())"
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domains.PROCESSES)}
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
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


def finish(process: subprocess.Popen[str], timeout_s: float = START_S) -> str:
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    return output


def updates(run: Path) -> int:
    """Number of updates of the newest weights of a run."""
    return read_manifest(run / "weights").step


def online_updates_reported(run: Path) -> bool:
    """Has the graph's trainer reported updates? It writes weights only at its end."""
    file = run / "metrics" / "train.csv"
    return file.exists() and any(int(line.split(",")[1]) > OFFLINE for line in lines(file))


def lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines()[1:] if line.count(",") == 3]


def recorded_rows(run: Path) -> int:
    """Number of rows that the graph has recorded into the run's log."""
    if not (run / "log" / "zarr.json").exists():
        return 0
    with LogReader(run / "log") as log:
        return log.length


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_trained_offline_continues_online(wm, tmp_path):
    robot = ("--task", "window-close-v3", "--time-limit", "60")
    finish(wm("collect", "--out", "play", "--policy", "random", "--episodes", "2", *robot))
    train = ("train", "--log", "play", "--run", "one", "--steps", str(OFFLINE), "--device", "cpu")
    assert "wm launch sim_metaworld run:=one" in finish(wm(*train))
    run = tmp_path / "runs" / "one"
    store = WeightStore(run / "weights")
    offline = store.latest()
    assert updates(run) == OFFLINE

    launched = wm("launch", "sim_metaworld", "run:=one", "composition:=fused")
    deadline = time.monotonic() + START_S
    while recorded_rows(run) < 40 or not online_updates_reported(run):
        assert launched.poll() is None, launched.communicate()[0]
        assert time.monotonic() < deadline, f"{recorded_rows(run)} rows after {START_S:.0f} s"
        time.sleep(0.2)
    launched.send_signal(signal.SIGINT)
    finish(launched)

    assert updates(run) > OFFLINE  # training continued from the offline weights
    assert read_manifest(store.path(store.latest())).parent == offline
    with LogReader(run / "log") as log:
        assert log.spec.task == "window-close-v3"  # the robot of the weights
        assert log.spec.extra["time_limit"] == 60
