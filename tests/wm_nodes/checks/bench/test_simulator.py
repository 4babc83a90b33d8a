"""The benchmark of simulators notes the renderer of its images."""

from __future__ import annotations

import pytest

from wm_nodes.checks.bench.simulator import _rate
from wm_nodes.robots.sims import rendering
from wm_nodes.robots.sims.point_maze import PointMaze


@pytest.mark.parametrize(("preset", "label"), [("fast", "render=fast"), ("none", "without images")])
def test_a_row_notes_the_renderer_that_drew_it(preset, label):
    with PointMaze(render=preset, time_limit=5) as robot:
        row = _rate(robot, "point_maze", preset, 2)
        renderer = robot.spec.extra["gl_renderer"]
    assert label in row.name and row.unit == "1/s"
    assert row.note.endswith(f"; {renderer}")
    assert renderer == (rendering.gl_renderer() if preset == "fast" else "none")
