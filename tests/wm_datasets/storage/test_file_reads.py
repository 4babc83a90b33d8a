"""Transient errors of the machine are retried, and no error of the machine is taken as damage."""

import errno
import os

import pytest

from wm_datasets.errors import LogReadError
from wm_datasets.storage import file_reads
from wm_datasets.storage.damage import Damage, LogDamageError
from wm_datasets.storage.file_reads import (
    PAUSES_S,
    TRANSIENT,
    create_file,
    exists,
    list_names,
    read_file,
    retried,
)


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Durations of the pauses [s], without sleeping."""
    durations = []
    monkeypatch.setattr(file_reads.time, "sleep", durations.append)
    return durations


def failing(error, times):
    """A function that fails so many times, then returns "done"."""
    remaining = [error] * times

    def call():
        if remaining:
            raise remaining.pop()
        return "done"

    return call


@pytest.mark.parametrize("error", [OSError(number, "") for number in sorted(TRANSIENT)])
def test_transient_errors_are_retried_after_each_pause(slept, error):
    assert retried("x", failing(error, len(PAUSES_S))) == "done"
    assert slept == list(PAUSES_S)
    with pytest.raises(LogReadError, match="cannot read x"):
        retried("x", failing(error, len(PAUSES_S) + 1))


def test_a_lack_of_memory_is_retried(slept):
    assert retried("x", failing(MemoryError(), 2)) == "done"
    assert slept == list(PAUSES_S[:2])
    with pytest.raises(LogReadError, match="free memory"):
        retried("x", failing(MemoryError(), 9))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.ELOOP])
def test_permanent_errors_are_not_retried(slept, number):
    with pytest.raises(LogReadError, match=os.strerror(number)):
        retried("x", failing(OSError(number, ""), 1))
    assert slept == []


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        NotADirectoryError(),
        LogDamageError(Damage(None, 0, 1, "x")),
        LogReadError("x"),
    ],
)
def test_a_missing_file_and_errors_of_the_log_are_raised_at_once(slept, error):
    with pytest.raises(type(error)):
        retried("x", failing(error, 1))
    assert slept == []


@pytest.mark.parametrize(
    ("number", "name", "remedy"),
    [
        (errno.EACCES, "c.0", "right to read"),
        (errno.EPERM, "c.0", "right to read"),
        (errno.EMFILE, "c.0", "ulimit -n"),
        (errno.ENFILE, "c.0", "ulimit -n"),
        (errno.ENOMEM, "c.0", "free memory"),
        (errno.EIO, "c.0", "mend the disk"),
        (errno.EIO, "000000000000.seg", "mend the disk"),
        (errno.EIO, "zarr.json", "mend the cause"),
        (errno.ELOOP, "c.0", "mend the cause"),
    ],
)
def test_the_remedy_follows_from_the_error(number, name, remedy):
    with pytest.raises(LogReadError, match=remedy):
        retried(f"/log/{name}", failing(OSError(number, ""), 9))


def test_an_error_without_a_number_is_shown_by_its_message():
    with pytest.raises(LogReadError, match="cannot list x: odd"):
        retried("x", failing(OSError("odd"), 1), "list")


def test_a_file_is_read_whole_in_any_pieces(tmp_path, monkeypatch):
    path, pread = tmp_path / "x", os.pread
    for data in (b"", b"a", bytes(range(256))):
        path.write_bytes(data)
        assert read_file(path) == data
    monkeypatch.setattr(os, "pread", lambda fd, count, at: pread(fd, min(count, 10), at))
    assert read_file(path) == bytes(range(256))
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        read_file(path / "below")


def test_a_name_exists_or_not(tmp_path):
    (tmp_path / "x").touch()
    assert exists(tmp_path / "x") and exists(tmp_path)
    assert not exists(tmp_path / "y") and not exists(tmp_path / "x" / "below")


def test_names_are_sorted_and_none_where_there_is_no_folder(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert list_names(tmp_path) == ["a", "b", "c"]
    assert list_names(tmp_path / "none") == [] and list_names(tmp_path / "a") == []


def test_a_file_is_created_or_emptied_for_writing(tmp_path):
    path = tmp_path / "x"
    for _ in range(2):
        fd = create_file(path)
        assert path.stat().st_size == 0
        os.pwrite(fd, b"abc", 0)
        os.close(fd)
    with pytest.raises(FileNotFoundError):
        create_file(tmp_path / "none" / "x")


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EMFILE, LogReadError), (errno.ENOSPC, OSError), (errno.EACCES, PermissionError)],
)
def test_an_error_of_creating_a_file_is_wrapped_only_if_it_is_transient(
    tmp_path, monkeypatch, number, error
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(error) as refused:
        create_file(tmp_path / "x")
    assert isinstance(refused.value, LogReadError) == (error is LogReadError)
    if error is LogReadError:
        assert "cannot create" in str(refused.value)
