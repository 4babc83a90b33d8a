"""A killed writer leaves a prefix of its rows; rows that a reader has read are never lost."""

import errno
import os
import random
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wm_datasets.growing_log import append_grown, check_grown, grown_spec
from tests.wm_datasets.log_rows import EPISODE_ROWS, append_episode, check_rows, make_row, make_spec
from wm_datasets import LogError, LogFullError, LogReader, LogSpecError, LogWriter
from wm_datasets.log.verify import verify
from wm_datasets.storage import column
from wm_datasets.storage.segment import HEADER_BYTES, record_dtype

RECORD = record_dtype(make_spec().fields).itemsize


def abandon(writer):
    """Stop a writer as kill -9 would: nothing is sealed or reported."""
    queue = writer._queue
    queue.closed = True
    with queue.work:
        queue.work.notify()
    writer._keeper.join()
    queue.release()


def test_kill_9_at_random_moments_loses_no_row_that_was_read(path, start_writer):
    rng = random.Random(0)
    read_length = 0
    for _ in range(8):
        process = start_writer(path, pause_s=0.0002)
        with LogReader(path) as reader:
            start, new_rows = reader.length, rng.randrange(1, 200)
            while reader.length < start + new_rows:
                reader.refresh()
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert reader.length >= read_length
            read_length = reader.length
            reader.refresh()
            assert reader.length >= read_length
            check_rows(reader)
            read_length = reader.length
        with LogReader(path) as reader:
            assert reader.length == read_length
            check_rows(reader)
    with LogWriter(path, make_spec()) as writer, LogReader(path) as reader:
        assert writer.length == reader.length == read_length
        append_episode(writer, 3)
    with LogReader(path) as reader:
        check_rows(reader)
        lengths = reader.episodes["length"][:-1]
        assert set(lengths[reader.episodes["complete"][:-1]]) <= {EPISODE_ROWS}
        assert (~reader.episodes["complete"]).sum() <= 8


def test_readers_in_another_process_see_one_growing_log(path, start_writer):
    process = start_writer(path, rows=600, capacity=150, pause_s=0.0005)
    lengths, firsts = [0], [0]
    with LogReader(path) as reader:
        while process.poll() is None:
            reader.refresh()
            assert reader.length >= lengths[-1]
            assert reader.first >= firsts[-1]
            lengths.append(reader.length)
            firsts.append(reader.first)
            fresh = max(reader.first, lengths[-2])
            try:
                numbers = reader.read("proprio", fresh, reader.length)[:, 0]
            except IndexError:  # dropped by the capacity since
                continue
            assert numbers.tolist() == list(range(fresh, reader.length))
        reader.refresh()
        assert reader.length == 600
        assert reader.first == 460
        check_rows(reader)
    assert len(set(lengths)) > 20
    assert len(set(firsts)) > 2


def test_a_torn_tail_is_dropped_at_every_byte(path):
    writer = LogWriter(path, make_spec())
    append_episode(writer, 3, complete=False)
    abandon(writer)
    segment = path / "wal" / "000000000000.seg"
    whole = segment.stat().st_size
    assert whole == HEADER_BYTES + 3 * RECORD
    for size in range(whole - 1, whole - RECORD - 1, -1):
        os.truncate(segment, size)
        with LogReader(path) as reader:
            assert reader.length == 2
            check_rows(reader)


