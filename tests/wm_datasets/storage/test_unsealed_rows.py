"""Rows are read across segments, and missing rows between them are reported."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.wm_datasets.log_rows import make_row, make_spec
from wm_datasets.storage import unsealed_rows
from wm_datasets.storage.manifest import Manifest
from wm_datasets.storage.manifest_file import ManifestFile
from wm_datasets.storage.row_packer import RowPacker
from wm_datasets.storage.segment import HEADER_BYTES, SegmentWriter, record_dtype, seal_record
from wm_datasets.storage.unsealed_rows import UnsealedRows

SPEC = make_spec()
DTYPE = record_dtype(SPEC.fields)
ROWS = 16  # of a segment
SEALED = 2 * ROWS


class Log:
    """The root and the segments of a log whose rows before SEALED are in arrays."""

    def __init__(self, root):
        self.root, self.folder = root, root / "wal"
        self.manifest = replace(Manifest.new(SPEC), sealed=SEALED, segment_rows=ROWS)
        self.manifest.create_folders(root)
        self.manifest.commit(root)
        self.folder.mkdir()
        self.packer, self.writers, self.reported = RowPacker(SPEC), {}, []

    def write(self, start, stop):
        """Append rows to their segments."""
        for row in range(start, stop):
            first = row // ROWS * ROWS
            if first not in self.writers:
                self.writers[first] = SegmentWriter(self.folder, first, DTYPE)
            self.writers[first].append(
                seal_record(self.packer.pack(make_row(row, row, False), row))
            )

    def seal(self, sealed):
        """The rows before `sealed` are in arrays now."""
        self.manifest = replace(self.manifest, sealed=sealed)
        self.manifest.commit(self.root)

    def delete_segment(self, start):
        self.writers.pop(start).path.unlink()

    def damage_row(self, row):
        path = self.writers[row // ROWS * ROWS].path
        data = bytearray(path.read_bytes())
        data[HEADER_BYTES + row % ROWS * DTYPE.itemsize + 20] ^= 1
        path.write_bytes(data)

    def open(self):
        self.file = ManifestFile(self.root)
        return UnsealedRows(self.root, self.file, self.reported.append)


@pytest.fixture
def log(tmp_path):
    new_log = Log(tmp_path)
    yield new_log
    for writer in new_log.writers.values():
        writer.close()


def check(rows, stop, lost=()):
    """The records are those of rows [SEALED, stop); lost ones are zeros."""
    assert rows.length == stop
    records = rows.records
    expected = [0 if row in lost else row for row in range(SEALED, stop)]
    assert records["proprio"][:, 0].tolist() == expected


def test_a_log_without_segments_has_no_rows(log):
    rows = log.open()
    assert rows.follow() and rows.take_open()
    check(rows, SEALED)
    assert rows.records.dtype == DTYPE and not log.reported


@pytest.mark.parametrize("stop", [SEALED + 1, SEALED + ROWS, SEALED + ROWS + 1, SEALED + 3 * ROWS])
def test_all_rows_of_all_segments_are_read(log, stop):
    log.write(SEALED, stop)
    rows = log.open()
    assert rows.follow()
    check(rows, stop)
    assert not log.reported


def test_new_rows_are_read_after_each_append(log):
    rows = log.open()
    for stop in range(SEALED + 1, SEALED + 2 * ROWS + 3, 3):
        log.write(rows.length, stop)
        assert rows.follow()
        check(rows, stop)


def test_rows_of_the_open_segment_are_read_until_it_is_full(log):
    log.write(SEALED, SEALED + 2)
    rows = log.open()
    rows.follow()
    assert rows.take_open()
    log.write(SEALED + 2, SEALED + 5)
    assert rows.take_open()
    check(rows, SEALED + 5)
    log.write(SEALED + 5, SEALED + ROWS)
    assert not rows.take_open()
    check(rows, SEALED + ROWS)
    log.write(SEALED + ROWS, SEALED + ROWS + 1)
    assert rows.follow()
    check(rows, SEALED + ROWS + 1)


@pytest.mark.parametrize("start", [SEALED - 5, SEALED, SEALED + 3, SEALED + ROWS + 1])
@pytest.mark.parametrize("stop", [SEALED, SEALED + 4, SEALED + ROWS, SEALED + 2 * ROWS + 3])
def test_a_range_of_a_field_is_copied(log, start, stop):
    log.write(SEALED, SEALED + 2 * ROWS + 3)
    rows = log.open()
    rows.follow()
    out = np.full((max(stop - start, 0), 3), -7, np.float32)
    rows.copy("proprio", start, stop, out)
    expected = [row if row >= SEALED else -7 for row in range(start, stop)]
    assert out[:, 0].tolist() == expected


@pytest.mark.parametrize("sealed", [SEALED, SEALED + 5, SEALED + ROWS, SEALED + ROWS + 2])
def test_sealed_rows_are_dropped_and_the_others_stay(log, sealed):
    stop = SEALED + ROWS + 4
    log.write(SEALED, stop)
    rows = log.open()
    rows.follow()
    rows.drop_sealed(sealed)
    assert rows.length == stop
    assert rows.records["proprio"][:, 0].tolist() == list(range(sealed, stop))
    log.write(stop, stop + 1)
    assert rows.follow() and rows.records["proprio"][-1, 0] == stop


@pytest.mark.parametrize("more", [0, ROWS])
def test_when_all_rows_are_sealed_the_next_segment_is_opened(log, more):
    stop = SEALED + ROWS
    log.write(SEALED, stop)
    rows = log.open()
    rows.follow()
    log.seal(stop + more)
    log.file.take()
    rows.drop_sealed(stop + more)
    assert rows.length == stop + more and len(rows.records) == 0
    log.write(stop + more, stop + more + 2)
    assert rows.follow()
    assert rows.records["proprio"][:, 0].tolist() == [stop + more, stop + more + 1]


def test_follow_reports_that_rows_were_sealed_meanwhile(log):
    rows = log.open()
    log.seal(SEALED + ROWS)
    assert not rows.follow()
    log.file.take()
    rows.drop_sealed(SEALED + ROWS)
    assert rows.follow() and not log.reported


@pytest.mark.parametrize("missing", [0, 1])
def test_the_rows_of_a_missing_segment_are_lost(log, missing):
    start = SEALED + missing * ROWS
    log.write(SEALED, SEALED + 3 * ROWS + 1)
    log.delete_segment(start)
    rows = log.open()
    assert rows.follow()
    check(rows, SEALED + 3 * ROWS + 1, lost=range(start, start + ROWS))
    (damage,) = log.reported
    assert (damage.start, damage.stop) == (start, start + ROWS)
    assert damage.reason == "the file is missing" and f"{start:012d}" in damage.path.name
    flags = rows.records["is_first"][start - SEALED : start - SEALED + ROWS]
    assert flags.tolist() == [True] + [False] * (ROWS - 1)


def test_two_missing_segments_are_one_gap(log):
    log.write(SEALED, SEALED + 3 * ROWS + 1)
    log.delete_segment(SEALED)
    log.delete_segment(SEALED + ROWS)
    rows = log.open()
    assert rows.follow()
    assert [(d.start, d.stop) for d in log.reported] == [(SEALED, SEALED + 2 * ROWS)]
    assert rows.length == SEALED + 3 * ROWS + 1


def test_a_missing_segment_is_no_damage_when_it_was_sealed_meanwhile(log):
    log.write(SEALED, SEALED + ROWS + 1)
    rows = log.open()
    log.seal(SEALED + ROWS)
    log.delete_segment(SEALED)
    assert not rows.follow() and not log.reported and rows.length == SEALED


def test_a_segment_without_a_row_does_not_end_a_gap(log):
    log.write(SEALED, SEALED + 1)
    log.delete_segment(SEALED)
    log.writers[SEALED + ROWS] = SegmentWriter(log.folder, SEALED + ROWS, DTYPE)
    rows = log.open()
    assert rows.follow() and rows.length == SEALED and not log.reported


@pytest.mark.parametrize("last", [False, True])
def test_a_damaged_row_of_a_full_segment_is_the_only_lost_row(log, last):
    row = SEALED + (ROWS - 1 if last else 3)
    log.write(SEALED, SEALED + ROWS + 1)
    log.damage_row(row)
    rows = log.open()
    assert rows.follow()
    check(rows, SEALED + ROWS + 1, lost=[row])
    assert [(d.start, d.stop) for d in log.reported] == [(row, row + 1)]


def test_adjacent_damaged_rows_are_reported_together(log):
    log.write(SEALED, SEALED + 9)
    for row in (SEALED + 2, SEALED + 3, SEALED + 6):
        log.damage_row(row)
    rows = log.open()
    assert rows.follow()
    reported = [(d.start - SEALED, d.stop - SEALED) for d in log.reported]
    assert reported == [(2, 4), (6, 7)]


def test_the_end_of_a_cut_segment_is_lost_once_a_later_one_has_rows(log):
    log.write(SEALED, SEALED + ROWS)
    os.truncate(log.writers[SEALED].path, HEADER_BYTES + 10 * DTYPE.itemsize)
    rows = log.open()
    assert rows.follow()
    check(rows, SEALED + 10)
    log.write(SEALED + ROWS, SEALED + ROWS + 1)
    assert rows.follow()
    check(rows, SEALED + ROWS + 1, lost=range(SEALED + 10, SEALED + ROWS))
    assert [(d.start, d.stop) for d in log.reported] == [(SEALED + 10, SEALED + ROWS)]


def test_a_cut_segment_that_was_sealed_meanwhile_is_no_damage(log):
    log.write(SEALED, SEALED + ROWS + 1)
    os.truncate(log.writers[SEALED].path, HEADER_BYTES + 10 * DTYPE.itemsize)
    rows = log.open()
    log.seal(SEALED + ROWS)
    assert not rows.follow() and not log.reported


def test_the_folders_time_is_returned_unless_it_has_just_changed(log, monkeypatch):
    rows = log.open()
    modified_ns = 10**18
    os.utime(log.folder, ns=(modified_ns, modified_ns))
    assert rows.folder_changed() == modified_ns
    for elapsed_ns, expected in ((100_000_000, None), (100_000_001, modified_ns)):
        monkeypatch.setattr(time, "time_ns", lambda elapsed_ns=elapsed_ns: modified_ns + elapsed_ns)
        assert unsealed_rows.time.time_ns() == modified_ns + elapsed_ns
        assert rows.folder_changed() == expected
    log.folder.rmdir()
    assert rows.folder_changed() is None


def test_reading_continues_after_closing(log):
    log.write(SEALED, SEALED + ROWS)
    rows = log.open()
    rows.follow()
    rows.close()
    rows.close()
    log.write(SEALED + ROWS, SEALED + ROWS + 2)
    assert rows.follow()
    check(rows, SEALED + ROWS + 2)
