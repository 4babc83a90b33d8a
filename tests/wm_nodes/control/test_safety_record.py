"""Latches survive the process, and an unreadable record counts as latched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from wm_nodes.control.safety_record import UNREADABLE, Record, SafetyRecord, default_path

LATCHED = Record({"estop": "called by the operator"}, running=True)


def test_a_stored_record_is_loaded(tmp_path):
    record = SafetyRecord(tmp_path / "deep" / "arm.json")
    assert record.load() == Record()
    record.store(lambda: LATCHED)
    assert SafetyRecord(record.path).load() == LATCHED


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"latched": 3, "running": true}', "\0"]
)
def test_a_record_that_cannot_be_read_is_a_latch(tmp_path, content):
    path = tmp_path / "arm.json"
    path.write_text(content)
    record = SafetyRecord(path).load()
    assert UNREADABLE in record.latched and str(path) in record.latched[UNREADABLE]
    assert record.running  # nothing is known: as after an unclean end


@pytest.mark.parametrize("running", [False, True])
def test_both_ends_of_a_run_are_loaded(tmp_path, running):
    record = SafetyRecord(tmp_path / "arm.json")
    record.store(lambda: Record({}, running))
    assert SafetyRecord(record.path).load() == Record({}, running)


def test_an_equal_record_is_not_written_again_and_a_changed_one_is(tmp_path):
    record = SafetyRecord(tmp_path / "arm.json")
    record.store(lambda: LATCHED)
    record.path.unlink()
    record.store(lambda: LATCHED)
    assert not record.path.exists()
    record.store(lambda: Record())
    assert SafetyRecord(record.path).load() == Record()


def test_a_failed_write_is_an_error_and_the_old_record_stays(tmp_path):
    record = SafetyRecord(tmp_path / "arm.json")
    record.store(lambda: LATCHED)
    (tmp_path / ".arm.json.part").mkdir()  # nothing can be written there
    with pytest.raises(IsADirectoryError):
        record.store(lambda: Record())
    assert SafetyRecord(record.path).load() == LATCHED


def test_kill_9_after_store_loses_no_latch(tmp_path):
    """The latch is on the disk when `store` returns."""
    path = tmp_path / "arm.json"
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from wm_nodes.control.safety_record import Record, SafetyRecord\n"
        "SafetyRecord(Path(sys.argv[1])).store(lambda: Record({'estop': 'x'}, True))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert result.returncode == -9
    assert SafetyRecord(path).load().latched == {"estop": "x"}


def test_two_robots_and_two_graphs_have_their_own_records(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    names = [
        ("fr3", "0", "/robot"),
        ("ur5e", "0", "/robot"),
        ("fr3", "1", "/robot"),
        ("fr3", "0", "/"),
    ]
    assert default_path("fr3", "0", "/robot/left").name == "fr3@0_robot.left.json"
    assert default_path("fr3", "0", "/").name == "fr3@0_..json"
    paths = {default_path(*name) for name in names}
    assert len(paths) == len(names)
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert all(os.sep not in path.name for path in paths)


def test_records_are_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".local" / "state" / "wm_nodes" / "robots"
    assert default_path("fr3", "0", "/robot").parent == folder
