"""How evenly the robot node beats, measured with every process of a run."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from wm_nodes.checks.bench import jitter

pytestmark = pytest.mark.realtime


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_setting_gives_its_figure_with_what_it_was_measured_beside() -> None:
    before = dict(os.environ)
    rows = jitter.run(windows=1)
    assert dict(os.environ) == before
    assert [row.goal for row in rows] == [setting.goal for setting in jitter.SETTINGS]
    for row, setting in zip(rows, jitter.SETTINGS):
        assert row.value > 0 and row.name.startswith(setting.name)
        assert ("updates/s" in row.note) == setting.learning
