"""A column holds the staged and committed rows, in chunks that any zarr library reads."""

import os

import numpy as np
import pytest
import zarr
from numcodecs import zstd

from wm_datasets.errors import LogReadError
from wm_datasets.spec import Field
from wm_datasets.storage import column as column_module
from wm_datasets.storage.column import (
    Column,
    ColumnWriter,
    chunk_rows,
    clean_up,
    decoded_bytes,
    write_json,
    write_whole,
)
from wm_datasets.storage.damage import LogDamageError

FIELD = Field("proprio", np.dtype("<f4"), (3,))
CHUNK = 4


def values(start, stop):
    return np.arange(3 * start, 3 * stop, dtype="<f4").reshape(-1, 3)


@pytest.fixture
def column(tmp_path):
    return Column(tmp_path, FIELD, CHUNK)


def fill(column, rows, step=3):
    """Write rows [0, rows) to `column`; return the writer."""
    writer = ColumnWriter(column, 0)
    for start in range(0, rows, step):
        writer.stage(values(start, min(rows, start + step)))
        writer.commit()
    return writer


@pytest.mark.parametrize(
    ("name", "row_bytes", "budget", "rows"),
    [
        ("image/top", 1 << 20, 1 << 20, 1),
        ("image/top", (1 << 20) + 1, 1 << 20, 1),
        ("image/top", 3 << 20, 1 << 20, 1),
        ("image/top", 300_000, 1 << 20, 2),
        ("image/top", 256 << 10, 1 << 20, 4),
        ("image/top", 16, 1 << 20, 4096),
        ("reward", 4, 1 << 20, 1024),
        ("reward", 2048, 1 << 20, 512),
    ],
)
def test_chunks_are_a_power_of_two_of_rows_within_the_budget(
    monkeypatch, name, row_bytes, budget, rows
):
    monkeypatch.setattr(column_module, "_CHUNK_BYTES", budget)
    assert chunk_rows(Field(name, np.dtype("u1"), (row_bytes,))) == rows


@pytest.mark.parametrize("step", [1, 3, 4, 9, 13])
def test_every_range_is_read_as_staged_in_any_steps(column, step):
    writer = fill(column, 13, step)
    assert writer.length == 13
    for start in range(14):
        for stop in range(start, 14):
            assert np.array_equal(column.read(start, stop), values(start, stop)), (start, stop)
    out = np.zeros((5, 3), "<f4")
    assert column.read(2, 7, out) is out and np.array_equal(out, values(2, 7))


def test_a_writer_continues_where_another_ended(column):
    fill(column, 6)
    writer = ColumnWriter(column, 6)
    writer.stage(values(6, 9))
    writer.commit()
    assert writer.length == 9 and np.array_equal(column.read(0, 9), values(0, 9))


def test_staged_rows_count_only_when_they_are_committed(column):
    writer = fill(column, 6)
    writer.stage(-values(6, 11))
    assert writer.length == 6 and np.array_equal(column.read(0, 6), values(0, 6))
    writer.stage(values(6, 7))  # again, as after a failure
    writer.commit()
    assert writer.length == 7 and np.array_equal(column.read(0, 7), values(0, 7))


def test_zero_rows_write_no_file(column):
    writer = fill(column, 4)
    before = sorted(column.folder.iterdir())
    writer.stage(values(0, 0))
    writer.commit()
    assert writer.length == 4 and sorted(column.folder.iterdir()) == before


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i4", "<i8", "<f4", "?"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 1), (2, 2, 3, 1)])
def test_zarr_reads_the_array(tmp_path, dtype, shape):
    field = Field("reward", np.dtype(dtype), shape)
    rows = np.arange(7 * int(np.prod(shape))).reshape(7, *shape).astype(dtype)
    column = Column(tmp_path, field, CHUNK)
    writer = ColumnWriter(column, 0)
    writer.stage(rows)
    writer.commit()
    write_json(tmp_path / "zarr.json", column.metadata(7, {"units": "1"}))
    array = zarr.open_array(tmp_path, mode="r")
    assert array.dtype == rows.dtype and np.array_equal(array[:], rows)
    assert dict(array.attrs) == {"units": "1"} and array.chunks == (CHUNK, *shape)
    assert array.fill_value == 0
    assert len(array.metadata.dimension_names) == 1 + len(shape)


