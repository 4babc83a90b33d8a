"""A second signal, from the operator or a launcher, does not interrupt the end of a node."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from tests import domains

NODE = """
import pathlib, time
from wm_nodes.ros import spin
from wm_nodes.ros.node import ManagedNode

class Slow(ManagedNode):
    NAME = "slow"
    def {phase}(self):
        print("{phase}", flush=True)
        time.sleep({seconds})
        pathlib.Path({path!r}).write_text("done")

spin.main(Slow)
"""


def start(phase: str, seconds: float, path: Path) -> subprocess.Popen[str]:
    """Start a node that takes some seconds in one phase, and writes a file at its end."""
    code = NODE.format(phase=phase, seconds=seconds, path=str(path))
    env = {**os.environ, "ROS_DOMAIN_ID": str(domains.PROCESSES)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), f"no line of the output contains {text!r}"


@pytest.mark.parametrize("second_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_cleanup_in_progress_is_completed(tmp_path, second_signal) -> None:
    with start("cleanup", 1.0, tmp_path / "end") as process:
        until(process, "active")
        process.send_signal(signal.SIGINT)
        until(process, "cleanup")
        process.send_signal(second_signal)
        assert process.wait(120) == 0
    assert (tmp_path / "end").read_text() == "done"


def test_a_cleanup_that_takes_too_long_can_be_interrupted(tmp_path) -> None:
    with start("cleanup", 600.0, tmp_path / "end") as process:
        until(process, "active")
        process.send_signal(signal.SIGINT)
        until(process, "cleanup")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(5.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    assert not (tmp_path / "end").exists()


def test_a_node_that_is_being_configured_is_interrupted_by_a_second_signal(tmp_path) -> None:
    with start("configure", 600.0, tmp_path / "begin") as process:
        until(process, "configure")
        for _ in range(200):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert process.wait(0.3) == 0
                break
    assert process.returncode == 0 and not (tmp_path / "begin").exists()
