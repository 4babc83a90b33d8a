"""Time that ROS adds to a lock-step agent step: the real nodes with a robot that takes no time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.checks.bench.processes import (
    NodeReports,
    diagnostics,
    environment,
    fresh_weights,
    last_lines,
    process,
)
from wm_nodes.checks.bench.rows import Row
from wm_nodes.robots.robot import Observation, Robot, RobotError, RobotSpec, checked_action

CAMERA = "corner4"
COMPOSITIONS: Mapping[str, tuple[str, ...]] = {
    "split": ("camera", "encoder", "world_model", "policy"),
    "fused": ("agent",),
}
CAMERA_NODES = ("camera", "encoder", "agent")  # nodes with the parameter `camera`
GOALS_MS = {"split": 5.0, "fused": 1.0}
TIMES = "WM_BENCH_TIMES"  # variable with the file that StillRobot writes
WARM_UP = 20  # agent steps that do not count
START_S = 180.0  # torch in five processes starts slowly on a busy machine
REPORT_S = 20.0  # the nodes report once a second


def run(*, model: str = "mwm_cpu", agent_steps: int = 400) -> list[Row]:
    """Latency of lock-step agent steps through the split and the fused graph, and ROS's part in it.

    From an observation until its action is executed, over at least `agent_steps` steps: the last
    episode is completed. ROS's part is all time outside the cores of
    the nodes: messages, transport, wake-ups, process switches.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder:
        weights = fresh_weights(model, Path(folder), action_dim=4)
        for composition in COMPOSITIONS:
            rows += _measure(composition, weights, Path(folder), agent_steps)
    return rows


class StillRobot(Robot):
    """Shows the same noise at every agent step, in no time, and records how long each took."""

    def __init__(self, size: int = 64, time_limit: int = 100) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        self._image, self._limit = noise, time_limit
        self._ticks, self._left = 0, 0
        self._newest: Observation | None = None
        self._shown_at, self._closed = 0.0, False
        self._times: list[float] = []
        box = VectorSpec(tuple("abcd"), ("1",) * 4, (-1.0,) * 4, (1.0,) * 4)
        self.spec = RobotSpec("still", "none", 0.02, {CAMERA: (size, size, 3)}, box, box)

    def reset(self, seed: int | None = None) -> Observation:
        self._require_open()
        self._left = self._limit
        zeros = np.zeros(4, np.float32)
        return self._show(zeros, zeros, is_first=True)

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError("no episode yet: call reset")
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        took = time.perf_counter() - self._shown_at
        self._require_open()
        if self.observe().is_last:
            raise RobotError("the episode is over: call reset")
        executed, commanded = checked_action(self.spec.action, action, "still")
        self._times.append(took)
        self._left -= 1
        return self._show(executed, commanded, is_last=self._left == 0)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        if TIMES in os.environ and not self._closed:
            np.save(os.environ[TIMES], np.array(self._times))
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError("the robot is closed")

    def _show(
        self,
        executed: npt.NDArray[np.float32],
        commanded: npt.NDArray[np.float32],
        *,
        is_first: bool = False,
        is_last: bool = False,
    ) -> Observation:
        self._ticks += 1
        self._newest = Observation(
            {CAMERA: self._image},
            np.zeros(4, np.float32),
            executed,
            commanded,
            is_first=is_first,
            is_last=is_last,
            stamp_ns=self._ticks * 20_000_000,
        )
        self._shown_at = time.perf_counter()
        return self._newest


def _measure(composition: str, weights: Path, folder: Path, agent_steps: int) -> list[Row]:
    times = folder / f"{composition}.npy"
    nodes = COMPOSITIONS[composition]
    with ExitStack() as stack:
        stack.enter_context(environment({TIMES: str(times)}))
        reports = stack.enter_context(diagnostics())
        others = [stack.enter_context(process(n, folder, _parameters(n, weights))) for n in nodes]
        adapter = f"{__name__}:StillRobot"
        steps = 2 * (agent_steps + WARM_UP)
        robot = stack.enter_context(
            process("robot", folder, {"adapter": adapter, "steps": steps, "time_limit": 100})
        )
        deadline = time.monotonic() + START_S + 0.2 * agent_steps
        while robot.poll() is None:
            reports.spin()
            gone = [n for n, p in zip(nodes, others) if p.poll() is not None]
            if gone or time.monotonic() > deadline:
                what = f"{', '.join(gone)} ended" if gone else "did not finish in time"
                raise RuntimeError(f"graph {composition}: {what}.{last_lines(folder)}")
        if robot.returncode:
            raise RuntimeError(f"graph: robot ended with {robot.returncode}: {last_lines(folder)}")
        computing = _computing_ms(reports, nodes)
    loop = 1e3 * np.load(times)[WARM_UP:]
    return _rows(composition, loop, computing)


def _parameters(node: str, weights: Path) -> dict[str, object]:
    parameters: dict[str, object] = {"camera": CAMERA} if node in CAMERA_NODES else {}
    return parameters if node == "camera" else {**parameters, "weights": weights}


def _rows(
    composition: str, loop: npt.NDArray[np.float64], computing: Mapping[str, float]
) -> list[Row]:
    low, p50, high, p99 = np.percentile(loop, [10, 50, 90, 99])
    total = sum(computing.values())
    parts = ", ".join(f"{name} {value:.2f}" for name, value in computing.items())
    count = len(loop)
    return [
        Row(
            "graph",
            f"{composition}: observation to action",
            float(p50),
            "ms",
            float(low),
            float(high),
            count,
            note=f"p99 {p99:.3g} ms, wall clock",
        ),
        Row("graph", f"{composition}: computing", total, "ms", samples=count, note=f"p50: {parts}"),
        Row(
            "graph",
            f"{composition}: ROS's part",
            max(0.0, float(p50) - total),
            "ms",
            samples=count,
            goal=GOALS_MS[composition],
            note="p50 of the whole minus p50 of computing",
        ),
    ]


def _computing_ms(reports: NodeReports, nodes: tuple[str, ...]) -> dict[str, float]:
    """Wait until each node has reported the p50 of its own work, and return the newest."""
    deadline = time.monotonic() + REPORT_S
    while True:
        reports.spin()
        latencies = {name: float(reports.of(name).get("latency_p50_ms", 0.0)) for name in nodes}
        missing = sorted(name for name, value in latencies.items() if value <= 0)
        if not missing:
            return latencies
        if time.monotonic() > deadline:
            raise RuntimeError(f"graph: nothing on /diagnostics from {', '.join(missing)}.")
