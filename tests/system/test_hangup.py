"""A hangup of the terminal ends a node in order; under nohup the node continues."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy")


@pytest.mark.parametrize("prefix", [[], ["nohup"]], ids=["terminal", "nohup"])
def test_a_hangup_ends_a_node_unless_it_is_to_be_ignored(tmp_path, prefix) -> None:
    command = [sys.executable, "-m", "wm_nodes.nodes.recorder", "--ros-args"]
    command += ["-p", f"log:={tmp_path / 'log'}"]
    with subprocess.Popen(
        [*prefix, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGHUP, signal.SIG_DFL
        ),  # these tests may ignore it
    ) as process:
        assert process.stdout is not None
        assert any("active" in line for line in process.stdout)
        process.send_signal(signal.SIGHUP)
        if prefix:
            time.sleep(1.0)
            assert process.poll() is None
            process.terminate()
        assert process.wait(120) == 0
