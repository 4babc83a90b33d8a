"""One writer per log: others are refused; status checks and forked processes hold no lock."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.wm_datasets.conftest import PATHS
from tests.wm_datasets.log_rows import append_episode, check_rows, make_row, make_spec
from wm_datasets import LogBusyError, LogError, LogReader, LogWriter
from wm_datasets.storage import lock
from wm_datasets.storage.lock import LOCK_NAME, WriterLock, is_locked

_FORKING = """
import os, sys, time
from tests.wm_datasets.log_rows import append_episode, make_spec
from wm_datasets import LogWriter
writer = LogWriter(sys.argv[1], make_spec())
append_episode(writer, 5)
writer.flush()
helper = os.fork()
if helper == 0:
    print(os.getpid(), flush=True)  # after the fork has closed its copy of the lock's file
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_a_forked_helper_does_not_hold_the_lock_of_a_killed_writer(path):
    folders = [*PATHS, os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", _FORKING, str(path)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ":".join(folders)},
    )  # fmt: skip
    helper = int(process.stdout.readline())
    try:
        with pytest.raises(LogBusyError, match=str(process.pid)):
            LogWriter(path, make_spec())
        process.kill()
        process.wait()
        assert not is_locked(path)
        with LogWriter(path, make_spec()) as writer:
            append_episode(writer, 3)
    finally:
        os.kill(helper, signal.SIGKILL)
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == 8


def test_a_forked_process_can_neither_append_nor_close_its_parents_log(path):
    writer = LogWriter(path, make_spec())
    append_episode(writer, 5)
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (
            lambda: writer.append(make_row(5, 0, False)),
            writer.flush,
            writer.end_episode,
        ):
            try:
                call()
            except LogError as error:
                refused += "from which this one was forked" in str(error)
        writer.close()
        os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert is_locked(path)
    append_episode(writer, 5)
    writer.close()
    assert not is_locked(path)
    with LogReader(path) as reader:
        check_rows(reader)
        assert reader.length == 10


def test_a_status_check_does_not_refuse_a_writer(path):
    """A status check takes a shared lock for a moment: a writer waits for its end."""
    LogWriter(path, make_spec()).close()
    shared_lock = os.open(path / LOCK_NAME, os.O_RDONLY)
    fcntl.flock(shared_lock, fcntl.LOCK_SH)
    opened = []
    opening = threading.Thread(target=lambda: opened.append(LogWriter(path, make_spec())))
    opening.start()
    time.sleep(0.1)
    assert not opened
    os.close(shared_lock)
    opening.join(10)
    assert is_locked(path)
    opened[0].close()


def test_status_checks_in_a_loop_do_not_refuse_a_writer(path):
    LogWriter(path, make_spec()).close()
    stop, checks = threading.Event(), []

    def check_in_a_loop():
        while not stop.is_set():
            checks.append(is_locked(path))

    threads = [threading.Thread(target=check_in_a_loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            WriterLock(path).release()
        while len(checks) < 3:  # at least three checks, however busy the machine is
            WriterLock(path).release()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not is_locked(path)


def test_a_second_writer_is_refused_at_once(path, monkeypatch):
    with LogWriter(path, make_spec()):
        monkeypatch.setattr(lock, "_RETRY_S", None)  # there is nothing to wait for
        with pytest.raises(LogBusyError, match=f"process {os.getpid()} on"):
            LogWriter(path, make_spec())
