"""A transient error of the machine: the same object continues afterwards, with correct rows."""

import errno
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import contents, set_of_demos
from tests.wm_datasets.log_rows import append_episode, check_rows, make_row, make_spec
from tests.wm_datasets.storage.test_damage import one_chunk
from wm_datasets import LogError, LogReader, LogReadError, LogWriter, Sampler
from wm_datasets.errors import LogFormatError
from wm_datasets.formats import CorruptInputError, Options, load_format
from wm_datasets.formats.transfer import import_into
from wm_datasets.log.verify import verify
from wm_datasets.storage.lock import is_locked


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("wm_datasets.storage.file_reads.PAUSES_S", (0.0, 0.0))


@contextmanager
def failing(monkeypatch, call, fails, number=errno.EMFILE):
    """os.<call> fails where fails(*args)."""
    real = getattr(os, call)

    def refuse(*args, **kwargs):
        if fails(*args):
            raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        yield


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_wal(name, *args):
    return str(name).endswith("/wal")


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_a_cache_that_was_half_filled_serves_no_overwritten_row(make_log, monkeypatch):
    path = make_log([10] * 10)
    with LogReader(path) as reader:
        row_bytes = sum(field.row_bytes for field in reader.spec.fields.values())
        sampler = Sampler(
            reader, batch=64, length=4, seed=0, cache_bytes=50 * row_bytes, disk_bytes=0
        )
        make_log([10] * 4)
        last, real = list(reader.spec.fields)[-1], LogReader.read_around

        def refuse(self, field, *args):
            if field == last:
                raise LogReadError("no descriptors")
            return real(self, field, *args)

        with monkeypatch.context() as patch:
            patch.setattr(LogReader, "read_around", refuse)
            with pytest.raises(LogReadError):
                sampler.refresh()
        for _ in range(2):
            which, rows = sampler.draw(64, 4)
            batch = sampler.sample(64, 4, (which, rows))
            for name, values in batch.items():
                for numbers, window in zip(rows.tolist(), values):
                    read = [reader.read(name, row, row + 1)[0] for row in numbers]
                    assert np.array_equal(window, read), name
            sampler.refresh()
        assert reader.length == 140


def test_a_sync_without_a_descriptor_does_not_end_recording(path, monkeypatch):
    with LogWriter(path, make_spec(), durable_s=1000.0) as writer:
        append_episode(writer, 5)
        many = pytest.raises(LogReadError, match="Too many open files")
        with failing(monkeypatch, "open", is_wal), many:
            writer.flush()
        assert writer.durable == 0
        assert writer._queue.dirty_since is not None
        append_episode(writer, 5)
        writer.flush()
        assert writer.durable == 10
    with LogReader(path) as reader:
        check_rows(reader)


def test_a_sync_that_failed_is_a_fault_whatever_fails_with_it(path, monkeypatch):
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 5)
    with (
        failing(monkeypatch, "open", is_wal),
        failing(monkeypatch, "fsync", lambda fd: True),
        pytest.raises(LogError, match="the disk did not take rows before 5"),
    ):
        writer.flush()
    with pytest.raises(LogError, match="the disk did not take rows"):
        writer.append(make_row(5, 0, False))
    writer.close()


@pytest.mark.parametrize("where", ["sync", "seal"])
def test_the_keeper_thread_retries_after_a_transient_error(path, monkeypatch, where):
    writer = LogWriter(path, make_spec(), durable_s=0.05)

    def fails(name, *args):
        return is_wal(name) if where == "sync" else str(name).endswith(".tmp")

    with failing(monkeypatch, "open", fails):
        for step in range(16):  # a segment
            writer.append(make_row(step, step, step == 15))
        until(lambda: writer._queue.fault is not None)
        with pytest.raises(LogReadError):
            writer.append(make_row(16, 0, False))
    until(lambda: writer._queue.fault is None)
    append_episode(writer, 16)
    writer.close()
    with LogReader(path) as reader:
        assert reader.length == 32
        check_rows(reader)


def test_a_file_that_cannot_be_created_once_is_created_at_the_second_try(path, monkeypatch):
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 5)
    failed = []

    def once(name, *args):
        first = str(name).endswith(".tmp") and name not in failed
        failed.extend([name] * first)
        return first

    with failing(monkeypatch, "open", once):
        writer.close()
    assert failed
    with LogReader(path) as reader:
        assert reader.sealed == 5
        check_rows(reader)


