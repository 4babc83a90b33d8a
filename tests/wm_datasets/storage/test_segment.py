"""A segment returns the completely written records, and lists those that are lost."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from wm_datasets.errors import LogFormatError
from wm_datasets.spec import Field
from wm_datasets.storage import segment
from wm_datasets.storage.segment import (
    HEADER_BYTES,
    MARK,
    SegmentReader,
    SegmentWriter,
    is_whole,
    list_foreign,
    list_segments,
    mark_durable,
    read_mark,
    record_dtype,
    seal_record,
    segment_path,
)

FIELDS = {
    "value": Field("value", np.dtype("<f4"), (3,)),
    "is_first": Field("is_first", np.dtype("?")),
    "is_last": Field("is_last", np.dtype("?")),
}
DTYPE = record_dtype(FIELDS)
SIZE = DTYPE.itemsize
START = 40


def sealed(row, *, last=False):
    record = np.zeros(1, DTYPE)
    record["_row"], record["value"] = row, row
    record["is_last"] = last
    return seal_record(record)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a segment of so many rows from START on, and its path."""

    def write(rows, last=()):
        writer = SegmentWriter(tmp_path, START, DTYPE)
        for row in range(START, START + rows):
            writer.append(sealed(row, last=row in last))
        writer.close()
        return writer.path

    return write


@pytest.fixture
def read(tmp_path):
    readers = []

    def read():
        readers.append(SegmentReader(tmp_path, START, DTYPE))
        return readers[-1]

    yield read
    for reader in readers:
        reader.close()


def damage(path, at, value=None):
    data = bytearray(path.read_bytes())
    data[at] = data[at] ^ 1 if value is None else value
    path.write_bytes(data)


def test_a_record_is_its_frame_and_its_fields_side_by_side():
    assert SIZE == 4 + 4 + 8 + 12 + 1 + 1
    data = sealed(7)
    assert int.from_bytes(data[:4], "little") == SIZE - 8
    assert int.from_bytes(data[4:8], "little") == zlib.crc32(data[8:])
    assert int.from_bytes(data[8:16], "little") == 7


def test_a_segment_has_the_documented_layout(write):
    data = write(2).read_bytes()
    assert data[:8] == b"WMLOGSEG" and int.from_bytes(data[8:12], "little") == 1
    assert int.from_bytes(data[16:24], "little") == START
    assert int.from_bytes(data[24:28], "little") == SIZE
    assert int.from_bytes(data[28:32], "little") == zlib.crc32(data[:28])
    assert HEADER_BYTES == 32 and data[32:] == sealed(START) + sealed(START + 1)


def test_only_files_with_names_of_segments_are_listed_as_segments(tmp_path):
    assert segment_path(tmp_path, 5).name == "000000000005.seg"
    starts = [0, 5, 10**12 - 1, 10**12]
    foreign = ["0000000000005.seg", "5.seg", "000000000005.segx", "x", "000000000007.seg.tmp"]
    for start in reversed(starts):
        segment_path(tmp_path, start).touch()
    for name in (*foreign, MARK):
        (tmp_path / name).touch()
    assert list_segments(tmp_path) == starts
    assert list_foreign(tmp_path) == [tmp_path / name for name in sorted(foreign)]
    assert list_segments(tmp_path / "none") == [] and list_foreign(tmp_path / "none") == []


def test_each_record_is_returned_once_when_it_is_whole(tmp_path, read):
    writer = SegmentWriter(tmp_path, START, DTYPE)
    assert (writer.start, writer.rows, writer.synced) == (START, 0, 0)
    reader = read()
    assert reader.has_grown() and len(reader.poll()) == 0
    assert not reader.has_grown()
    writer.append(sealed(START))
    writer.append(sealed(START + 1))
    assert writer.rows == 2 and reader.has_grown()
    assert reader.poll()["_row"].tolist() == [START, START + 1]
    assert reader.rows == 2 and not reader.has_grown() and len(reader.poll()) == 0
    whole = sealed(START + 2)
    for cut in (1, SIZE - 1):
        os.truncate(writer.path, HEADER_BYTES + 2 * SIZE)
        with writer.path.open("ab") as file:
            file.write(whole[:cut])
        assert not reader.has_grown() and len(reader.poll()) == 0
    os.truncate(writer.path, HEADER_BYTES + 2 * SIZE)
    writer.append(whole)
    assert reader.has_grown() and reader.poll()["value"].tolist() == [[START + 2] * 3]
    assert reader.lost == []
    writer.close()


def test_a_segment_without_a_whole_header_has_no_record(tmp_path, write, read):
    path = write(1)
    data = path.read_bytes()
    path.write_bytes(data[: HEADER_BYTES - 1])
    reader = read()
    assert len(reader.poll()) == 0 and reader.has_grown()
    path.write_bytes(data)
    assert len(reader.poll()) == 1


def test_a_damaged_header_loses_no_record(write, read):
    path = write(2)
    damage(path, 9)
    assert read().poll()["_row"].tolist() == [START, START + 1]


@pytest.mark.parametrize("other", ["row", "layout"])
def test_a_segment_of_another_log_is_refused(tmp_path, write, read, other):
    path = write(1)
    if other == "row":
        other_writer = SegmentWriter(tmp_path, START + 1, DTYPE)
    else:
        fields = FIELDS | {"more": Field("more", np.dtype("?"))}
        other_writer = SegmentWriter(tmp_path, START + 1, record_dtype(fields))
    other_writer.close()
    other_writer.path.replace(path)
    with pytest.raises(LogFormatError, match="another log or format version"):
        read().poll()


