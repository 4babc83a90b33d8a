"""Frames per second of the simulator, per render preset."""

from __future__ import annotations

from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.timing import measure
from wm_nodes.robots.robot import Robot


def run(*, task: str = "window-close-v3", agent_steps: int = 20) -> list[Row]:
    """Agent steps (two simulator steps and a 64 x 64 image) per second, and without images."""
    from wm_nodes.robots.sims.metaworld import MetaWorld  # needs the [sim] extra

    rows = []
    for preset in ("fast", "full", "none"):
        with MetaWorld(task, render=preset, time_limit=agent_steps + 10) as robot:
            rows.append(_rate(robot, preset, agent_steps if preset != "full" else agent_steps // 2))
    return rows


def _rate(robot: Robot, preset: str, agent_steps: int) -> Row:
    robot.reset()
    middle = [(a + b) / 2 for a, b in zip(robot.spec.action.low, robot.spec.action.high)]
    timing = measure(lambda: robot.act(middle), repeats=agent_steps)
    renderer = robot.spec.extra["gl_renderer"]
    what = "decisions without images" if preset == "none" else f"decisions, render={preset}"
    return timing.rate_row("simulator", what, "1/s", note=str(renderer))
