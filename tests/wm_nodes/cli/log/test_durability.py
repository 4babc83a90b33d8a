"""`wm log verify` and `wm log torture`: what they print, write and return."""

import csv
import json

import pytest

from wm_datasets.durability.writer_kills import KillConfig, kill_writers
from wm_nodes.cli import log
from wm_nodes.errors import UserError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "log"
    kill_writers(path, KillConfig(kills=1, longest_s=5.0, most_rows=60))
    return path


def test_verify_reports_no_fault_and_accepts_the_folder_of_a_run(path, capsys):
    assert log.run(["verify", str(path.parent)]) == 0
    assert "no fault in" in capsys.readouterr().out


def test_verify_names_a_damaged_file_and_its_rows(path, capsys):
    chunk = path / "reward" / "c.0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    try:
        assert log.run(["verify", str(path)]) == 1
        output = capsys.readouterr().out
        assert f"damage: {chunk}, rows 0 to " in output
        assert "1 faults in" in output
        assert log.run(["verify", str(path), "--json"]) == 1
        (fault,) = json.loads(capsys.readouterr().out)["faults"]
        assert fault["path"] == str(chunk)
    finally:
        chunk.write_bytes(content)


def test_torture_writes_its_result(tmp_path, capsys):
    arguments = [str(tmp_path / "log"), "--kills", "2", "--longest-s", "0.3"]
    assert log.run(["torture", *arguments, "--out", str(tmp_path / "result")]) == 0
    assert capsys.readouterr().out.startswith("2 kills, ")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kept_its_promises"]
    assert result["config"]["kills"] == 2
    with (tmp_path / "result.csv").open() as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["0", "1"]


def test_torture_injects_faults_and_reports_the_outcomes(tmp_path, capsys):
    arguments = ["torture", str(tmp_path / "log"), "--inject", "flips", "--trials", "1"]
    assert log.run([*arguments, "--out", str(tmp_path / "result")]) == 0
    assert capsys.readouterr().out.startswith("10 trials: ")
    with (tmp_path / "result.csv").open() as file:
        assert {row["wrong"] for row in csv.DictReader(file)} == {"0"}
    with pytest.raises(UserError, match="which exists, expected a new path"):
        log.run(arguments)


def test_torture_refuses_an_existing_log(path):
    with pytest.raises(UserError, match="Give a new path"):
        log.run(["torture", str(path)])
