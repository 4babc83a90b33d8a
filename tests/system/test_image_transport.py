"""Images between processes: with the shipped profile none is lost; lost images are counted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image

from tests.wm_nodes.conftest import graph
from wm_nodes.graphs.launch.environment import PROFILE_VARIABLES, network_environment
from wm_nodes.ros.matched_subscription import BEST_EFFORT, RELIABLE, MatchedSubscription

__all__ = ["graph"]
SOURCE = Path(__file__).parent / "image_source.py"
BYTES = 1280 * 720 * 3
COUNT = 20


@contextmanager
def source(topic: str, reliability: str, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    command = [sys.executable, SOURCE, topic, reliability, COUNT, 20, BYTES]
    with subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES} | environment,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


class CountingSubscription:
    """A subscription that keeps the numbers of all received images, and how many were lost."""

    def __init__(self, graph) -> None:
        self.lost = 0
        self.received: list[int] = []
        self.matched = MatchedSubscription(
            graph.probe, Image, "top/image_raw", self._receive, COUNT, on_lost=self._count_lost
        )

    def _receive(self, msg: Image) -> None:
        self.received.append(msg.height)

    def _count_lost(self, count: int) -> None:
        self.lost += count

    @property
    def span(self) -> int:
        return self.received[-1] - self.received[0] + 1 if self.received else 0


def start_publishing(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_with_the_profile_every_image_of_a_reliable_publisher_arrives(graph) -> None:
    images, topic = CountingSubscription(graph), f"{graph.namespace}/top/image_raw"
    with source(topic, "RELIABLE", network_environment("local")) as process:
        graph.until(lambda: images.matched.reliability == RELIABLE)
        start_publishing(process)
        graph.until(lambda: images.received and images.received[-1] == COUNT)
    assert images.received == list(range(images.received[0], COUNT + 1)) and images.lost == 0


def test_every_image_is_received_or_counted_as_lost(graph) -> None:
    """Best effort, and shared memory that holds no whole image: most images are lost."""
    images, topic = CountingSubscription(graph), f"{graph.namespace}/top/image_raw"
    with source(topic, "BEST_EFFORT", {}) as process:
        graph.until(lambda: images.matched.reliability == BEST_EFFORT)
        start_publishing(process)
        assert process.stdout is not None
        graph.spin(0.2)
        graph.until(lambda: process.poll() is not None or images.lost + len(images.received) > 1)
        assert process.stdout.readline() == "done\n"
        graph.spin(0.5)
        assert images.matched.reliability == BEST_EFFORT
    assert (
        images.lost + len(images.received) >= images.span
        and images.lost + len(images.received) <= COUNT
    )


def test_a_profile_of_the_user_stays(monkeypatch) -> None:
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for distro, right in (("kilted", "FASTDDS"), ("jazzy", "FASTRTPS")):
        monkeypatch.setenv("ROS_DISTRO", distro)
        for network in ("local", "subnet"):
            (path,) = network_environment(network).keys() & set(PROFILE_VARIABLES)
            assert path.startswith(right)
            assert Path(network_environment(network)[path]).stem == network
            assert Path(network_environment(network)[path]).is_file()
    monkeypatch.setenv(PROFILE_VARIABLES[0], "/mine.xml")
    assert not set(PROFILE_VARIABLES) & network_environment("local").keys()
