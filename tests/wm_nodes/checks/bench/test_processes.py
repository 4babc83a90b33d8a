"""The processes of a benchmark: their environment, what they report, and their end."""

from __future__ import annotations

import os

import pytest

from wm_models.weights.store import load_model
from wm_nodes.checks.bench.processes import NodeReports, environment, fresh_weights, last_lines


@pytest.mark.parametrize("fails", [False, True])
def test_the_environment_is_restored_also_after_an_error(monkeypatch, fails: bool) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.delenv("WM_BENCH_TIMES", raising=False)
    before = dict(os.environ)
    try:
        with environment({"WM_BENCH_TIMES": "file"}):
            assert os.environ["WM_BENCH_TIMES"] == "file"
            assert os.environ["ROS_DOMAIN_ID"] != "7"
            assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert dict(os.environ) == before


def test_the_newest_report_of_a_node_counts() -> None:
    reports = NodeReports(lambda seconds: None)
    assert reports.of("robot") == {}
    for steps in ("1", "2"):
        reports.update({"/robot/robot": {"steps": steps}})
    reports.update({"/robot/policy": {"latency_p50_ms": "3"}})
    assert reports.of("robot") == {"steps": "2"}


def test_fresh_weights_load_as_the_preset_s_model(tmp_path) -> None:
    model, manifest = load_model(fresh_weights("mwm_cpu", tmp_path, action_dim=3))
    assert (manifest.preset, model.spec.action_dim) == ("mwm_cpu", 3)


def test_an_error_shows_the_last_lines_of_each_node(tmp_path) -> None:
    (tmp_path / "robot.log").write_text("1\n2\n3\n4\n")
    (tmp_path / "policy.log").write_text("begins\n")
    assert last_lines(tmp_path).splitlines() == [
        "", "policy: begins", "robot: 2", "robot: 3", "robot: 4",
    ]  # fmt: skip
