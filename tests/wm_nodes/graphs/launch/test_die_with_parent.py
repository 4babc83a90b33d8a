"""A command ends with its parent, also with one that dies while the command is being started."""

import os
import signal
import subprocess
import sys

from wm_nodes.graphs.launch import die_with_parent

PRINTS = [sys.executable, "-c", "print('runs')"]


def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_command_of_a_living_parent_runs():
    done = subprocess.run([*die_with_parent.prefix(), *PRINTS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "runs\n")


def test_the_command_of_a_dead_parent_does_not_start():
    python, file, _, nice = die_with_parent.prefix()
    words = [python, file, str(dead()), nice, *PRINTS]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has ended" in done.stderr


def test_a_wrapped_parent_that_died_is_known_by_its_environment():
    words = [*die_with_parent.prefix(by_wrapped=True), *PRINTS]
    environment = {**os.environ, die_with_parent.PID: str(dead())}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_command_that_a_wrapped_command_starts_runs_and_ends_with_it():
    child = [*die_with_parent.prefix(by_wrapped=True), sys.executable, "-c"]
    child += ["import time; print('runs', flush=True); time.sleep(20); print('still runs')"]
    parent = [*die_with_parent.prefix(), sys.executable, "-c"]
    parent += [f"import subprocess; subprocess.run({child!r})"]
    with subprocess.Popen(parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""  # the pipe closes when the child has ended, too
