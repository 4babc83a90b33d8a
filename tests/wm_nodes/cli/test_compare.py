"""`wm compare`: runs by name or path in, a table out; what is wrong in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wm_nodes.evaluation.test_comparison import write_run
from wm_nodes.cli.main import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for model in "ab":
        for seed in range(2):
            values = (0.0, 0.2, 0.4, 0.9 if model == "b" else 0.3)
            write_run(tmp_path / "runs", f"{model}{seed}", values, model=model, seed=seed)
    return tmp_path


def test_runs_are_found_by_name_and_by_path(runs: Path, capsys) -> None:
    assert main(["compare", "a0", "runs/a1", "b0", str(runs / "runs/b1"), "--last", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("| b | 2") < printed.index("| a | 2")
    files = {path.name for path in (runs / "comparison").iterdir()}
    assert files == {"comparison.md", "comparison.csv", "comparison.png"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a0"], "got 1 run, expected two or more"),
        (["a0", "c0"], "got c0, expected the folder or the name of a run"),
        (["a0", "a0"], "equal settings, task and seed 0"),
        (["a0", "b0", "--last", "0"], "last"),
        (["a0", "b0", "--metric", "length"], "metric"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs: Path, capsys, words, error) -> None:
    assert main(["compare", *words]) == 2
    printed = capsys.readouterr().err
    assert error in printed and len(printed.splitlines()) == 1
    assert not (runs / "comparison").exists()
