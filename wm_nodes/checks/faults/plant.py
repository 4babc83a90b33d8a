"""The arm's graph as real processes: simulator, planner, recorder, robot node; and CPU load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from wm_nodes.graphs.launch import die_with_parent
from wm_nodes.namespaces import ROBOT as ROBOT_NS
from wm_nodes.namespaces import beside
from wm_nodes.robots.arm.config.arm_config import find_config

ROBOT = "arm_sim"
COMMANDS: Mapping[str, Mapping[str, Any]] = {  # section `command:` of each interface
    "position": {"topic": "forward_position_controller/commands"},
    "velocity": {"topic": "forward_velocity_controller/commands", "timeout_s": 0.1},
    "trajectory": {"topic": "joint_trajectory_controller/joint_trajectory"},
}
NAMES = ("arm_sim", "scripted_policy", "recorder", "robot")
END_S = 5.0  # for a process to end by itself


def robot_file(folder: Path, interface: str) -> Path:
    """Write arm_sim's YAML with another command interface, and with its force-torque sensor, to
    `folder`; return its path."""
    source = find_config(ROBOT)
    values = yaml.safe_load(source.read_text())
    values["model"] = str((source.parent / values["model"]).resolve())
    values["command"] = {"interface": interface, **COMMANDS[interface]}
    values["force_torque"] = {"topic": "force_torque/wrench", "frame": "wrist"}
    path = folder / f"{ROBOT}_{interface}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


class Plant:
    """Starts, stops and restarts the processes. robot: path of the robot's YAML.

    ns: namespace of the robot's nodes; the simulator is in `arm_sim` beside it.
    """

    def __init__(self, folder: Path, robot: Path, seed: int, ns: str = ROBOT_NS) -> None:
        self.folder, self.ns, self.driver_ns = folder, ns, beside(ns, "arm_sim")
        self._processes = dict[str, subprocess.Popen[bytes]]()
        self._killed = set[str]()
        self._environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        arm = {"robot": str(robot), "task": "goal"}
        node = {**arm, "adapter": "arm", "mode": "realtime", "time_limit": "1000000"}
        node |= {
            "driver_ns": self.driver_ns,
            "max_age_s": "0.0",
            "safety_file": str(folder / "safety.json"),
        }
        self._parameters: dict[str, dict[str, str]] = {
            "arm_sim": {
                **arm,
                "robot_ns": ns,
                "seed": str(seed),
                "camera_px": "32",
                "realtime": "true",
            },
            "robot": node,
            "scripted_policy": {"policy": "random", "seed": str(seed)},
            "recorder": {"log": str(folder / "log"), "raw": "true"},
        }

    def start(self, name: str) -> None:
        output = (self.folder / f"{name}.log").open("ab")
        with output:
            self._processes[name] = subprocess.Popen(
                self._words(name), stdout=output, stderr=output, env=self._environment
            )
        self._killed.discard(name)

    def second_robot(self, namespace: str) -> subprocess.Popen[str]:
        """Start another robot node for the same driver, with stderr as a text pipe."""
        words = self._words("robot", namespace)
        return subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL and wait for its end."""
        self._killed.add(name)
        process = self._processes[name]
        process.kill()
        process.wait()

    def send(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def died(self) -> list[str]:
        """Return the names of processes that have ended and were not killed by `kill`."""
        processes = self._processes.items()
        return [n for n, p in processes if p.poll() is not None and n not in self._killed]

    def revive(self) -> None:
        """Start each process that has ended."""
        for name, process in tuple(self._processes.items()):
            if process.poll() is not None:
                self.start(name)

    def close(self) -> None:
        """End all processes, with SIGKILL after END_S."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _words(self, name: str, ns: str = "") -> list[str]:
        ns = ns or (self.driver_ns if name == "arm_sim" else self.ns)
        words = _python("-m", f"wm_nodes.nodes.{name}", "--ros-args", "-r", f"__ns:={ns}")
        for key, value in self._parameters[name].items():
            words += ["-p", f"{key}:={value}"]
        return words


def _python(*words: str) -> list[str]:
    """Return the command of a Python that ends when this process does."""
    return [*die_with_parent.prefix(), sys.executable, *words]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` processes that compute without pause, in the context."""
    processes = [subprocess.Popen(_python("-c", "while True: pass")) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def long_plans(ns: str) -> Iterator[None]:
    """Publish plans that are far too long from a separate process, in the context."""
    words = _python("-m", "wm_nodes.checks.faults.long_plans", "--ros-args", "-r", f"__ns:={ns}")
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # STARTED, or the end
        if process.poll() is not None:
            raise RuntimeError(f"long_plans ended with code {process.returncode}")
        yield
    finally:
        process.kill()
        process.communicate()