@pytest.mark.parametrize("size, rows", [
    (HEADER_BYTES + 3 * RECORD - 1, 2), (HEADER_BYTES + 2 * RECORD + 1, 2),
    (HEADER_BYTES + 2 * RECORD, 2), (HEADER_BYTES + 1, 0), (HEADER_BYTES, 0), (5, 0), (0, 0),
])  # fmt: skip
def test_opening_drops_a_torn_tail_and_reports_it(path, size, rows, caplog):
    writer = LogWriter(path, make_spec())
    append_episode(writer, 3, complete=False)
    abandon(writer)
    os.truncate(path / "wal" / "000000000000.seg", size)
    with LogWriter(path, make_spec()) as writer:
        assert writer.length == rows
        torn = size - (HEADER_BYTES + rows * RECORD if size >= HEADER_BYTES else 0)
        if torn:
            assert f"dropped {torn} bytes" in writer.repaired
            assert writer.repaired in caplog.text
        else:
            assert writer.repaired is None
        append_episode(writer, 2)
    with LogReader(path) as reader:
        assert reader.length == rows + 2
        check_rows(reader)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.integers(1, 40), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_loses_only_the_row_that_holds_it(tmp_path_factory, rows, where, bit):
    path = tmp_path_factory.mktemp("flip") / "log"
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0  # keep all rows in segments
    append_episode(writer, rows, complete=False)
    abandon(writer)
    segments = sorted((path / "wal").glob("*.seg"))
    segment = segments[int(where * len(segments))]
    data = bytearray(segment.read_bytes())
    at = int(where * len(data))
    data[at] ^= 1 << bit
    segment.write_bytes(data)
    lost = {int(segment.stem) + (at - HEADER_BYTES) // RECORD} if at >= HEADER_BYTES else set()
    whole = rows - (rows - 1 in lost)  # a damaged last row looks like a torn write
    lost -= {rows - 1}
    for _ in range(2):
        with LogReader(path) as reader:
            assert reader.length == whole
            assert {d.start for d in reader.damage} == lost
            check_rows(reader, lost)
        LogWriter(path, make_spec()).close()


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def crash_after(monkeypatch):
    """Return a function: let n more disk operations happen, then end the process."""
    remaining = [10**9]

    def counted(call):
        def run(*args, **kwargs):
            remaining[0] -= 1
            if remaining[0] < 0:
                raise Crash
            return call(*args, **kwargs)

        return run

    for owner, name in [(os, "fsync"), (os, "pwrite"), (os, "replace"), (os, "unlink"),
                        (os, "open")]:  # fmt: skip
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))

    def arm(count):
        remaining[0] = count

    return arm


@pytest.mark.parametrize("capacity", [None, 25])
def test_a_crash_at_any_step_of_sealing_loses_nothing(path, crash_after, capacity):
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 9)
        append_episode(writer, 9)
    steps = 0
    for count in range(0, 1000, 7):
        writer = LogWriter(path, make_spec(), durable_s=1000.0, capacity_steps=capacity)
        writer._queue.count_full = lambda: 0  # leave all sealing to close(), in this thread
        append_episode(writer, 8, complete=count % 2 == 0)
        length = writer.length
        crash_after(count)
        try:
            writer.close()
        except Crash:
            steps += 1
        finally:
            crash_after(10**9)
        with LogReader(path) as reader:
            assert reader.length == length
            check_rows(reader)
        if steps < count // 7 + 1:
            break
    assert steps > 10
    assert not list(path.rglob("*.tmp"))
    check_zarr_agrees(path)


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_crash_at_any_step_of_opening_loses_nothing(path, crash_after, monkeypatch, at_once):
    monkeypatch.setattr("wm_datasets.log.segment_queue._SEAL_AT_ONCE", at_once)
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 5)
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0
    append_episode(writer, 33)
    append_episode(writer, 2, complete=False)
    abandon(writer)
    crashes = 0
    for count in range(0, 1000, 7):
        crash_after(count)
        try:
            writer = LogWriter(path, make_spec())
            break
        except Crash:
            crashes += 1
        finally:
            crash_after(10**9)
        with LogReader(path) as reader:
            assert reader.length == 40
            check_rows(reader)
    writer.close()
    assert crashes > 10
    check_zarr_agrees(path)


@pytest.mark.parametrize("without_fields", [False, True])
def test_a_crash_at_any_step_of_adding_fields_loses_nothing(path, crash_after, without_fields):
    """Until the root declares them the log is unchanged and can be continued without them."""
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 9)
    crashes, unchanged, writer = 0, 0, None
    for count in range(1000):
        with LogReader(path) as reader:
            length = reader.length
        crash_after(count)
        try:
            writer = LogWriter(path, grown_spec(6))
            break
        except Crash:
            crashes += 1
        finally:
            crash_after(10**9)
        with LogReader(path) as reader:
            assert reader.length == length
            if reader.spec == make_spec():
                unchanged += 1
                check_rows(reader)
            else:
                assert reader.spec == grown_spec(6)
                check_grown(reader, dict.fromkeys(added_fields(), length))
                break
        if without_fields:
            with LogWriter(path, make_spec()) as old_writer:
                append_episode(old_writer, 3)
            assert [f for f in verify(path).faults if f.kind != "rate"] == []
            assert {p.name for p in (path / "image").iterdir() if p.is_dir()} == {"front", "wrist"}
    writer = writer or LogWriter(path, grown_spec(6))
    append_grown(writer, 20)
    writer.close()
    assert crashes > 10
    assert unchanged > 10
    with LogReader(path) as reader:
        check_grown(reader, dict.fromkeys(added_fields(), length))
    assert not list(path.rglob("*.tmp"))


