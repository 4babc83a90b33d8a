"""An error of the machine is no damage: no row is lost, recorded as damaged or overwritten."""

import errno
import os
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.durability.test_killed_writer import abandon
from tests.wm_datasets.log_rows import append_episode, check_rows, make_spec
from tests.wm_datasets.storage.test_damage import flip, one_chunk
from wm_datasets import LogDamageError, LogError, LogReader, LogReadError, LogWriter, Sampler
from wm_datasets.durability.byte_flips import flip_bytes
from wm_datasets.durability.failing_calls import fail_calls
from wm_datasets.durability.file_corruption import FILES
from wm_datasets.durability.owner_changes import NOBODY, as_user, change_owners
from wm_datasets.log.truncate import truncate
from wm_datasets.log.verify import verify
from wm_datasets.storage.column import ColumnWriter, decoded_bytes
from wm_datasets.storage.segment import SegmentReader

as_root = pytest.mark.skipif(os.getuid() != 0, reason="changes owners")


def in_child(work, *, user=NOBODY, umask=0o022):
    return as_user(user, lambda: str(work()), umask=umask)


def contents(path):
    """Content of all files of a log except the lock."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != "writer.lock"]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.fixture
def owned():
    """A folder of an unprivileged user; not pytest's, whose permissions pytest changes."""
    folder = Path(tempfile.mkdtemp(prefix="wm_owned_"))
    folder.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def write(path, lengths, **options):
    with LogWriter(path, make_spec(), **options) as writer:
        for rows in lengths:
            append_episode(writer, rows)
        return writer.repaired


