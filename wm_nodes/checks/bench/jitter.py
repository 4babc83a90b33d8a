"""Jitter of the robot node's period, with a simulated arm, planning nodes, and training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wm_nodes.checks.bench.processes import (
    NodeReports,
    diagnostics,
    environment,
    fresh_weights,
    last_lines,
    process,
)
from wm_nodes.checks.bench.rows import Row
from wm_nodes.control.periodic_thread import KEEP
from wm_nodes.errors import UserError
from wm_nodes.graphs.sim_metaworld import GRAPH

ARM, CAMERA, AXES = "arm_sim", "front", 3  # actions are velocities of the end effector
START_S = 300.0
TRIES = 3  # an arm that is started on a busy machine may latch: another one is measured instead
PLANNING_NODES = ("camera", "encoder", "world_model", "policy")
NICE = next(node.nice for node in GRAPH.nodes if node.name == "trainer")
RECORDED = 50  # agent steps of an episode: learning begins after a few


@dataclass(frozen=True)
class Setting:
    """The nodes that run with the robot node, and the target of its jitter."""

    name: str
    nodes: tuple[str, ...]
    learning: bool
    goal: float  # % of the period


SETTINGS = (
    Setting("split, learning on", PLANNING_NODES, True, 10.0),
    Setting("fused, learning off", ("agent",), False, 2.0),
)


def run(*, model: str = "mwm_cpu", windows: int = 3) -> list[Row]:
    """Deviation of the robot node's period from nominal, 99th percentile, in each setting.

    Every process of a run with a simulated arm runs: the arm's physics and camera at 100 Hz, the
    planning nodes, the recorder, and with learning the trainer on the recorded log. A window is the
    newest KEEP periods as the node reports them.
    """
    return [row for setting in SETTINGS for row in _tried(setting, model, windows)]


class _Latched(Exception):
    """The arm has latched, and there is no operator; the text is the reason."""


def _tried(setting: Setting, model: str, windows: int) -> list[Row]:
    why = ""
    for _ in range(TRIES):
        try:
            return _measure(setting, model, windows)
        except _Latched as error:
            why = str(error)
    raise UserError(f"jitter, {setting.name}: the arm latched {TRIES} times, last: {why}")


def _measure(setting: Setting, model: str, windows: int) -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wm-bench-")))
        weights = fresh_weights(model, folder, action_dim=AXES)
        stack.enter_context(environment({}))
        reports = stack.enter_context(diagnostics())
        running = {}
        for name, parameters in _nodes(setting, model, folder, weights).items():
            nice = NICE if name == "trainer" else 0
            running[name] = stack.enter_context(process(name, folder, parameters, nice=nice))

        def wait(condition: Callable[[], bool], seconds: float) -> None:
            end = time.monotonic() + seconds
            while not condition():
                reports.spin()
                if reports.of("robot").get("state") == "latched":
                    raise _Latched(last_lines(folder))
                ended = [name for name, node in running.items() if node.poll() is not None]
                if ended or time.monotonic() > end:
                    what = f"{', '.join(ended)} ended" if ended else "no report in time"
                    raise UserError(f"jitter, {setting.name}: {what}.{last_lines(folder)}")

        wait(partial(_begun, reports, setting), START_S)
        measured = []
        for _ in range(windows):
            beats = _number(reports, "beats") + KEEP + 1
            wait(partial(_has_beats, reports, beats), START_S)
            measured.append(dict(reports.of("robot")))
        updates_per_s = reports.of("trainer").get("updates_per_s", "")
        return [_row(setting, measured, updates_per_s)]


def _nodes(
    setting: Setting, model: str, folder: Path, weights: Path
) -> dict[str, Mapping[str, object]]:
    """Return the nodes in the order in which they start."""
    log, real = folder / "log", {"mode": "realtime"}
    with_camera = {"camera": CAMERA, "height": 0, "width": 0, **real}
    nodes: dict[str, Mapping[str, object]] = {"arm_sim": {"task": "reach"}}
    for name in setting.nodes:
        parameters: dict[str, object] = {**(with_camera if name in ("camera", "agent") else real)}
        if name == "encoder":
            parameters["camera"] = CAMERA
        nodes[name] = parameters if name == "camera" else {**parameters, "weights": weights}
    nodes["recorder"] = {"log": log, "raw": "true"}
    nodes["robot"] = {
        "adapter": "arm", "robot": ARM, "task": "reach", "home": "false", "max_age_s": 0.0,
        "time_limit": RECORDED, "action_repeat": 5, "await_planner_s": START_S, **real,
    }  # fmt: skip
    if setting.learning:
        nodes["trainer"] = {
            "run": folder, "log": log, "model": model, "pace": "false", "publish_s": 1e6,
        }  # fmt: skip
    return nodes


def _begun(reports: NodeReports, setting: Setting) -> bool:
    """Return whether the arm acts, and the trainer learns where the setting has one."""
    learns = not setting.learning or float(reports.of("trainer").get("updates", 0)) > 2
    return learns and _number(reports, "decisions") > RECORDED


def _has_beats(reports: NodeReports, beats: float) -> bool:
    """Return whether the robot node has completed a number of periods."""
    return _number(reports, "beats") >= beats


def _number(reports: NodeReports, key: str) -> float:
    return float(reports.of("robot").get(key, 0.0))


def _row(setting: Setting, windows: list[dict[str, str]], updates_per_s: str) -> Row:
    share = 100 * np.array([float(window["jitter_p99"]) for window in windows])
    newest = windows[-1]
    most = max(100 * float(window["jitter_max"]) for window in windows)
    priority = "real-time" if newest["realtime"] == "true" else "ordinary"
    note = f"most {most:.3g} %, period {newest['period_ms']} ms, {priority} priority"
    note += f", busy p99 {newest['busy_p99_ms']} ms"
    note += f", {updates_per_s} updates/s meanwhile" if setting.learning else ""
    low, high = np.percentile(share, [10, 90])
    return Row(
        "jitter",
        f"{setting.name}: the robot node's period, p99 of its deviation",
        float(np.median(share)),
        "%",
        float(low),
        float(high),
        len(windows) * KEEP,
        setting.goal,
        note=note,
    )
