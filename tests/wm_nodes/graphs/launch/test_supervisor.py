"""`wm launch` keeps real processes: restarts, order of the end, no process remains."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from wm_nodes.graphs.graph import NodeSpec
from wm_nodes.graphs.launch.supervisor import _Session

WAIT_S = 90.0  # for events on a loaded machine

# Stub nodes: each writes its events into events.txt, one line per event.
NODES = """
import os, signal, sys, time

def main():
    kind, path = sys.argv[1], os.environ["WM_TEST_EVENTS"]
    def write_event(event):
        with open(path, "a") as stream:
            stream.write(f"{kind} {event} {time.monotonic():.3f}\\n")
    def end(number, frame):
        write_event("stops")
        if kind == "stubborn":
            return
        time.sleep(0.2)
        write_event("stopped")
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
    write_event(f"starts:{os.getpid()}")
    for step in os.environ.get(f"WM_TEST_{kind.upper()}", "").split(","):
        verb, _, value = step.partition("=")
        if verb == "print":
            print(value, flush=True)
        if verb == "wait":
            time.sleep(float(value))
        if verb == "exit":
            sys.exit(int(value))
        if verb == "raise":
            raise RuntimeError(value)
    while True:
        time.sleep(0.05)
"""
LAUNCH = """
import sys
from wm_nodes.graphs.graph import Argument, Graph, NodeSpec
from wm_nodes.graphs.launch.supervisor import launch