def added_fields():
    return grown_spec(6).fields.keys() - make_spec().fields.keys()


def test_a_log_can_be_created_after_a_crash_while_it_was_created(path, crash_after):
    for count in range(0, 1000, 9):
        crash_after(count)
        try:
            LogWriter(path, make_spec()).close()
            break
        except Crash:
            continue
        finally:
            crash_after(10**9)
    with LogReader(path) as reader:
        assert reader.length == 0


def check_zarr_agrees(path):
    zarr = pytest.importorskip("zarr")
    LogWriter(path, make_spec()).close()
    group, reader = zarr.open_group(path, mode="r"), LogReader(path)
    for name in reader.spec.fields:
        stored = group[name][reader.first :]
        assert np.array_equal(stored, reader.read(name, reader.first, reader.length)), name
    first = group.attrs["wm_log"]["first_episode"]
    for name in ("start", "length", "complete"):
        assert np.array_equal(group[f"episode/{name}"][first:], reader.episodes[name])


@pytest.fixture
def file_limit():
    """Return a function that limits every file of this process to so many bytes, until the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_refuses_the_row_and_keeps_the_log(path, file_limit):
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 3)
    writer.append(make_row(3, 0, False))
    file_limit(HEADER_BYTES + 4 * RECORD + 100)
    for _ in range(2):
        with pytest.raises(LogFullError, match="no room to record"):
            writer.append(make_row(4, 0, False))
    with LogReader(path) as reader:
        assert reader.length == 4
        check_rows(reader)
    file_limit(resource.RLIM_INFINITY)
    with pytest.raises(LogSpecError, match="no episode is open"):  # a row is missing in between
        writer.append(make_row(4, 1, False))
    append_episode(writer, 5)
    writer.close()
    with LogReader(path) as reader:
        assert reader.episodes["length"].tolist() == [3, 1, 5]
        check_rows(reader)


def test_a_disk_too_full_to_seal_stops_recording_until_there_is_room(path, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = LogWriter(path, make_spec(), durable_s=0.01)
    write_whole = column.write_whole
    monkeypatch.setattr(column, "write_whole", refuse)
    append_episode(writer, 16)
    with pytest.raises(LogFullError):
        wait_for(lambda: append_episode(writer, 1))
    length = writer.length
    with LogReader(path) as reader:
        assert reader.length == length
    monkeypatch.setattr(column, "write_whole", write_whole)
    wait_for(lambda: writer._queue.fault is None or None)
    append_episode(writer, 4)
    monkeypatch.setattr(column, "write_whole", refuse)
    with pytest.raises(LogFullError):
        writer.close()
    with LogReader(path) as reader:
        assert reader.length == length + 4
        check_rows(reader)
    monkeypatch.setattr(column, "write_whole", write_whole)
    LogWriter(path, make_spec()).close()
    with LogReader(path) as reader:
        assert reader.length == reader.sealed == length + 4
        check_rows(reader)


def test_a_disk_that_fails_to_sync_is_not_trusted_again(path, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 2)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LogError, match="did not take rows before 2"):
        writer.flush()
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    for refused in (writer.flush, lambda: append_episode(writer, 1)):
        with pytest.raises(LogError, match="did not take rows before 2"):
            refused()
    writer.close()
    with LogReader(path) as reader:
        assert reader.length == 2


def test_a_log_deleted_under_its_writer_is_an_error_not_a_hang(path):
    writer = LogWriter(path, make_spec(), durable_s=0.01)
    append_episode(writer, 1)
    shutil.rmtree(path)
    with pytest.raises(LogError):
        wait_for(lambda: append_episode(writer, 20))
    with pytest.raises(LogError):
        writer.close()


def wait_for(check):
    """Call until it returns something other than None, at most 10 s."""
    deadline = time.monotonic() + 10
    while check() is None and time.monotonic() < deadline:
        time.sleep(0.002)