def test_a_sync_without_descriptors_leaks_none(path, monkeypatch):
    with LogWriter(path, make_spec(), durable_s=1000.0) as writer:
        writer._queue.count_full = lambda: 0
        for _ in range(3):
            append_episode(writer, 16)
        before, duplicated = descriptors(), []

        def second(fd):
            duplicated.append(fd)
            return fd != duplicated[0]

        with failing(monkeypatch, "dup", second), pytest.raises(LogReadError):
            writer.flush()
        assert descriptors() == before
        assert writer._queue.dirty_since is not None
        writer.flush()
        assert writer.durable == 48


def test_a_log_that_was_replaced_is_refused_each_time(make_log, tmp_path):
    path, other = make_log([10] * 2), make_log([10] * 5, name="other")
    with LogReader(path) as reader:
        identity = reader.identity
        shutil.rmtree(path)
        other.rename(path)
        for _ in range(3):
            with pytest.raises(LogFormatError, match="was replaced by another log"):
                reader.refresh()
            assert (reader.identity, reader.length) == (identity, 20)


def test_rows_appended_before_a_failed_refresh_are_reported_by_the_next(make_log, monkeypatch):
    path = make_log([10] * 2)
    with LogReader(path) as reader:
        make_log([10] * 2)
        with (
            failing(monkeypatch, "open", lambda name, *args: "is_first" in str(name)),
            pytest.raises(LogReadError),
        ):
            reader.refresh()
        assert reader.refresh()
        assert not reader.refresh()
        check_rows(reader)


@pytest.mark.parametrize("error", [LogReadError("no descriptors"), OSError(errno.EIO, "bare")])
def test_an_import_that_cannot_take_back_half_an_episode_stops(tmp_path, monkeypatch, error):
    file, log = set_of_demos(tmp_path / "a.hdf5"), tmp_path / "log"

    def fail(*args):
        raise error

    with load_format("robomimic").Import(file, Options()) as importer:
        rows_of = importer.rows

        def broken(key):
            for number, row in enumerate(rows_of(key)):
                if (key, number) == ("demo_1", 2):
                    raise CorruptInputError(file, "demo_1: broken")
                yield row

        importer.rows = broken
        with monkeypatch.context() as patch:
            patch.setattr("wm_datasets.formats.transfer.truncate", fail)
            with pytest.raises(CorruptInputError, match="demo_1: broken"):
                import_into(importer, f"robomimic:{file}", log, skip_corrupt=True)
        result = import_into(importer, f"robomimic:{file}", log, skip_corrupt=True)
    assert (result.episodes, list(result.skipped)) == (2, ["demo_1"])
    assert contents(log)[1]["length"].tolist() == [5, 6]
    assert not verify(log).faults


def test_a_capacity_in_bytes_opens_no_chunk_for_its_size(make_log, monkeypatch):
    path = make_log([10] * 5)
    chunk, real = one_chunk(path, "image/front"), Path.open

    def refuse(self, *args, **kwargs):
        if self == chunk:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with LogWriter(path, make_spec(), capacity_bytes=1 << 30) as writer:
        assert "image/front" in writer._sealer._rows
        for name, column in writer._sealer._rows.items():
            sizes = [f.stat().st_size for f in (path / name).glob("c.*")]
            assert sorted(column.sizes.values()) == sorted(sizes)


def test_a_chunk_that_stays_unreadable_can_be_moved_away(make_log, tmp_path, monkeypatch):
    path = make_log([10] * 5)
    chunk = one_chunk(path, "reward")
    with (
        failing(monkeypatch, "open", lambda name, *args: str(name) == str(chunk), errno.EIO),
        pytest.raises(LogReadError, match="move it out of the log"),
    ):
        LogWriter(path, make_spec())
    chunk.rename(tmp_path / "kept")
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 10)
    with LogReader(path) as reader:
        assert reader.length == 60


def test_whether_a_writer_holds_the_lock_is_an_error_if_it_cannot_be_read(path, monkeypatch):
    assert not is_locked(path)
    with LogWriter(path, make_spec()):
        with (
            failing(monkeypatch, "open", lambda name, *args: "writer.lock" in str(name)),
            pytest.raises(LogReadError),
        ):
            is_locked(path)
        assert is_locked(path)


def test_a_missing_folder_loses_only_its_rows(make_log):
    path = make_log([10] * 5)
    shutil.rmtree(path / "reward")
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 10)
    with LogReader(path) as reader:
        assert reader.length == 60
        assert reader.read("reward", 50, 60).any()
        check_rows(reader, range(50))
