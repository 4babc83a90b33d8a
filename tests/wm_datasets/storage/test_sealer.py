"""A writer that is faster than the disk waits: what is not sealed is bounded."""

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
from wm_datasets.storage.segment import SegmentReader, SegmentWriter, record_dtype

ROWS = 16  # of a segment
BOUND = 4 * 16 * ROWS  # rows in full segments that may wait


@pytest.fixture
def gate(monkeypatch):
    """Sealing waits for this event."""
    from wm_datasets.storage.sealer import Sealer

    gate, seal = threading.Event(), Sealer.seal

    def held(self, *args, **kwargs):
        gate.wait(120)
        seal(self, *args, **kwargs)

    monkeypatch.setattr(Sealer, "seal", held)
    yield gate
    gate.set()


def append_until(writer, length, ended):
    try:
        while writer.length < length:
            step = writer.length % EPISODE_ROWS
            writer.append(make_row(writer.length, step, step == EPISODE_ROWS - 1))
    except LogError as error:
        ended.append(error)


def open_behind(path, gate):
    """A writer, and a thread that waits in its append()."""
    gate.set()
    writer = LogWriter(path, make_spec(), durable_s=0.05)
    gate.clear()
    ended = []
    thread = threading.Thread(target=append_until, args=(writer, 2 * BOUND, ended))
    thread.start()
    until = time.monotonic() + 120
    while writer.length < BOUND and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    return writer, thread, ended


def test_append_waits_while_too_much_is_not_sealed(path, gate):
    writer, thread, ended = open_behind(path, gate)
    assert writer.length == BOUND
    with LogReader(path) as reader:
        assert reader.length == BOUND
    gate.set()
    thread.join(20)
    writer.close()
    assert not ended
    with LogReader(path) as reader:
        check_rows(reader)
        assert (reader.length, reader.sealed) == (2 * BOUND, 2 * BOUND)


def test_an_append_that_waits_ends_when_the_log_is_closed(path, gate):
    writer, thread, ended = open_behind(path, gate)
    threading.Timer(0.1, gate.set).start()
    writer.close()
    thread.join(20)
    assert "is closed" in str(ended[0])
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == BOUND


def test_an_append_that_waits_hears_of_a_full_disk(path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from wm_datasets.storage.sealer import Sealer

    writer = LogWriter(path, make_spec(), durable_s=0.05)
    seal = Sealer.seal
    monkeypatch.setattr(Sealer, "seal", full)
    ended = []
    append_until(writer, 2 * BOUND, ended)
    assert isinstance(ended[0], LogFullError)
    kept = writer.length
    monkeypatch.setattr(Sealer, "seal", seal)
    writer.close()
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == kept


def test_a_sync_syncs_what_is_not_synced_yet_and_no_more(path, monkeypatch):
    synced = []
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0
    for _ in range(3):
        append_episode(writer, ROWS)

    def note(fd):
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fsync", note)
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


def test_checking_small_records_does_not_hand_the_interpreter_over(tmp_path, monkeypatch):
    """zlib does so for 5 KB and more, and a thread that is busy may then keep it for 5 ms."""
    spec = make_spec(cameras={"front": (64, 64, 3)})
    dtype = record_dtype(spec.fields)
    record = np.zeros(1, dtype)
    writer = SegmentWriter(tmp_path, 0, dtype)
    for row in range(4):
        record["_row"] = row
        record["image/front"] = row
        writer.append(segment.seal_record(record))
    longest, crc32 = [], segment.zlib.crc32

    def counted(data, value=0):
        longest.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(segment.zlib, "crc32", counted)
    source = SegmentReader(tmp_path, 0, dtype)
    assert source.poll()["image/front"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert dtype.itemsize > 5120 > max(longest)
    source.close()
    writer.close()
