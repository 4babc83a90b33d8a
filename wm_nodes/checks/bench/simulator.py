"""Frames per second of the simulators, per render preset."""

from __future__ import annotations

from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.timing import measure
from wm_nodes.robots.robot import Robot

TASKS = {"metaworld": "window-close-v3", "dmc": "cartpole_balance"}


def run(*, agent_steps: int = 20) -> list[Row]:
    """Agent steps (two simulator steps and a 64 x 64 image) per second, and without images."""
    from wm_nodes.robots.opening import open_robot  # its robots need the [sim] extra

    rows = []
    for name, task in TASKS.items():
        for preset in ("fast", "full", "none"):
            settings = {"task": task, "render": preset, "time_limit": agent_steps + 10}
            with open_robot(name, settings) as robot:
                steps = agent_steps if preset != "full" else agent_steps // 2
                rows.append(_rate(robot, name, preset, steps))
    return rows


def _rate(robot: Robot, name: str, preset: str, agent_steps: int) -> Row:
    robot.reset()
    middle = [(a + b) / 2 for a, b in zip(robot.spec.action.low, robot.spec.action.high)]
    timing = measure(lambda: robot.act(middle), repeats=agent_steps)
    renderer = robot.spec.extra["gl_renderer"]
    what = "decisions without images" if preset == "none" else f"decisions, render={preset}"
    what = what if name == "metaworld" else f"{name}: {what}"  # names of earlier results
    return timing.rate_row("simulator", what, "1/s", note=str(renderer))
