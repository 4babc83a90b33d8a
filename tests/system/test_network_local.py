"""network:=local excludes other computers, here a second network namespace with separate memory."""

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
PUBLISHER = (
    "import rclpy, time; from std_msgs.msg import String; rclpy.init(); "
    "n = rclpy.create_node('ours'); p = n.create_publisher(String, 'hello', 10); "
    "print('ready', flush=True)\n"
    "while True: p.publish(String(data='x')); time.sleep(0.1)"
)


def ip(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], capture_output=True).returncode


@pytest.fixture
def other_host() -> Iterator[list[str]]:
    """Return the command prefix that runs a command on another host, at SUBNET.2."""
    if os.geteuid() or not shutil.which("ip") or ip("netns", "add", NAME):
        pytest.skip("needs root and network namespaces")
    inside = ["netns", "exec", NAME, "ip"]
    try:
        return_codes = [
            ip("link", "add", f"{NAME}a", "type", "veth", "peer", "name", f"{NAME}b"),
            ip("link", "set", f"{NAME}b", "netns", NAME),
            ip("addr", "add", f"{SUBNET}.1/24", "dev", f"{NAME}a"),
            ip("link", "set", f"{NAME}a", "up"),
            ip(*inside, "addr", "add", f"{SUBNET}.2/24", "dev", f"{NAME}b"),
            ip(*inside, "link", "set", f"{NAME}b", "up"),
            ip(*inside, "link", "set", "lo", "up"),
        ]
        if any(return_codes):
            pytest.skip("no virtual network here")
        own_memory = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        yield ["ip", "netns", "exec", NAME, "unshare", "-m", "sh", "-c", own_memory, "sh"]
    finally:
        ip("netns", "del", NAME)
        ip("link", "del", f"{NAME}a")


@contextmanager
def own_publisher(network: str) -> Iterator[None]:
    clean = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER],
        stdout=subprocess.PIPE,
        text=True,
        env=clean | network_environment(network),
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def messages_received(prefix: list[str], variables: dict[str, str], seconds: float) -> list[str]:
    """Return how many messages a node with default settings receives, and which nodes it lists."""
    clean = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    command = [*prefix, sys.executable, str(HERE / "other_host.py"), "/hello", str(seconds)]
    completed = subprocess.run(
        command, env=clean | variables, capture_output=True, text=True, timeout=120
    )
    return completed.stdout.split()


def test_another_computer_receives_messages_with_subnet_only(other_host) -> None:
    peers = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_STATIC_PEERS": f"{SUBNET}.1"}
    with own_publisher("subnet"):
        assert messages_received(other_host, peers, 60.0)[0] == "1"
    with own_publisher("local"):
        assert messages_received(other_host, peers, 8.0) == ["0"]
        assert messages_received([], {}, 60.0)[0] == "1"  # this computer, without the profile
