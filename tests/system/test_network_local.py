"""network:=local keeps another computer out: a second network namespace with memory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from wm_nodes.graphs.launch.environment import PROFILE_VARIABLES, network_environment

HERE = Path(__file__).parent
NAME = f"wm{os.getpid() % 10000}"
SUBNET = f"10.77.{os.getpid() % 250}"
SAYS = (
    "import rclpy, time; from std_msgs.msg import String; rclpy.init(); "
    "n = rclpy.create_node('ours'); p = n.create_publisher(String, 'hello', 10); "
    "print('ready', flush=True)\n"
    "while True: p.publish(String(data='x')); time.sleep(0.1)"
)


def ip(*words: str) -> int:
    return subprocess.run(["ip", *words], capture_output=True).returncode


@pytest.fixture
def other_host() -> Iterator[list[str]]:
    """Return the words before a command that run it on another host, at SUBNET.2."""
    if os.geteuid() or not shutil.which("ip") or ip("netns", "add", NAME):
        pytest.skip("needs root and network namespaces")
    inside = ["netns", "exec", NAME, "ip"]
    try:
        done = [
            ip("link", "add", f"{NAME}a", "type", "veth", "peer", "name", f"{NAME}b"),
            ip("link", "set", f"{NAME}b", "netns", NAME),
            ip("addr", "add", f"{SUBNET}.1/24", "dev", f"{NAME}a"),
            ip("link", "set", f"{NAME}a", "up"),
            ip(*inside, "addr", "add", f"{SUBNET}.2/24", "dev", f"{NAME}b"),
            ip(*inside, "link", "set", f"{NAME}b", "up"),
            ip(*inside, "link", "set", "lo", "up"),
        ]
        if any(done):
            pytest.skip("no virtual network here")
        own_memory = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        yield ["ip", "netns", "exec", NAME, "unshare", "-m", "sh", "-c", own_memory, "sh"]
    finally:
        ip("netns", "del", NAME)
        ip("link", "del", f"{NAME}a")


@contextmanager
def ours(network: str) -> Iterator[None]:
    clean = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    with subprocess.Popen(
        [sys.executable, "-c", SAYS],
        stdout=subprocess.PIPE,
        text=True,
        env=clean | network_environment(network),
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def heard_from(prefix: list[str], more: dict[str, str], seconds: float) -> list[str]:
    """Return how many messages a node with default settings hears, and the nodes it sees."""
    clean = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    words = [*prefix, sys.executable, str(HERE / "other_host.py"), "/hello", str(seconds)]
    done = subprocess.run(words, env=clean | more, capture_output=True, text=True, timeout=120)
    return done.stdout.split()


def test_only_with_subnet_another_computer_hears_and_sees_our_nodes(other_host) -> None:
    peers = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_STATIC_PEERS": f"{SUBNET}.1"}
    with ours("subnet"):
        assert heard_from(other_host, peers, 60.0)[0] == "1"
    with ours("local"):
        assert heard_from(other_host, peers, 8.0) == ["0"]
        assert heard_from([], {}, 60.0)[0] == "1"  # this computer, without the profile
