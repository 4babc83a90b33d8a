"""`wm bench` gives rows, a table and two files; goals are compared in the stated direction."""

from __future__ import annotations

import csv
import json

import pytest

from wm_nodes.checks.bench import GROUPS, Row, run, table
from wm_nodes.checks.bench.timing import Timing
from wm_nodes.errors import UserError


def test_rows_reach_the_table_and_the_files(tmp_path) -> None:
    output: list[str] = []
    rows = run(["machine", "sampler", "log"], quick=True, folder=tmp_path, show=output.append)
    assert {row.group for row in rows} == {"machine", "sampler", "log"}
    assert all(row.value > 0 for row in rows)
    assert "cores" in output[0]
    assert all(row.name in "\n".join(output) for row in rows)
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert saved["machine"]["cpu"] and len(saved["rows"]) == len(rows)
    with (tmp_path / "bench.csv").open() as file:
        assert [line["name"] for line in csv.DictReader(file)] == [row.name for row in rows]


def test_models_are_measured_by_preset() -> None:
    rows = run(["models"], quick=True, show=lambda text: None)
    names = [row.name for row in rows]
    assert all(name.startswith("mwm_cpu: ") for name in names)
    share = next(row for row in rows if "share" in row.name)
    assert share.value > 0


def test_a_wrong_group_is_refused() -> None:
    with pytest.raises(UserError, match="group: got 'modles', expected machine, models"):
        run(["modles"])
    assert set(GROUPS) >= {"models", "sampler", "log", "simulator"}


@pytest.mark.parametrize(
    ("better", "value", "reached"),
    [("lower", 7.0, True), ("lower", 9.0, False), ("higher", 9.0, True), ("higher", 7.0, False)],
)
def test_goals(better: str, value: float, reached: bool) -> None:
    row = Row("models", "x", value, "ms", goal=8.0, better=better)
    assert row.reached is reached
    assert ("ok" if reached else "missed") in table([row])
    assert Row("models", "x", value, "ms").reached is None


def test_one_thread_is_measured_in_cpu_time() -> None:
    single = Timing(wall_s=(0.3, 0.2, 0.1), cpu_s=(0.03, 0.02, 0.01))
    assert single.row("g", "n").value == pytest.approx(20.0)
    assert single.rate_row("g", "n", "1/s").value == pytest.approx(50.0)
    assert "wall clock 200 ms" in single.row("g", "n").note
    several = Timing(single.wall_s, single.cpu_s, threads=2)
    assert several.row("g", "n").value == pytest.approx(200.0)
