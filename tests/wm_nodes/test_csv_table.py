"""CSV files of a run: a torn last line of a killed process is neither read nor continued."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wm_nodes.csv_table import Table, read_rows

ROWS = [{"time": f"{number}.5", "metric": "wm/loss", "value": "0.123"} for number in range(4)]


def test_rows_are_appended_below_one_head(tmp_path):
    Table(tmp_path / "new" / "t.csv").add(ROWS[0], ROWS[1])
    Table(tmp_path / "new" / "t.csv").add(ROWS[2])
    assert list(read_rows(tmp_path / "new" / "t.csv")) == ROWS[:3]
    assert list(read_rows(tmp_path / "no such file")) == []


@given(cut=st.integers(0, 200))
def test_a_table_that_was_cut_anywhere_keeps_its_whole_rows_and_continues(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    Table(path).add(*ROWS[:3])
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = max(whole[:cut].count(b"\n") - 1, 0)
    assert list(read_rows(path)) == ROWS[:kept]
    Table(path).add(ROWS[3])
    assert list(read_rows(path)) == [*ROWS[:kept], ROWS[3]]
    assert path.read_bytes().count(b"time,metric") == 1


def test_lines_that_earlier_versions_merged_are_left_out(tmp_path):
    path = tmp_path / "t.csv"
    Table(path).add(ROWS[0])
    with path.open("a") as file:
        file.write("1.5,wm/lo1.5,wm/loss,0.123\n")
    Table(path).add(ROWS[2])
    assert list(read_rows(path)) == [ROWS[0], ROWS[2]]