@as_root
def test_a_log_written_by_root_is_complete_once_its_user_may_read_it_again(owned):
    path = owned / "log"
    assert in_child(lambda: write(path, [10] * 5)) == "None"
    assert in_child(lambda: write(path, [10] * 2), user=0, umask=0o077) == "None"
    before = contents(path)
    output = in_child(lambda: write(path, [10]))
    assert output.startswith("LogReadError: cannot read ")
    assert "Permission denied" in output
    assert "give this user the right to read it" in output
    assert "\n" not in output
    assert contents(path) == before
    for file in path.rglob("*"):
        os.chown(file, NOBODY, NOBODY)
    assert in_child(lambda: write(path, [10])) == "None"
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == 80
    assert not verify(path).faults


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EIO])
def test_a_chunk_that_cannot_be_read_stops_a_writer_and_stays(make_log, monkeypatch, number):
    path = make_log([10] * 5)
    chunk = one_chunk(path, "reward")
    before, real = contents(path), os.open

    def refuse(name, flags, *args, **kwargs):
        if str(name) == str(chunk):
            raise OSError(number, os.strerror(number), str(name))
        return real(name, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        patch.setattr("wm_datasets.storage.file_reads.PAUSES_S", (0.0, 0.0))
        with pytest.raises(LogReadError, match=f"cannot read {chunk}: {os.strerror(number)}"):
            LogWriter(path, make_spec())
        with LogReader(path) as reader:
            with pytest.raises(LogReadError):
                reader.read("reward", 0, 50)
            assert not reader.damage
        with pytest.raises(LogReadError):
            verify(path)
    assert contents(path) == before
    write(path, [10])
    with LogReader(path) as reader:
        check_rows(reader)


def test_a_process_without_descriptors_draws_correct_batches_or_fails(make_log):
    """Without mocks: the limit of open files of this process is reached."""
    path = make_log([10] * 25)
    with LogReader(path) as reader:
        sampler = Sampler(reader, batch=16, length=4, seed=0, cache_bytes=1, disk_bytes=0)
        first = sampler.sample()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        top = os.dup(0)
        os.close(top)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
        try:
            with pytest.raises(LogReadError, match="Too many open files"):
                sampler.sample()
            state = sampler.state_dict()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert state["logs"][0]["lost"] == []
        again = sampler.sample()
        assert len(reader.intact) == 25
    with LogReader(path) as reader:
        fresh = Sampler(reader, batch=16, length=4, seed=0, cache_bytes=1, disk_bytes=0)
        for batch in (first, again):  # the one that failed is the next one
            for name, values in fresh.sample().items():
                assert np.array_equal(values, batch[name])


def test_errors_recorded_as_damage_in_an_old_checkpoint_are_dropped(make_log):
    path = make_log([10] * 5)
    with LogReader(path) as reader:
        sampler = Sampler(reader, batch=4, length=4, seed=0)
        state = sampler.state_dict()
        chunk = str(one_chunk(path, "reward"))
        state["logs"][0]["lost"] = [
            [0, 20, chunk, f"[Errno 24] Too many open files: '{chunk}'"],
            [30, 40, chunk, "the file is missing"],
        ]
        sampler.load_state_dict(state)
        assert [(d.start, d.stop) for d in reader.damage] == [(30, 40)]


@pytest.mark.parametrize("close", [False, True])
def test_a_dropped_chunk_that_cannot_be_deleted_doubles_no_row(path, monkeypatch, close, caplog):
    write(path, [10] * 4)
    real, refused = os.unlink, []

    def refuse(name, *args, **kwargs):
        if "/c." in str(name) and not str(name).endswith(".tmp"):
            refused.append(name)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return real(name, *args, **kwargs)

    writer = LogWriter(path, make_spec(), durable_s=1000.0, capacity_steps=40)
    if close:
        count, writer._queue.count_full = writer._queue.count_full, lambda: 0
    monkeypatch.setattr(os, "unlink", refuse)
    for _ in range(6):
        append_episode(writer, 10)
    if close:
        writer._queue.count_full = count
    writer.close()
    assert refused
    assert "cannot be deleted" in caplog.text
    monkeypatch.undo()
    with LogReader(path) as reader:
        assert reader.length == 100
        check_rows(reader)
    write(path, [10], capacity_steps=40)
    with LogReader(path) as reader:
        assert reader.length == 110
        check_rows(reader)
    assert not [name for name in refused if Path(name).exists()]


def test_truncating_a_log_whose_segment_cannot_be_deleted_is_refused(path, monkeypatch):
    write(path, [10] * 2)
    real = os.unlink

    def refuse(name, *args, **kwargs):
        if str(name).endswith(".seg"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        write(path, [10] * 2)
        assert list((path / "wal").glob("*.seg"))
        with pytest.raises(LogError, match="Permission denied"):
            truncate(path, 20)
    with LogReader(path) as reader:
        assert reader.length == 40
        check_rows(reader)
    assert truncate(path, 20) == 20
    with LogReader(path) as reader:
        assert reader.length == 20
        check_rows(reader)


@pytest.mark.parametrize("step", ["commit", "stage"])
def test_rows_that_zeros_stand_in_for_are_declared_before_they_are_written(
    make_log, monkeypatch, step
):
    """A kill between the two leaves no zeros that are read as rows."""
    path = make_log([10] * 5)
    chunk = max((path / "proprio").glob("c.*"), key=lambda p: int(p.name.split(".")[1]))
    flip(chunk)
    broken = chunk.read_bytes()

    class Killed(BaseException):
        pass

    def raise_killed(*args):
        raise Killed

    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0
    append_episode(writer, 10)
    target = {
        "commit": "wm_datasets.storage.manifest.write_json",
        "stage": "wm_datasets.storage.column.write_json",
    }
    with monkeypatch.context() as patch:
        if step == "stage":
            patch.setattr(ColumnWriter, "commit", raise_killed)
        else:
            patch.setattr(target[step], raise_killed)
        with pytest.raises(Killed):
            writer.close()
    with LogReader(path) as reader:
        values = reader.read_around("proprio", 0, reader.length)
        lost = {row for d in reader.damage for row in range(d.start, d.stop)}
        assert lost
        check_rows(reader, lost)
        assert not values[sorted(lost)].any()
    write(path, [10])
    (fault,) = [fault for fault in verify(path).faults if fault.kind == "kept"]
    assert {*range(fault.start, fault.stop)} == lost
    assert Path(fault.path).read_bytes() == broken


def test_a_damaged_file_is_copied_before_it_is_replaced(make_log):
    path = make_log([10] * 5)
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 10)
    abandon(writer)
    (segment,) = (path / "wal").glob("*.seg")
    flip(segment)
    chunk = max((path / "reward").glob("c.*"), key=lambda p: int(p.name.split(".")[1]))
    os.truncate(chunk, 20)
    broken = {chunk.read_bytes(), segment.read_bytes()}
    assert "are lost" in write(path, [10])
    faults = [fault for fault in verify(path).faults if fault.kind == "kept"]
    assert {Path(fault.path).read_bytes() for fault in faults} == broken
    for fault in faults:
        Path(fault.path).unlink()
    assert {fault.kind for fault in verify(path).faults} == {"damage"}


def test_a_chunk_with_a_wrong_size_in_its_frame_is_damage_not_a_lack_of_memory(make_log):
    path = make_log([10] * 5)
    chunk = one_chunk(path, "image/front")
    data = chunk.read_bytes()
    assert decoded_bytes(data) > 0
    chunk.write_bytes(b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + data[13:])
    with LogReader(path) as reader, pytest.raises(LogDamageError, match="decoded bytes, expected"):
        reader.read("image/front", 0, 50)


def test_calls_that_fail_once_lose_nothing(tmp_path):
    """A few of all those that `wm log torture --inject calls` tries."""
    outcomes = fail_calls(tmp_path, most=16, seed=1)
    assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []
    assert sum(outcome.trials for outcome in outcomes) == 16
    assert sum(outcome.refused for outcome in outcomes)


def test_a_writer_that_deletes_before_it_commits_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr("wm_datasets.storage.column.clean_up", lambda path: os.unlink(path))  # noqa: PTH108
    outcomes = fail_calls(tmp_path, most=5, reasons={"unlink": ("EACCES",)})
    assert any("were never acknowledged" in wrong for o in outcomes for wrong in o.wrong)


def test_a_flipped_byte_is_harmless_or_named(tmp_path):
    """A few of those that `wm log torture --inject flips` tries."""
    outcomes = flip_bytes(tmp_path, trials=3, seed=1)
    assert [outcome.file for outcome in outcomes] == list(FILES)
    assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []
    assert sum(outcome.named for outcome in outcomes) > 10


def test_a_flipped_byte_that_no_checksum_covers_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(
        SegmentReader, "_find_whole", lambda self, records, data: np.ones(len(records), bool)
    )
    (outcome,) = flip_bytes(tmp_path, trials=10, seed=1, files={"segment": FILES["segment"]})
    assert any("is not what was appended" in wrong for wrong in outcome.wrong)


@as_root
def test_a_file_of_another_owner_stops_the_opening_and_no_row_is_lost(owned):
    outcomes = change_owners(owned, most=6)
    assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []
    assert sum(outcome.refused for outcome in outcomes) > 2