def test_a_missing_segment_raises_file_not_found(tmp_path, read):
    with pytest.raises(FileNotFoundError):
        read()
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError):
        SegmentReader(tmp_path / "file", START, DTYPE)


@pytest.mark.parametrize("part", ["length", "crc", "row", "value"])
def test_a_damaged_record_before_an_intact_one_is_the_only_lost_one(write, read, part):
    path = write(4, last=[START + 1])
    damage(path, HEADER_BYTES + 2 * SIZE + {"length": 0, "crc": 4, "row": 8, "value": 20}[part])
    reader = read()
    records = reader.poll()
    assert reader.lost == [START + 2] and reader.rows == 4
    assert records["_row"].tolist() == [START, START + 1, START + 2, START + 3]
    assert records["value"][:, 0].tolist() == [START, START + 1, 0, START + 3]
    assert records["is_first"].tolist() == [
        False,
        False,
        True,
        False,
    ]  # the previous record is the last of its episode


@pytest.mark.parametrize(("row", "begins"), [(0, True), (1, False)])
def test_a_lost_record_begins_an_episode_at_the_start_and_after_an_end(write, read, row, begins):
    damage(write(3), HEADER_BYTES + row * SIZE + 20)
    reader = read()
    records = reader.poll()
    assert reader.lost == [START + row] and records["is_first"][row] == begins


def test_a_damaged_record_at_the_end_counts_as_not_yet_written(write, read):
    path = write(3)
    damage(path, HEADER_BYTES + 2 * SIZE + 20)
    reader = read()
    assert len(reader.poll()) == 2 and reader.lost == []
    damage(path, HEADER_BYTES + 2 * SIZE + 20)
    assert reader.poll()["_row"].tolist() == [START + 2]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_expected_records_that_are_missing_are_lost(write, read, rows):
    write(rows)
    reader = read()
    records = reader.poll(3)
    assert records["_row"].tolist() == [START, START + 1, START + 2]
    assert reader.lost == list(range(START + rows, START + 3)) and reader.rows == 3


def test_expected_records_that_were_returned_are_not_returned_again(write, read):
    path = write(3)
    reader = read()
    assert len(reader.poll()) == 3
    assert len(reader.poll(3)) == 0
    os.truncate(path, HEADER_BYTES + 2 * SIZE)
    assert reader.poll(4)["_row"].tolist() == [START + 3] and reader.lost == [START + 3]


def test_expected_records_of_a_segment_without_a_header_are_lost(write, read):
    os.truncate(write(2), 0)
    reader = read()
    assert len(reader.poll(2)) == 2 and reader.lost == [START, START + 1]


def test_a_failed_append_leaves_the_segment_as_it_was(tmp_path, monkeypatch, read):
    writer = SegmentWriter(tmp_path, START, DTYPE)
    writer.append(sealed(START))
    pwrite = os.pwrite

    def full(fd, data, at):
        if at > HEADER_BYTES + SIZE:
            raise OSError(28, "no space")
        return pwrite(fd, data[:5], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        writer.append(sealed(START + 1))
    assert writer.path.stat().st_size == HEADER_BYTES + SIZE and writer.rows == 1
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    writer.append(sealed(START + 1))  # in short pieces
    assert len(read().poll()) == 2
    writer.close()


def test_records_are_read_in_pieces_of_any_size(write, read, monkeypatch):
    write(3)
    whole, pread = read().poll(), os.pread
    for most in (1, 7, 4096):
        monkeypatch.setattr(
            os, "pread", lambda fd, count, at, most=most: pread(fd, min(count, most), at)
        )
        assert (read().poll() == whole).all()


def test_a_segment_whose_header_cannot_be_written_is_removed(tmp_path, monkeypatch):
    def full(fd, data, at):
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        SegmentWriter(tmp_path, START, DTYPE)
    assert not list(tmp_path.iterdir())


def test_a_new_segment_replaces_an_existing_file(tmp_path, write):
    path = write(3)
    SegmentWriter(tmp_path, START, DTYPE).close()
    assert path.stat().st_size == HEADER_BYTES


def test_a_syncer_works_after_the_writer_was_closed(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    writer = SegmentWriter(tmp_path, START, DTYPE)
    sync = writer.syncer()
    writer.close()
    sync()
    assert synced == [writer.path]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8193, 1 << 17, (1 << 17) + 1])
def test_the_checksum_is_crc32_whatever_the_size(size):
    data = np.arange(size, dtype=np.uint32).astype(np.uint8).tobytes()
    assert segment._checksum(memoryview(data)) == zlib.crc32(data)


def test_a_record_is_whole_if_length_number_and_checksum_agree():
    data = sealed(7)
    assert is_whole(data, 7) and not is_whole(data, 8)
    for at in range(SIZE):
        broken = bytearray(data)
        broken[at] ^= 1
        assert not is_whole(bytes(broken), 7)
    assert not is_whole(data + b"\0", 7) and not is_whole(data[:-1], 7)


def test_the_mark_is_the_last_written_count_and_zero_if_damaged(tmp_path):
    assert read_mark(tmp_path) == 0
    for rows in (2**40, 12):
        mark_durable(tmp_path, rows)
        assert read_mark(tmp_path) == rows
    mark = tmp_path / MARK
    data = mark.read_bytes()
    assert len(data) == 12
    for broken in (data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:], b""):
        mark.write_bytes(broken)
        assert read_mark(tmp_path) == 0
    (tmp_path / "file").touch()
    assert read_mark(tmp_path / "file") == 0