names = sys.argv[1].split(",")
ranks, ends = {"robot": 0, "monitor": 2}, {"robot": "shutdown", "monitor": "shutdown"}
nodes = tuple(
    NodeSpec(
        name,
        f"stub_nodes.{name}",
        lambda values: {"seed": values["seed"]},
        stop_rank=ranks.get(name, 1),
        on_exit=ends.get(name, "nothing"),
        shown=name == "monitor",
    )
    for name in names
)
arguments = (
    Argument("run", "", "Run."),
    Argument("seed", 0, "Seed.", low=0, fixed=True),
    Argument("network", "local", "Range.", choices=("local", "subnet")),
)
sys.exit(launch(Graph("try", "A try.", arguments, nodes), sys.argv[2:]))
"""


class LaunchProcess:
    """A running `wm launch` of stub nodes."""

    def __init__(self, folder: Path, names: str, arguments: tuple[str, ...], **script: str) -> None:
        package = folder / "stub_nodes"
        package.mkdir(exist_ok=True)
        for name in names.split(","):
            (package / f"{name}.py").write_text(NODES + f"\nsys.argv[1:] = [{name!r}]\nmain()\n")
        self.events = folder / "events.txt"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}",
            "WM_TEST_EVENTS": str(self.events),
            **{f"WM_TEST_{name.upper()}": value for name, value in script.items()},
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, names, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.folder = folder

    def wait_for(self, *events: str, timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            lines = self.lines()
            if all(any(line.startswith(event) for line in lines) for event in events):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{events} did not occur: {self.lines()}")

    def lines(self) -> list[str]:
        return self.events.read_text().splitlines() if self.events.exists() else []

    def pid(self, name: str) -> int:
        starts = [line for line in self.lines() if line.startswith(f"{name} starts:")]
        return int(starts[-1].split(":")[1].split()[0])

    def time_of(self, event: str) -> float:
        return next(float(line.split()[-1]) for line in self.lines() if line.startswith(event))

    def end(self, timeout_s: float = WAIT_S) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def live_processes(self) -> list[psutil.Process]:
        """Return the processes of this launch that still run."""
        processes = []
        for process in psutil.process_iter(["environ", "status"]):
            variables = process.info["environ"] or {}
            running = process.info["status"] != psutil.STATUS_ZOMBIE
            if running and variables.get("WM_TEST_EVENTS") == str(self.events):
                processes.append(process)
        return processes

    def ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.live_processes():
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def start_launch(tmp_path):
    """Return a function that starts a launch; all its processes are killed after the test."""
    running: list[LaunchProcess] = []

    def start(names: str, *arguments: str, **script: str) -> LaunchProcess:
        running.append(LaunchProcess(tmp_path, names, arguments, **script))
        return running[-1]

    yield start
    for launch in running:
        for process in launch.live_processes():
            process.kill()
        launch.process.communicate(timeout=WAIT_S)


def test_ctrl_c_ends_all_in_order(start_launch):
    launch = start_launch("encoder,robot,recorder,monitor", monitor="print=progress 1")
    launch.wait_for("robot starts", "recorder starts", "encoder starts", "monitor starts")
    launch.process.send_signal(signal.SIGINT)
    code, out, _ = launch.end()
    assert code == 0
    assert launch.live_processes() == []
    assert "progress 1" in out
    assert launch.time_of("robot stopped") <= launch.time_of("recorder stops")
    assert launch.time_of("recorder stopped") <= launch.time_of("monitor stops")
    assert launch.time_of("encoder stopped") <= launch.time_of("monitor stops")


def test_nodes_that_ignore_the_signal_are_killed(start_launch):
    launch = start_launch("stubborn,robot")
    launch.wait_for("robot starts", "stubborn starts")
    launch.process.send_signal(signal.SIGINT)
    launch.end()
    assert launch.live_processes() == []


def test_the_end_of_the_robot_ends_the_run(start_launch):
    launch = start_launch("encoder,robot", robot="wait=0.5,exit=0")
    code, out, _ = launch.end()
    assert code == 0
    assert launch.live_processes() == []
    assert "continues it" in out


def test_the_end_of_all_robots_ends_the_run_not_that_of_one():
    robot = NodeSpec("robot", "robot", on_exit="shutdown", per_environment=True)
    values = {"envs": 2, "ns": "/robot"}
    nodes = [*robot.copies(values), NodeSpec("monitor", "monitor", on_exit="shutdown")]
    session = object.__new__(_Session)
    session.nodes = {node.name: node for node in nodes}
    session._done, session._over_at = set(), None

    def verdict(*ended):
        return session._verdict(
            [
                {"name": name, "statename": "EXITED", "exitstatus": 0, "pid": 0}
                if name in ended
                else {"name": name, "statename": "STARTING", "exitstatus": 0, "pid": 0}
                for name in session.nodes
            ]
        )

    assert verdict() is None
    assert verdict("robot_env_0") is None and verdict("robot_env_0") is None
    assert verdict("robot_env_0", "robot_env_1") == 0


def test_a_killed_robot_that_is_not_started_again_yet_does_not_end_the_run():
    session = object.__new__(_Session)
    session.nodes = {"robot": NodeSpec("robot", "robot", on_exit="shutdown")}
    session._over_at = None
    killed = {"name": "robot", "statename": "EXITED", "exitstatus": -1, "pid": 0}
    assert session._verdict([killed]) is None


def test_a_killed_node_is_started_again(start_launch):
    launch = start_launch("encoder,robot")
    launch.wait_for("encoder starts", "robot starts")
    first = launch.pid("encoder")
    time.sleep(0.5)
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while launch.pid("encoder") == first and time.monotonic() < deadline:
        time.sleep(0.05)
    assert launch.pid("encoder") != first
    time.sleep(0.5)
    launch.process.send_signal(signal.SIGINT)
    code, _, err = launch.end()
    assert code == 0
    assert "encoder crashed and was started again" in err


def test_a_node_that_crashes_at_every_start_ends_the_run(start_launch):
    launch = start_launch("encoder,robot", encoder="wait=0.3,raise=no such thing")
    code, _, err = launch.end()
    assert code == 1
    assert "giving up" in err
    assert "encoder: RuntimeError: no such thing" in err
    assert "Traceback" not in err
    assert launch.live_processes() == []


def test_a_user_error_in_a_node_ends_the_run_with_code_2(start_launch):
    launch = start_launch("encoder,robot", encoder="print=weights: no such folder,exit=2")
    code, _, err = launch.end()
    assert code == 2
    assert "encoder: weights: no such folder" in err
    assert sum(line.startswith("encoder starts") for line in launch.lines()) == 1
    assert launch.live_processes() == []


@pytest.mark.parametrize("victim", ["launcher", "supervisord"])
def test_kill_9_leaves_no_process(start_launch, victim):
    launch = start_launch("encoder,robot,recorder")
    launch.wait_for("encoder starts", "robot starts", "recorder starts")
    process = psutil.Process(launch.process.pid)
    if victim == "supervisord":
        (process,) = process.children()
    process.kill()
    assert launch.ended_within(WAIT_S)
    assert any(line.startswith("robot stopped") for line in launch.lines())


def test_a_second_launch_of_a_live_run_is_refused(start_launch):
    first = start_launch("robot", "run:=one")
    first.wait_for("robot starts")
    second = start_launch("robot", "run:=one")
    code, _, err = second.end()
    assert (code, "running already" in err) == (2, True)
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 0


def test_an_error_line_is_shown_with_its_node(start_launch):
    launch = start_launch(
        "encoder,robot", encoder="print=[ERROR] [12.5] [robot.encoder]: bad frame"
    )
    assert any("encoder: bad frame" in line for line in launch.process.stderr)
    launch.process.send_signal(signal.SIGINT)
    launch.process.wait(WAIT_S)