def test_dimensions_have_names():
    names = {
        ("image/top", (4, 6, 3)): ["time", "height", "width", "channel"],
        ("sensor/depth", (4, 6)): ["time", "height", "width"],
        ("sensor/volume", (2, 4, 6, 1)): ["time", "depth", "height", "width", "channel"],
        ("proprio", (3,)): ["time", "dimension"],
        ("reward", ()): ["time"],
        ("episode/start", ()): ["episode"],
    }
    for (name, shape), expected in names.items():
        column = Column(None, Field(name, np.dtype("<f4"), shape), CHUNK)
        assert column.metadata(0, {})["dimension_names"] == expected


def test_a_chunk_file_is_identified_by_its_name(tmp_path, column):
    assert column.chunk_path(3) == tmp_path / "c.3.0"
    assert column.chunk_number("c.3.0") == 3 and column.chunk_number("c.0.0") == 0
    for name in (
        "c.3",
        "c.03.0",
        "c.-1.0",
        "c.x.0",
        "c.3.1",
        "3.0",
        "c.3.0.tmp",
        "c.²",
        "zarr.json",
    ):
        assert column.chunk_number(name) is None, name


def test_chunks_whose_rows_are_all_dropped_are_deleted(column):
    writer = fill(column, 16)
    assert sorted(writer.sizes) == [0, 1, 2, 3]
    assert writer.sizes == {i: column.chunk_path(i).stat().st_size for i in range(4)}
    writer.drop(0, 7)
    assert sorted(writer.sizes) == [1, 2, 3]
    assert not column.chunk_path(0).exists() and column.chunk_path(1).exists()
    writer.drop(7, 12)
    assert sorted(writer.sizes) == [3]
    assert [column.chunk_path(i).exists() for i in range(4)] == [False, False, False, True]
    column.drop_chunks(0, 12)  # once more: nothing is left to delete


def test_a_chunk_that_cannot_be_deleted_is_logged(tmp_path, caplog):
    (tmp_path / "c.0.0").mkdir()
    clean_up(tmp_path / "c.0.0")
    assert "cannot be deleted" in caplog.text


@pytest.mark.parametrize("last", [2, 4])
def test_damage_names_the_rows_of_its_chunk(column, last):
    fill(column, 12)
    path = column.chunk_path(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LogDamageError) as lost:
        column.read(0, 12)
    assert (lost.value.damage.start, lost.value.damage.stop) == (4, 8)
    path.write_bytes(zstd.compress(np.zeros(5, np.uint8), 1, True))
    with pytest.raises(LogDamageError, match="got 5 decoded bytes, expected 48"):
        column.read_chunk(1)
    path.unlink()
    with pytest.raises(LogDamageError, match="the file is missing"):
        column.read_chunk(1)


@pytest.mark.parametrize(("since", "start"), [(0, 4), (4, 4), (6, 6), (7, 7), (8, 7), (99, 7)])
def test_rows_before_a_field_was_added_are_not_lost(tmp_path, since, start):
    with pytest.raises(LogDamageError) as lost:
        Column(tmp_path, FIELD, CHUNK, since).read_chunk(1)
    assert (lost.value.damage.start, lost.value.damage.stop) == (start, 8)


def test_a_damaged_last_chunk_is_zeros_and_its_rows_are_lost(column):
    fill(column, 6)
    column.chunk_path(1).unlink()
    writer = ColumnWriter(column, 6)
    assert (writer.lost.start, writer.lost.stop) == (4, 6)
    writer.stage(values(6, 7))
    writer.commit()
    assert np.array_equal(column.read(4, 7), [[0] * 3, [0] * 3, *values(6, 7)])
    assert ColumnWriter(column, 8).lost is None  # a full chunk is not needed any more


