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


def test_verify_finds_no_fault_and_takes_a_run_for_its_log(path, capsys):
    assert log.run(["verify", str(path.parent)]) == 0
    assert "no fault in" in capsys.readouterr().out


def test_verify_names_a_damaged_file_and_its_rows(path, capsys):
    chunk = path / "reward" / "c.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    try:
        assert log.run(["verify", str(path)]) == 1
        output = capsys.readouterr().out
        assert f"damage: {chunk}, rows 0 to " in output
        assert "1 faults in" in output
        assert log.run(["verify", str(path), "--json"]) == 1
        (fault,) = json.loads(capsys.readouterr().out)["faults"]
        assert fault["path"] == str(chunk)
    finally:
        chunk.write_bytes(whole)


def test_torture_writes_what_it_found(tmp_path, capsys):
    words = [str(tmp_path / "log"), "--kills", "2", "--longest-s", "0.3"]
    assert log.run(["torture", *words, "--out", str(tmp_path / "found")]) == 0
    assert capsys.readouterr().out.startswith("2 kills, ")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["kept_its_promises"]
    assert found["config"]["kills"] == 2
    with (tmp_path / "found.csv").open() as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["0", "1"]


def test_torture_injects_faults_and_says_what_came_of_them(tmp_path, capsys):
    words = ["torture", str(tmp_path / "log"), "--inject", "flips", "--trials", "1"]
    assert log.run([*words, "--out", str(tmp_path / "found")]) == 0
    assert capsys.readouterr().out.startswith("10 trials: ")
    with (tmp_path / "found.csv").open() as file:
        assert {row["wrong"] for row in csv.DictReader(file)} == {"0"}
    with pytest.raises(UserError, match="which exists, expected a new path"):
        log.run(words)


def test_torture_leaves_an_existing_log_alone(path):
    with pytest.raises(UserError, match="Give a new path"):
        log.run(["torture", str(path)])
