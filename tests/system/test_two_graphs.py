"""Two graphs in one namespace, as real processes: one goes on, the other ends; no row is mixed."""

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
EARLY, LATE = "1_aa", "f000000000000000_bb"  # launches: the former began first
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
            words = [word for p in self.parameters[name] for word in ("-p", p)]
            with (self.folder / f"{name}.log").open("ab") as out:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", f"wm_nodes.nodes.{name}", "--ros-args", *words],
                    cwd=ROOT, env=self.env, stdout=out, stderr=out,
                )  # fmt: skip

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @property
    def rows(self) -> int:
        if not (self.log / "zarr.json").exists():
            return 0
        with LogReader(self.log) as log:
            return log.length

    def grows(self, count: int) -> None:
        end, rows = time.monotonic() + START_S, self.rows + count
        while self.rows < rows:
            assert time.monotonic() < end, {name: self.said(name) for name in self.processes}
            time.sleep(0.1)

    def refused(self) -> None:
        """Wait until every node has ended with 2 and one line."""
        for name, process in self.processes.items():
            assert process.wait(START_S) == 2, self.said(name)
            errors = [line for line in self.said(name).splitlines() if line.startswith("error:")]
            assert len(errors) == 1 and "got a second one" in errors[0], self.said(name)
            assert "ns:=NAME" in errors[0] and "Traceback" not in self.said(name)

    def goes_on(self) -> None:
        self.grows(3 * TIME_LIMIT)
        assert all(process.poll() is None for process in self.processes.values())

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for name, process in self.processes.items():
            assert process.wait(START_S) == 0, self.said(name)

    def whole(self) -> None:
        """Every row's image shows the place that its own proprioception says, and no time lacks."""
        with LogReader(self.log) as log:
            places = log.read("proprio", 0, log.length)[:, 0]
            images = log.read("image/top", 0, log.length)
            scale = images.shape[1] // 8  # the robot's image has 8 x 8 squares
            columns = images[:, 4 * scale, ::scale, 0].argmax(axis=1)
            assert np.array_equal(columns, ((places + 2) / 4 * 7.99).astype(int))
            assert set(np.diff(log.read("stamp", 0, log.length))) == {100_000_000}


@pytest.fixture
def graphs(tmp_path: Path):
    made: list[Graph] = []

    def make(seed: int, run: str) -> Graph:
        made.append(Graph(tmp_path / f"graph{seed}", seed, run))
        return made[-1]

    yield make
    for graph in made:
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
def test_a_second_graph_is_refused_and_the_first_goes_on(graphs, runs) -> None:
    first, second = (graphs(seed, run) for seed, run in enumerate(runs))
    first.start()
    first.grows(TIME_LIMIT)
    second.start()
    second.refused()
    first.goes_on()
    first.end()
    first.whole()
    if second.rows:  # of its own robot, on a machine that discovered the first graph late
        second.whole()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_earlier_launch_goes_on_also_where_it_comes_second(graphs) -> None:
    late, early = graphs(0, LATE), graphs(1, EARLY)
    late.start()
    late.grows(TIME_LIMIT)  # the clock of its computer is wrong: the other one counts as first
    early.start()
    late.refused()
    early.goes_on()
    early.end()
    early.whole()
    late.whole()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_nodes_come_back_while_their_ghosts_are_there(graphs) -> None:
    graph = graphs(0, EARLY)
    graph.start()
    graph.grows(TIME_LIMIT)
    for name in ("scripted_policy", "robot"):
        graph.processes[name].kill()
        graph.processes[name].wait()
        graph.start(name)
        graph.grows(2 * TIME_LIMIT)
    graph.end()
    assert "second" not in "".join(map(graph.said, NODES))


@pytest.mark.timeout(300)
def test_a_clean_end_leaves_no_ghost_and_no_shared_memory(graphs) -> None:
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
        while "scripted_policy" not in node.get_node_names() or "active" not in graph.said(
            "scripted_policy"
        ):
            assert time.monotonic() < end, graph.said("scripted_policy")
            time.sleep(0.05)
        maps = Path(f"/proc/{graph.processes['scripted_policy'].pid}/maps").read_text().split()
        own = {Path(word) for word in maps if word.startswith("/dev/shm/fastdds_")} - before
        graph.end()
        began = time.monotonic()
        while "scripted_policy" in node.get_node_names():
            assert time.monotonic() - began < LEASE_S, "it is forgotten like a killed node"
            time.sleep(0.02)
        segments = {file for file in own if "port" not in file.name}
        assert segments and not left(segments)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    del node, context
    gc.collect()
    assert not left(own)  # ports stay while another process has them open


def left(files: set[Path]) -> list[Path]:
    locked = {Path(f"{file}_el") for file in files}
    return [file for file in files | locked if file.exists()]