def test_an_added_column_begins_with_zeros_and_without_damage(tmp_path):
    writer = ColumnWriter(Column(tmp_path, FIELD, CHUNK, since=6), 6)
    assert writer.lost is None
    writer.stage(values(6, 7))
    writer.commit()
    assert np.array_equal(writer.column.read(4, 7), [[0] * 3, [0] * 3, *values(6, 7)])


def test_a_tail_argument_replaces_the_last_chunk(column):
    fill(column, 6)
    tail = -values(4, 6)
    writer = ColumnWriter(column, 6, tail)
    writer.stage(values(6, 7))
    writer.commit()
    assert np.array_equal(column.read(4, 7), [*tail, *values(6, 7)])


def test_a_signature_changes_with_the_file(column):
    assert column.signature(0) == (0, 0, 0)
    fill(column, 4)
    path = column.chunk_path(0)
    data, stat = path.read_bytes(), path.stat()
    assert column.signature(0) == (
        stat.st_mtime_ns,
        len(data),
        int.from_bytes(data[-4:], "little"),
    )
    path.write_bytes(b"\1\2")
    assert column.signature(0)[1:] == (2, 0x0201)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_791, 65_792, 300_000])
def test_the_decoded_size_is_read_from_the_frame(size):
    data = zstd.compress(np.zeros(size, np.uint8), 1, True)
    if size:
        assert decoded_bytes(data) == size


FRAME_HEADERS = [
    # kind, single segment, dictionary id: descriptor byte; bytes between it and the size; size
    (0b00_1_000_00, 0, 1, 7),
    (0b01_0_000_00, 1, 2, 7 + 256),
    (0b01_1_000_00, 0, 2, 7 + 256),
    (0b10_0_000_00, 1, 4, 7),
    (0b11_0_000_00, 1, 8, 7),
    (0b11_1_000_01, 1, 8, 7),
    (0b11_1_000_10, 2, 8, 7),
    (0b11_1_000_11, 4, 8, 7),
    (0b10_0_000_11, 5, 4, 7),
]


@pytest.mark.parametrize(("descriptor", "before", "size", "expected"), FRAME_HEADERS)
def test_the_size_is_read_from_every_kind_of_frame(descriptor, before, size, expected):
    """RFC 8878, 3.1.1.1: descriptor, window, dictionary, content size."""
    frame = (
        b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + b"\xff" * before + (7).to_bytes(size, "little")
    )
    assert decoded_bytes(frame + b"\0") == expected
    assert decoded_bytes(frame[:-1]) == -1
    assert decoded_bytes(frame) == (expected if len(frame) >= 6 else -1)
    assert decoded_bytes(b"\x29" + frame[1:]) == -1


def test_a_frame_without_a_size_has_none():
    assert decoded_bytes(b"\x28\xb5\x2f\xfd" + bytes(20)) == -1
    assert decoded_bytes(b"") == decoded_bytes(b"\x28\xb5\x2f\xfd\x20") == -1


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, pwrite = tmp_path / "x", os.pwrite
    write_whole(path, b"old")
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data[:2]), at))
    write_whole(path, b"newest")  # in short pieces
    assert path.read_bytes() == b"newest" and list(tmp_path.iterdir()) == [path]

    def full(fd, data, at):
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"other")
    assert path.read_bytes() == b"newest"


def test_a_failed_allocation_is_no_damage(column, monkeypatch):
    fill(column, 4)

    def fail_to_allocate(data):
        raise RuntimeError("Zstd decompression error: Allocation error : not enough memory")

    monkeypatch.setattr(column_module.zstd, "decompress", fail_to_allocate)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(LogReadError, match="free memory"):
        column.read_chunk(0)
