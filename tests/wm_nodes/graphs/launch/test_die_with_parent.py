"""A command ends with its parent, also if the parent ends during the start of the command."""

import os
import signal
import subprocess
import sys

from wm_nodes.graphs.launch import die_with_parent

COMMAND = [sys.executable, "-c", "print('runs')"]


def ended_pid() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_command_of_a_running_parent_starts():
    result = subprocess.run([*die_with_parent.prefix(), *COMMAND], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "runs\n")


def test_the_command_of_an_ended_parent_does_not_start():
    python, file, _, nice = die_with_parent.prefix()
    arguments = [python, file, str(ended_pid()), nice, *COMMAND]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert "has ended" in result.stderr


def test_a_wrapped_parent_that_ended_is_known_by_its_environment():
    arguments = [*die_with_parent.prefix(by_wrapped=True), *COMMAND]
    environment = {**os.environ, die_with_parent.PID: str(ended_pid())}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout) == (1, "")


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
