"""Real nodes as separate processes, their reports, and weights for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from wm_models.registry import preset
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.graphs.launch import die_with_parent


class NodeReports:
    """Reports of the nodes on /diagnostics: the newest of each."""

    def __init__(self, spin: Callable[[float], None]) -> None:
        self._spin = spin
        self._newest: dict[str, Mapping[str, str]] = {}  # by full name

    def spin(self, seconds: float = 0.1) -> None:
        """Receive reports for some time."""
        self._spin(seconds)

    def update(self, statuses: Mapping[str, Mapping[str, str]]) -> None:
        self._newest |= statuses

    def of(self, node: str) -> Mapping[str, str]:
        """Return the newest report of a node; empty before the first."""
        return next(iter(self.all_of(node)), {})

    def all_of(self, node: str) -> list[Mapping[str, str]]:
        """Return the newest report of each node of that name, of any namespace."""
        return [each for name, each in self._newest.items() if name.rsplit("/", 1)[-1] == node]


def fresh_weights(model: str, folder: Path, *, action_dim: int) -> Path:
    """Fresh weights of the preset, as the nodes load them."""
    store = WeightStore(folder / "weights")
    modules = preset(model).build(action_dim).modules_by_name()
    store.save(modules, Manifest(version=0, preset=model, action_dim=action_dim))
    return store.path(0)


@contextmanager
def diagnostics() -> Iterator[NodeReports]:
    """Subscribe to /diagnostics in the context."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    from wm_nodes.ros import topics
    from wm_nodes.ros.diagnostics import statuses

    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    node = Node("bench", context=context)
    executor.add_node(node)
    reports = NodeReports(lambda seconds: executor.spin_once(timeout_sec=seconds))
    topics.DIAGNOSTICS.subscription(node, lambda msg: reports.update(statuses(msg)))
    try:
        yield reports
    finally:
        executor.shutdown(timeout_sec=0.2)
        node.destroy_node()
        rclpy.shutdown(context=context)


@contextmanager
def process(
    name: str, folder: Path, parameters: Mapping[str, object], *, nice: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one node as a separate process, ended on exit."""
    words = [
        *die_with_parent.prefix(nice),
        sys.executable,
        "-m",
        f"wm_nodes.nodes.{name}",
        "--ros-args",
    ]
    for key, value in parameters.items():
        words += ["-p", f"{key}:={value}"]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def environment(more: Mapping[str, str]) -> Iterator[None]:
    """Use a separate ROS domain on this computer, for this process and the nodes."""
    changes = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(20 + os.getpid() % 80),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONUNBUFFERED": "1",
        **more,
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def last_lines(folder: Path) -> str:
    """Return the last lines in the logs of the nodes."""
    texts = []
    for path in sorted(folder.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()[-3:]
        texts += [f"{path.stem}: {line}" for line in lines]
    return "\n".join(["", *texts])
