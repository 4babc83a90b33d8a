"""The deviation of the robot node's period, measured with every process of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from tests.wm_nodes.node_parameters import assert_declared, read_as_ros
from wm_nodes.checks.bench import jitter
from wm_nodes.checks.bench.jitter import KEEP, RECORDED, SETTINGS, TRIES
from wm_nodes.checks.bench.processes import NodeReports
from wm_nodes.errors import UserError

WINDOW = {
    "jitter_p99": "0.02", "jitter_max": "0.3", "realtime": "true", "period_ms": "100",
    "busy_p99_ms": "4.2",
}  # fmt: skip
each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)


@each_setting
def test_nodes_are_started_with_parameters_that_they_declare(setting) -> None:
    folder = Path("/bench")
    nodes = jitter._nodes(setting, "mwm_cpu", folder, folder / "weights")
    assert {"arm_sim", "recorder", "robot", *setting.nodes} <= nodes.keys()
    assert ("trainer" in nodes) == setting.learning
    for name, parameters in nodes.items():
        assert_declared(name, read_as_ros(parameters))


@each_setting
def test_a_row_is_the_median_of_its_windows_in_percent_of_the_period(setting) -> None:
    windows = [{**WINDOW, "jitter_p99": share} for share in ("0.01", "0.05", "0.02")]
    row = jitter._row(setting, windows, "3.1")
    assert row.value == pytest.approx(2.0) and row.unit == "%"
    assert 1.0 <= row.low < row.value < row.high <= 5.0
    assert (row.goal, row.samples) == (setting.goal, 3 * KEEP)
    assert row.name.startswith(setting.name)
    assert "most 30 %" in row.note and "real-time priority" in row.note
    assert ("3.1 updates/s" in row.note) == setting.learning


def test_a_row_notes_an_ordinary_priority() -> None:
    row = jitter._row(SETTINGS[1], [{**WINDOW, "realtime": "false"}], "")
    assert "ordinary priority" in row.note


@each_setting
def test_measuring_begins_when_the_arm_acts_and_the_trainer_learns(setting) -> None:
    reports = NodeReports(lambda seconds: None)
    assert not jitter._begun(reports, setting)
    reports.update({"/robot/robot": {"decisions": str(RECORDED + 1)}})
    assert jitter._begun(reports, setting) != setting.learning
    reports.update({"/robot/trainer": {"updates": "3"}})
    assert jitter._begun(reports, setting)
    reports.update({"/robot/robot": {"decisions": str(RECORDED)}})
    assert not jitter._begun(reports, setting)


@pytest.mark.parametrize("latched", range(TRIES + 1))
def test_an_arm_that_latches_is_replaced_a_few_times(monkeypatch, latched: int) -> None:
    measured = []

    def measure(*arguments):
        measured.append(arguments)
        if len(measured) <= latched:
            raise jitter._Latched("overrun")
        return ["row"]

    monkeypatch.setattr(jitter, "_measure", measure)
    if latched < TRIES:
        assert jitter._tried(SETTINGS[0], "mwm_cpu", 1) == ["row"]
        assert len(measured) == latched + 1
    else:
        with pytest.raises(UserError, match=rf"latched {TRIES} times, last: overrun"):
            jitter._tried(SETTINGS[0], "mwm_cpu", 1)
        assert len(measured) == TRIES


@pytest.mark.slow
@pytest.mark.realtime
@pytest.mark.timeout(900)
def test_each_setting_gives_its_row_with_its_conditions() -> None:
    before = dict(os.environ)
    rows = jitter.run(windows=1)
    assert dict(os.environ) == before
    assert [row.goal for row in rows] == [setting.goal for setting in SETTINGS]
    for row, setting in zip(rows, SETTINGS, strict=True):
        assert row.value > 0 and row.name.startswith(setting.name)
        assert ("updates/s" in row.note) == setting.learning
