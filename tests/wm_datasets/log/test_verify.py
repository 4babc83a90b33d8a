"""Findings of verify that are no damage: files of other names, shapes with too many rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.durability.test_killed_writer import abandon
from tests.wm_datasets.log_rows import append_episode, check_rows, make_row, make_spec
from wm_datasets import LogReader, LogWriter, SensorSpec, describe
from wm_datasets.log.verify import verify
from wm_nodes.cli import main

FOREIGN_NAMES = [
    "notes.seg", "000000000016 (1).seg", "._000000000000.seg", "16.seg", "1_000.seg", "+5.seg",
    "00000000000\u0661.seg", "readme.txt", "000000000000.seg~",
]  # fmt: skip


def open_log(path):
    """A log as a killed writer left it: rows in two segments."""
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0
    append_episode(writer, 20)
    abandon(writer)


def test_files_in_wal_of_other_names_are_ignored_and_named(path, capsys):
    open_log(path)
    foreign_files = sorted(str(path / "wal" / name) for name in FOREIGN_NAMES)
    for foreign_file in foreign_files:
        Path(foreign_file).write_text("x")
    report = verify(path)
    assert not report.faults
    assert list(report.ignored) == foreign_files == list(describe(path).ignored)
    assert main.main(["log", "verify", str(path)]) == 0
    assert main.main(["log", "info", str(path)]) == 0
    output = capsys.readouterr().out
    assert all(output.count(f"{foreign_file}: no segment") == 2 for foreign_file in foreign_files)
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == 20
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 40)
    assert list(verify(path).ignored) == foreign_files  # a file of another origin is not removed
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == 60


def test_a_missing_segment_is_reported_among_files_of_other_names(path):
    open_log(path)
    for name in FOREIGN_NAMES:
        (path / "wal" / name).write_text("x")
    (path / "wal" / "000000000000.seg").unlink()
    with LogReader(path) as reader:
        assert [(d.start, d.stop) for d in reader.damage] == [(0, 16)]
        assert reader.length == 20


@pytest.mark.parametrize("capacity", [None, 1 << 20])
def test_files_among_chunks_of_other_names_stay_and_stop_no_writer(path, make_log, capacity):
    make_log([20])
    foreign_files = [
        path / "reward" / name for name in ("c.backup", "c.", "c.00", "c.0.old", "c.\u0661")
    ]
    for foreign_file in foreign_files:
        foreign_file.write_text("x")
    with LogWriter(path, make_spec(), capacity_bytes=capacity) as writer:
        append_episode(writer, 40)
    assert all(foreign_file.exists() for foreign_file in foreign_files)
    assert not verify(path).faults
    with LogReader(path) as reader:
        check_rows(reader)


@pytest.mark.parametrize("at", [0, 3, 19, 20])
def test_reading_zero_rows_of_an_absent_field_is_no_damage(path, make_log, at):
    make_log([20])
    spec = make_spec(sensors={"depth": SensorSpec("uint16", (3, 4), "mm")})
    with LogWriter(path, spec) as writer:
        writer.append(make_row(20, 0, False) | {"sensor/depth": np.zeros((3, 4), np.uint16)})
    with LogReader(path) as reader:
        for read in (reader.read, reader.read_around):
            assert read("sensor/depth", at, at).shape == (0, 3, 4)
        assert not reader.damage


def test_reading_zero_rows_of_a_damaged_chunk_is_no_damage(path, make_log):
    make_log([20])
    next((path / "reward").glob("c.*")).write_bytes(b"")
    with LogReader(path) as reader:
        assert reader.read("reward", 7, 7).shape == (0,)
        assert not reader.damage


@pytest.mark.parametrize("name", ["reward", "image/front", "episode/start"])
@pytest.mark.parametrize("length", [21, 10**6, -1, True, "20", None])
def test_an_array_with_more_rows_than_exist_is_named(path, make_log, name, length):
    make_log([10, 10])
    file = path / name / "zarr.json"
    node = json.loads(file.read_text())
    node["shape"][0] = length
    file.write_text(json.dumps(node))
    (fault,) = verify(path).faults
    assert (fault.kind, fault.path) == ("metadata", str(file))


def test_an_array_may_count_rows_that_a_killed_writer_was_about_to_commit(path):
    open_log(path)
    for name, rows in (("reward", 16), ("is_first", 20), ("episode/start", 1)):
        file = path / name / "zarr.json"
        node = json.loads(file.read_text())
        node["shape"][0] = rows
        file.write_text(json.dumps(node))
    assert not verify(path).faults


def test_verifying_a_log_that_grows_reports_no_fault(path, start_writer):
    start_writer(path, pause_s=0.0002)
    for _ in range(10):
        kinds = {fault.kind for fault in verify(path).faults}
        assert not kinds
