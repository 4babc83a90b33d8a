"""The fault matrix: each fault injected at a random moment of motion, undone, and watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from wm_nodes import topics
from wm_nodes.faults.auditor import Auditor
from wm_nodes.faults.witness import Witness
from wm_nodes.robots.arm.config import find_config, read_config
from wm_nodes.robots.arm.driver import JOINT_NOISE_RAD

START_S = 120.0  # processes take their time on a busy machine
RECOVER_S = 60.0
SETTLE_S = 0.4

SWITCHES: dict[str, Any] = {
    "camera_dropped": True,
    "camera_frozen": True,
    "driver_dead": True,
    "protective_stop": True,
    "joint_delay_s": 0.3,
    "joint_noise_rad": 0.005,
    "actuation_delay_s": 0.1,
}
KILLS = ("player", "recorder", "arm_sim", "robot")
OTHERS = ("player hangs", "rubbish plans", "estop", "recorder hangs")
FAULTS = (*SWITCHES, *(f"kill {name}" for name in KILLS), *OTHERS)
STOPS = {  # faults after which the arm must stand still; of the others it may go on
    "camera_dropped", "camera_frozen", "driver_dead", "protective_stop", "kill player",
    "kill arm_sim", "kill robot", "player hangs", "estop",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One injection. Times in seconds; -1: it did not happen, and need not."""

    number: int
    fault: str
    lasted_s: float
    violations: int
    stop_s: float  # from the fault to standing still (commands)
    recover_s: float  # from its end to moving again
    lost_steps: int  # control periods without motion
    state: str  # what the robot said of itself while the fault lasted
    fine: bool


class Plant:
    """The arm's graph as real processes, which are started again when they were killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._processes = folder, dict[str, subprocess.Popen[bytes]]()
        log = folder / "log"
        robot = {"adapter": "arm", "mode": "realtime", "task": "goal", "home": "false"}
        robot |= {"time_limit": "1000000", "max_age_s": "0.0"}
        self._parameters = {
            "arm_sim": {"task": "goal", "seed": str(seed), "camera_px": "32"},
            "robot": robot,
            "player": {"policy": "random", "seed": str(seed)},
            "recorder": {"log": str(log), "raw": "true"},
        }

    def start(self, name: str) -> None:
        words = [sys.executable, "-m", f"wm_nodes.nodes.{name}", "--ros-args"]
        for key, value in self._parameters[name].items():
            words += ["-p", f"{key}:={value}"]
        output = (self._folder / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(words, stdout=output, stderr=output)

    def kill(self, name: str) -> None:
        self._processes[name].kill()  # `revive` reaps it

    def send(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def revive(self) -> list[str]:
        """Start what has ended; return the names of what ended by itself."""
        ended = [name for name, process in self._processes.items() if process.poll() is not None]
        for name in ended:
            self.start(name)
        return ended

    def close(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()


class Matrix:
    """Runs injections one after the other on one plant."""

    def __init__(self, plant: Plant, node: Node, witness: Witness, seed: int) -> None:
        self._plant, self._node, self.witness = plant, node, witness
        self._random = np.random.default_rng(seed)
        self._set: Any = node.create_client(SetParameters, "/arm_sim/arm_sim/set_parameters")
        self._estop: Any = node.create_client(SetBool, f"{topics.NAMESPACE}/estop")
        self._plans = topics.PLAN.always(node)

    def ready(self) -> None:
        """Wait until the arm moves for the first time."""
        if not _until(self.witness.moving, START_S):
            raise RuntimeError(f"the arm does not move: {self.witness.state}")
        for client in (self._set, self._estop):
            client.wait_for_service(START_S)

    def inject(self, number: int, fault: str) -> Outcome:
        """One fault at a random moment, for a random while, and the way back."""
        time.sleep(float(self._random.uniform(0.2, 1.2)))
        self._until_moving()
        witness, auditor = self.witness, self.witness.auditor
        auditor.finish()
        before, lost = sum(auditor.violations.values()), witness.stopped
        lasts = float(self._random.uniform(1.0, 1.8))
        began = time.monotonic()
        with self._broken(fault):
            stop_s = -1.0
            state = witness.state
            while time.monotonic() - began < lasts:
                time.sleep(0.01)
                if stop_s < 0 and (witness.stands() or not witness.moving()):
                    stop_s = time.monotonic() - began
                state = witness.state or state
        ended = time.monotonic()
        self._plant.revive()
        recovered = self._until_moving()
        recover_s = time.monotonic() - ended if recovered else -1.0
        time.sleep(SETTLE_S)
        auditor.finish()
        broken = sum(auditor.violations.values()) - before
        stood = stop_s >= 0 or fault not in STOPS
        fine = broken == 0 and recovered and stood
        return Outcome(
            number, fault, round(lasts, 2), broken, round(stop_s, 3), round(recover_s, 3),
            witness.stopped - lost, state[:80], fine,
        )  # fmt: skip

    def _until_moving(self) -> bool:
        """Wait for motion; clear a latch as a person would."""
        if _until(self.witness.moving, 1.5):
            return True
        end = time.monotonic() + RECOVER_S
        while time.monotonic() < end:
            self._plant.revive()
            if self._estop.service_is_ready():
                self._estop.call_async(SetBool.Request(data=False))
            if _until(self.witness.moving, 1.0):
                return True
        return False

    @contextmanager
    def _broken(self, fault: str) -> Iterator[None]:
        if fault in SWITCHES:
            usual = {"joint_noise_rad": JOINT_NOISE_RAD}.get(fault, type(SWITCHES[fault])())
            self._switch(fault, SWITCHES[fault])
            yield
            self._switch(fault, usual)
        elif fault.startswith("kill "):
            self._plant.kill(fault.removeprefix("kill "))
            yield
        elif fault == "player hangs":
            self._plant.send("player", signal.SIGSTOP)
            yield
            self._plant.send("player", signal.SIGCONT)
        elif fault == "estop":
            self._estop.call_async(SetBool.Request(data=True))
            yield
        elif fault == "recorder hangs":
            self._plant.send("recorder", signal.SIGSTOP)
            yield
            self._plant.send("recorder", signal.SIGCONT)
        else:
            end = threading.Event()
            thread = threading.Thread(target=self._talk_rubbish, args=(end,))
            thread.start()
            yield
            end.set()
            thread.join()

    def _switch(self, name: str, value: Any) -> None:
        self._set.wait_for_service(START_S)
        parameter = Parameter(name, value=value).to_parameter_msg()
        self._set.call_async(SetParameters.Request(parameters=[parameter]))

    def _talk_rubbish(self, end: threading.Event) -> None:
        from wm_nodes.faults.fuzz import plan_rubbish

        while not end.wait(0.005):
            self._plans.publish(plan_rubbish(self._random))


def run_matrix(faults: list[str], seed: int, watch: Callable[[Outcome, Auditor], None]) -> Auditor:
    """Start everything, inject the faults in order, end everything; `watch` is told of each."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("witness", context=context, namespace="/witness")
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    witness = Witness(node, read_config(find_config("arm_sim")))
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory(prefix="wm-faults-") as folder:
        plant = Plant(Path(folder), seed)
        try:
            for name in ("arm_sim", "player", "recorder", "robot"):
                plant.start(name)
            matrix = Matrix(plant, node, witness, seed)
            matrix.ready()
            for number, fault in enumerate(faults):
                watch(matrix.inject(number, fault), witness.auditor)
        finally:
            plant.close()
            executor.shutdown(timeout_sec=1.0)
            rclpy.try_shutdown(context=context)
            thread.join(2.0)
    return witness.auditor


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
