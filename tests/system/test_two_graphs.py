"""Two graphs in one namespace, as real processes: one continues, one ends; no row is mixed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from tests import domains
from wm_datasets.log import LogReader

ROOT = Path(__file__).parents[2]
DOMAIN = domains.claim()
NODES = ("recorder", "scripted_policy", "robot")
EARLY, LATE = "1_aa", "f000000000000000_bb"  # launches: EARLY started first
START_S = 180.0  # a loaded machine starts slowly
TIME_LIMIT = 10
LEASE_S = 15.0  # DDS keeps what a killed node left for 20 s


class Graph:
    """Robot, random policy and recorder: launched if `run` is not empty, else by hand."""

    def __init__(self, folder: Path, seed: int, run: str) -> None:
        folder.mkdir()
        self.folder, self.log = folder, folder / "log"
        self.env = {
            **os.environ,
            "ROS_DOMAIN_ID": str(DOMAIN),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "models", "datasets")),
            **({"WM_NODES_RUN": run} if run else {}),
        }
        self.parameters = {
            "recorder": [f"log:={self.log}", "raw:=true"],
            "scripted_policy": ["policy:=random", f"seed:={seed}"],
            "robot": ["adapter:=tests.wm_nodes.point_robot:PointRobot", f"seed:={seed}",
                      "retry_s:=0.2", "await_recorder_s:=600.0", f"time_limit:={TIME_LIMIT}",
                      "pace_hz:=50.0", f"progress:={folder / 'progress.json'}"],
        }  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names or NODES:
            options = [option for p in self.parameters[name] for option in ("-p", p)]
            with (self.folder / f"{name}.log").open("ab") as out:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", f"wm_nodes.nodes.{name}", "--ros-args", *options],
                    cwd=ROOT, env=self.env, stdout=out, stderr=out,
                )  # fmt: skip

    def output(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @property
    def rows(self) -> int:
        if not (self.log / "zarr.json").exists():
            return 0
        with LogReader(self.log) as log:
            return log.length

    def wait_for_rows(self, count: int) -> None:
        end, rows = time.monotonic() + START_S, self.rows + count
        while self.rows < rows:
            assert time.monotonic() < end, {name: self.output(name) for name in self.processes}
            time.sleep(0.1)

    def wait_until_refused(self) -> None:
        """Wait until every node has ended with 2 and one line."""
        for name, process in self.processes.items():
            assert process.wait(START_S) == 2, self.output(name)
            errors = [line for line in self.output(name).splitlines() if line.startswith("error:")]
            assert len(errors) == 1 and "got a second one" in errors[0], self.output(name)
            assert "ns:=NAME" in errors[0] and "Traceback" not in self.output(name)

    def assert_recording(self) -> None:
        self.wait_for_rows(3 * TIME_LIMIT)
        assert all(process.poll() is None for process in self.processes.values())

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for name, process in self.processes.items():
            assert process.wait(START_S) == 0, self.output(name)

    def assert_consistent(self) -> None:
        """Every row's image shows the position in its proprioception, and no stamp is missing."""
        with LogReader(self.log) as log:
            positions = log.read("proprio", 0, log.length)[:, 0]
            images = log.read("image/top", 0, log.length)
            scale = images.shape[1] // 8  # the robot's image has 8 x 8 squares
            columns = images[:, 4 * scale, ::scale, 0].argmax(axis=1)
            assert np.array_equal(columns, ((positions + 2) / 4 * 7.99).astype(int))
            assert set(np.diff(log.read("stamp", 0, log.length))) == {100_000_000}


@pytest.fixture
def graphs(tmp_path: Path):
    started_graphs: list[Graph] = []

    def create(seed: int, run: str) -> Graph:
        started_graphs.append(Graph(tmp_path / f"graph{seed}", seed, run))
        return started_graphs[-1]

    yield create
    for graph in started_graphs:
        for process in graph.processes.values():
            process.kill()
            process.wait()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "runs",
    [
        pytest.param((EARLY, LATE), id="launched"),
        pytest.param(("", ""), id="by hand", marks=pytest.mark.slow),
    ],
)
def test_a_second_graph_is_refused_and_the_first_continues(graphs, runs) -> None:
    first, second = (graphs(seed, run) for seed, run in enumerate(runs))
    first.start()
    first.wait_for_rows(TIME_LIMIT)
    second.start()
    second.wait_until_refused()
    first.assert_recording()
    first.stop()
    first.assert_consistent()
    if second.rows:  # of its own robot, on a machine that discovered the first graph late
        second.assert_consistent()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_earlier_launch_continues_also_where_it_appears_second(graphs) -> None:
    late, early = graphs(0, LATE), graphs(1, EARLY)
    late.start()
    late.wait_for_rows(TIME_LIMIT)  # the clock of its computer is wrong: it counts as second
    early.start()
    late.wait_until_refused()
    early.assert_recording()
    early.stop()
    early.assert_consistent()
    late.assert_consistent()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_nodes_are_restarted_while_still_listed_by_discovery(graphs) -> None:
    graph = graphs(0, EARLY)
    graph.start()
    graph.wait_for_rows(TIME_LIMIT)
    for name in ("scripted_policy", "robot"):
        graph.processes[name].kill()
        graph.processes[name].wait()
        graph.start(name)
        graph.wait_for_rows(2 * TIME_LIMIT)
    graph.stop()
    assert "second" not in "".join(map(graph.output, NODES))


@pytest.mark.timeout(300)
def test_a_clean_end_leaves_no_discovery_entry_and_no_shared_memory(graphs) -> None:
    import rclpy
    from rclpy.node import Node

    graph = graphs(0, "")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Node("watch", context=context)
    try:
        before = set(Path("/dev/shm").iterdir())
        graph.start("scripted_policy")
        end = time.monotonic() + START_S
        while "scripted_policy" not in node.get_node_names() or "active" not in graph.output(
            "scripted_policy"
        ):
            assert time.monotonic() < end, graph.output("scripted_policy")
            time.sleep(0.05)
        maps = Path(f"/proc/{graph.processes['scripted_policy'].pid}/maps").read_text().split()
        mapped = {Path(word) for word in maps if word.startswith("/dev/shm/fastdds_")} - before
        graph.stop()
        began = time.monotonic()
        while "scripted_policy" in node.get_node_names():
            assert time.monotonic() - began < LEASE_S, (
                "it is removed only after the lease, like a killed node"
            )
            time.sleep(0.02)
        segments = {file for file in mapped if "port" not in file.name}
        assert segments and not existing(segments)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    del node, context
    gc.collect()
    assert not existing(mapped)  # ports stay while another process has them open


def existing(files: set[Path]) -> list[Path]:
    locked = {Path(f"{file}_el") for file in files}
    return [file for file in files | locked if file.exists()]
