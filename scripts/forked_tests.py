"""Run pytest many times: in forks of one process that imported the slow packages once.

Reads one run a line from standard input: seconds at most, then pytest's arguments. Answers each
with a line: pytest's exit code, or -9 where the time was up.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import signal
import sys
import time

import hypothesis  # noqa: F401
import numcodecs  # noqa: F401
import pytest

for slow in ("torch", "zarr", "mujoco", "rclpy.node"):
    with contextlib.suppress(ImportError):
        __import__(slow)


def main() -> None:
    """Answer until standard input ends."""
    gc.freeze()  # pytest collects garbage at its end: not that of the packages
    for line in sys.stdin:
        seconds, *arguments = shlex.split(line)
        child = os.fork()
        if child == 0:
            os._exit(silent_tests(arguments))
        print(exit_code(child, float(seconds)), flush=True)


def silent_tests(arguments: list[str]) -> int:
    """Run pytest in a process group of its own, and without the streams of this program."""
    os.setsid()
    for stream in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    return pytest.main(arguments)


def exit_code(child: int, seconds: float) -> int:
    """Wait for a child; kill it and the processes it started when the time is up, or the program
    that asked for it has ended."""
    end, parent = time.monotonic() + seconds, os.getppid()
    while time.monotonic() < end and os.getppid() == parent:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


if __name__ == "__main__":
    main()
