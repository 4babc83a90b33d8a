"""A writer that is faster than the disk waits: the number of unsealed rows is bounded."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.log_rows import EPISODE_ROWS, append_episode, check_rows, make_row, make_spec
from wm_datasets import LogError, LogFullError, LogReader, LogWriter
from wm_datasets.storage import segment
from wm_datasets.storage.index import read_table
from wm_datasets.storage.manifest import Manifest, load_manifest
from wm_datasets.storage.row_packer import RowPacker
from wm_datasets.storage.sealer import Sealer
from wm_datasets.storage.segment import SegmentReader, SegmentWriter, record_dtype

ROWS = 16  # of a segment
BOUND = 4 * 16 * ROWS  # rows in full segments that may wait


def records(start, lengths, *, open_rows=0):
    """Records of complete episodes of so many rows, and of one open episode."""
    packer, packed = RowPacker(make_spec()), []
    for rows, complete in [*((rows, True) for rows in lengths), (open_rows, False)]:
        for step in range(rows):
            row = start + len(packed)
            packed.append(
                packer.pack(make_row(row, step, complete and step == rows - 1), row).copy()
            )
    return np.concatenate(packed)


@pytest.fixture
def make_sealer(path):
    """Return a function that opens the sealer of one log, as often as it is called."""
    path.mkdir()
    new = Manifest.new(make_spec())
    new.create_folders(path)
    new.commit(path)
    return lambda **capacity: Sealer(path, load_manifest(path), **capacity)


def table(path):
    return read_table(path, load_manifest(path)).tolist()


def test_sealed_rows_are_on_the_disk_with_their_episodes(path, make_sealer):
    sealer = make_sealer()
    sealer.seal(records(0, [3, 5]))
    sealer.seal(records(8, [4], open_rows=2))
    manifest = load_manifest(path)
    assert manifest == sealer.manifest and (manifest.sealed, manifest.episodes) == (14, 3)
    assert table(path) == [(0, 3, True), (3, 5, True), (8, 4, True), (12, 2, False)]
    assert manifest.columns(path)["proprio"].read(0, 14)[:, 0].tolist() == list(range(14))


def test_an_open_episode_continues_until_it_is_ended(path, make_sealer):
    make_sealer().seal(records(0, [3], open_rows=2))
    sealer = make_sealer()
    continued = records(5, [2])
    continued["is_first"][0] = False
    sealer.seal(continued)
    assert table(path) == [(0, 3, True), (3, 4, True)]
    sealer.seal(records(7, [], open_rows=2))
    assert load_manifest(path).episodes == 2
    sealer.seal(continued[:0], end_open=True)
    assert load_manifest(path).episodes == 3
    assert table(path) == [(0, 3, True), (3, 4, True), (7, 2, False)]


def test_sealing_zero_rows_writes_no_file(path, make_sealer):
    sealer = make_sealer()
    sealer.seal(records(0, [3]))
    before = (path / "zarr.json").stat()
    sealer.seal(records(3, [1])[:0])
    assert (path / "zarr.json").stat() == before


@pytest.mark.parametrize(
    ("steps", "first"), [(99, 0), (12, 0), (11, 4), (8, 4), (7, 8), (4, 8), (3, 8), (0, 8)]
)
def test_the_newest_episodes_that_fit_are_kept_and_always_the_last(path, make_sealer, steps, first):
    make_sealer(capacity_steps=steps).seal(records(0, [4, 4, 4]))
    manifest = load_manifest(path)
    assert (manifest.first, manifest.first_episode) == (first, first // 4)
    assert (manifest.sealed, manifest.episodes) == (12, 3)
    assert [entry[0] for entry in table(path)] == list(range(first, 12, 4))
    for column in manifest.columns(path).values():
        existing = [column.chunk_path(i).exists() for i in range(-(-12 // column.chunk))]
        assert existing == [(i + 1) * column.chunk > first for i in range(len(existing))]


def test_the_table_goes_on_after_episodes_were_dropped(path, make_sealer):
    sealer = make_sealer(capacity_steps=4)
    sealer.seal(records(0, [4, 4, 4]))
    for start, length in ((12, 4), (16, 3)):
        sealer.seal(records(start, [length]))
        assert table(path) == [(start, length, True)]
    manifest = load_manifest(path)
    assert (manifest.first_episode, manifest.episodes) == (4, 5)


def test_capacity_in_bytes_counts_the_chunks_that_stay(path, make_sealer):
    make_sealer().seal(records(0, [4, 4, 4]))
    manifest = load_manifest(path)
    columns = manifest.columns(path).values()

    def size_from(row):
        return sum(
            column.chunk_path(i).stat().st_size
            for column in columns
            for i in range(row // column.chunk, -(-12 // column.chunk))
        )

    sizes = {row: size_from(row) for row in (0, 4, 8)}
    for row, size in sizes.items():
        sealer = make_sealer(capacity_bytes=size)
        drop = sealer._count_dropped(np.array([0, 4, 8]), 12)
        assert sizes[(0, 4, 8)[drop]] <= size and drop <= row // 4
        assert drop == 0 or sizes[(0, 4, 8)[drop - 1]] > size
    assert make_sealer(capacity_bytes=0)._count_dropped(np.array([0, 4, 8]), 12) == 2
    assert make_sealer(capacity_bytes=0)._count_dropped(np.array([], int), 0) == 0


def test_rows_of_placeholder_records_are_declared_lost(path, make_sealer):
    sealer = make_sealer()
    sealer.seal(records(0, [4]), lost=[1, 2])
    sealer.seal(records(4, [4]), lost=[4, 7])
    assert load_manifest(path).lost == ((1, 3), (4, 5), (7, 8))


def test_unfinished_files_and_dropped_chunks_are_removed_at_opening(path, make_sealer):
    make_sealer(capacity_steps=8).seal(records(0, [4, 4, 4, 4]))
    manifest = load_manifest(path)
    assert manifest.first == 8
    removed = [path / "zarr.json.tmp", path / "episode" / "x.tmp", path / "proprio" / "c.0.0.tmp"]
    removed += [path / "image" / "front" / "c.0.0.0.0", path / "episode" / "start" / "c.1.tmp"]
    existing = [path / "proprio" / "notes", path / "image" / "front" / "c.2.0.0.0"]
    for file in removed + existing[:1]:
        file.touch()
    make_sealer()
    assert not any(file.exists() for file in removed) and all(file.exists() for file in existing)


def test_copies_of_damaged_files_are_deleted_when_all_their_rows_are_dropped(path, make_sealer):
    make_sealer(capacity_steps=8).seal(records(0, [4, 4, 4, 4]))
    assert load_manifest(path).first == 8
    folder = path / "damaged"
    folder.mkdir()
    for name in ("0-4.reward.c.0", "0-7.reward.c.0", "4-9.reward.c.1", "8-8.episode.start.c.0"):
        (folder / name).touch()
    make_sealer()
    remaining = sorted(file.name for file in folder.iterdir())
    assert remaining == ["4-9.reward.c.1", "8-8.episode.start.c.0"]


def test_a_damaged_last_chunk_is_copied_and_its_rows_are_lost(path, make_sealer):
    make_sealer().seal(records(0, [4, 2]))
    column = load_manifest(path).columns(path)["image/front"]
    chunk = column.chunk_path(6 // column.chunk)
    chunk.write_bytes(b"broken")
    start = 6 // column.chunk * column.chunk
    sealer = make_sealer()
    assert [(d.start, d.stop) for d in sealer.damage] == [(start, 6)]
    sealer.seal(records(6, [2])[:0])
    assert load_manifest(path).lost == ((start, 6),) and chunk.read_bytes() == b"broken"
    sealer.seal(records(6, [2]))
    (copy,) = (path / "damaged").iterdir()
    assert copy.name.startswith(f"{start}-6.image.front") and copy.read_bytes() == b"broken"
    assert load_manifest(path).lost == ((start, 6),)
    pixels = load_manifest(path).columns(path)["image/front"].read(0, 8)
    assert not pixels[start:6].any() and pixels[6:].any()


@pytest.mark.parametrize("name", ["start", "length", "complete"])
def test_a_damaged_table_is_written_again_from_the_flags(path, make_sealer, name):
    make_sealer(capacity_steps=12).seal(records(0, [4, 4, 4, 4]))
    manifest = load_manifest(path)
    assert manifest.first_episode == 1
    manifest.episode_columns(path)[f"episode/{name}"].chunk_path(0).write_bytes(b"broken")
    sealer = make_sealer()
    assert [(d.start, d.stop) for d in sealer.damage] == [(4, 4)]  # no row is lost
    sealer.seal(records(16, [5]))
    assert table(path) == [(4, 4, True), (8, 4, True), (12, 4, True), (16, 5, True)]


@pytest.fixture
def gate(monkeypatch):
    """Sealing waits for this event."""

    gate, seal = threading.Event(), Sealer.seal

    def wait_then_seal(self, *args, **kwargs):
        gate.wait(120)
        seal(self, *args, **kwargs)

    monkeypatch.setattr(Sealer, "seal", wait_then_seal)
    yield gate
    gate.set()


def append_until(writer, length, errors):
    try:
        while writer.length < length:
            step = writer.length % EPISODE_ROWS
            writer.append(make_row(writer.length, step, step == EPISODE_ROWS - 1))
    except LogError as error:
        errors.append(error)


def start_blocked_append(path, gate):
    """A writer, and a thread that waits in its append()."""
    gate.set()
    writer = LogWriter(path, make_spec(), durable_s=0.05)
    gate.clear()
    errors = []
    thread = threading.Thread(target=append_until, args=(writer, 2 * BOUND, errors))
    thread.start()
    deadline = time.monotonic() + 120
    while writer.length < BOUND and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    return writer, thread, errors


def test_append_waits_while_too_many_rows_are_not_sealed(path, gate):
    writer, thread, errors = start_blocked_append(path, gate)
    assert writer.length == BOUND
    with LogReader(path) as reader:
        assert reader.length == BOUND
    gate.set()
    thread.join(20)
    writer.close()
    assert not errors
    with LogReader(path) as reader:
        check_rows(reader)
        assert (reader.length, reader.sealed) == (2 * BOUND, 2 * BOUND)


def test_a_waiting_append_ends_when_the_log_is_closed(path, gate):
    writer, thread, errors = start_blocked_append(path, gate)
    threading.Timer(0.1, gate.set).start()
    writer.close()
    thread.join(20)
    assert "is closed" in str(errors[0])
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == BOUND


def test_a_waiting_append_raises_when_the_disk_is_full(path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = LogWriter(path, make_spec(), durable_s=0.05)
    seal = Sealer.seal
    monkeypatch.setattr(Sealer, "seal", full)
    errors = []
    append_until(writer, 2 * BOUND, errors)
    assert isinstance(errors[0], LogFullError)
    length = writer.length
    monkeypatch.setattr(Sealer, "seal", seal)
    writer.close()
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == length


def test_a_sync_syncs_only_segments_that_are_not_synced_yet(path, monkeypatch):
    synced = []
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0
    for _ in range(3):
        append_episode(writer, ROWS)

    def record_path(fd):
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fsync", record_path)
    writer.flush()
    assert sum(name.endswith(".seg") for name in synced) == 3
    del synced[:]
    append_episode(writer, 2)
    writer.flush()
    assert [name[-10:] for name in synced if name.endswith(".seg")] == ["000048.seg"]
    del synced[:]
    writer.flush()
    assert not any(name.endswith(".seg") for name in synced)
    writer.close()


def test_checking_small_records_does_not_release_the_gil(tmp_path, monkeypatch):
    """zlib releases it for 5 KB and more; a busy thread may then hold it for 5 ms."""
    spec = make_spec(cameras={"front": (64, 64, 3)})
    dtype = record_dtype(spec.fields)
    record = np.zeros(1, dtype)
    writer = SegmentWriter(tmp_path, 0, dtype)
    for row in range(4):
        record["_row"] = row
        record["image/front"] = row
        writer.append(segment.seal_record(record))
    sizes, crc32 = [], segment.zlib.crc32

    def counted(data, value=0):
        sizes.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(segment.zlib, "crc32", counted)
    source = SegmentReader(tmp_path, 0, dtype)
    assert source.poll()["image/front"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert dtype.itemsize > 5120 > max(sizes)
    source.close()
    writer.close()
