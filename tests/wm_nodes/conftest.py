"""ROS for tests: a fresh context for each test, in the domain of this process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = itertools.count()


class Graph:
    """Nodes of one test in one executor, and a plain node `probe` that publishes and subscribes."""

    def __init__(self, context: Any, executor: Any = None) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self.context, self.namespace = context, f"/test{next(NAMES)}"
        self.executor = executor or SingleThreadedExecutor(context=context)
        self.nodes: list[Any] = []
        self.neighbours: list[Graph] = []
        self.probe = Node("probe", context=context, namespace=self.namespace)
        self.executor.add_node(self.probe)

    def neighbour(self) -> Graph:
        """Return a graph in another namespace, in the same domain and executor."""
        self.neighbours.append(Graph(self.context, self.executor))
        return self.neighbours[-1]

    def add(
        self, kind: Callable[..., Any], *, begin: bool = True, name: str = "", **parameters: Any
    ) -> Any:
        """Make a node with parameters and, with `begin`, activate it. name: empty: the kind's own.

        It is in the test's namespace; a simulator, which is no node of the robot, in its own.
        """
        from rclpy.parameter import Parameter

        from wm_nodes.ros.topics import NAMESPACE

        own = getattr(kind, "NAMESPACE", NAMESPACE)
        node = kind(
            context=self.context,
            cli_args=["--ros-args", "-r", f"__node:={name}"] if name else None,
            namespace=self.namespace if own == NAMESPACE else own,
            parameter_overrides=[Parameter(name, value=v) for name, v in parameters.items()],
        )
        self.nodes.append(node)
        self.executor.add_node(node)
        if begin:
            node.begin()
        return node

    def subscribe(self, topic: Any, convert: Callable = lambda msg: msg, **names: str) -> list:
        """Subscribe to a topic; return the list to which its messages are appended."""
        received: list = []
        topic.subscription(self.probe, lambda msg: received.append(convert(msg)), **names)
        return received

    def until(self, condition: Callable[[], object], timeout_s: float = 120.0) -> None:
        """Spin until the condition holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "the condition did not hold in time"
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def matched(self, publisher: Any, count: int = 1) -> Any:
        """Wait for `count` subscriptions of a publisher; return the publisher."""
        self.until(lambda: publisher.get_subscription_count() >= count)
        return publisher

    def remove(self, node: Any) -> None:
        """End a node and remove it."""
        node.end()
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def kill(self, node: Any) -> None:
        """Remove a node without its orderly end, as after `kill -9`: it publishes no more."""
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def close(self) -> None:
        for graph in (*self.neighbours, self):
            for node in list(graph.nodes):
                graph.remove(node)
            graph.probe.destroy_node()
        self.executor.shutdown()


@pytest.fixture
def graph() -> Iterator[Graph]:
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    rclpy.init(context=context)
    test_graph = Graph(context)
    yield test_graph
    test_graph.close()
    rclpy.try_shutdown(context=context)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights of mwm_cpu for one action dimension: versions 1 and 2."""
    from wm_models.registry import preset
    from wm_models.weights.manifest import Manifest
    from wm_models.weights.store import WeightStore

    weight_store = WeightStore(tmp_path_factory.mktemp("weights"))
    for version in (1, 2):
        model = preset("mwm_cpu").build(1, seed=version)
        manifest = Manifest(version=version, preset="mwm_cpu", action_dim=1)
        weight_store.save(model.modules_by_name(), manifest)
    return weight_store
