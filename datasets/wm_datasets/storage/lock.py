"""One writer per log: an exclusive flock that ends with its process, however it ends.

A flock belongs to the open file, which a forked process shares. So every fork closes its copies:
a helper that outlives the writer does not keep the log. Who only looks whether a writer is there
holds a shared lock for a moment; a writer waits for that, and is refused by other writers alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path

from wm_datasets.errors import LogBusyError
from wm_datasets.storage.file_reads import retried

LOCK_NAME = "writer.lock"
_LOOK_S = 5.0  # a look takes microseconds, unless its process was stopped in the middle
_RETRY_S = 0.002


class WriterLock:
    """Holds `<log>/writer.lock`; LogBusyError names the process that has it already."""

    def __init__(self, root: Path) -> None:
        self._fd = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        _locks.add(self)
        try:
            if not _take(self._fd):
                holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip() or "unknown"
                raise LogBusyError(
                    f"{root}: it is being written by process {holder}, and a log has one writer. "
                    "End that process or use another path."
                )
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except BaseException:
            self._forget()
            raise

    @property
    def held(self) -> bool:
        """False after release(), and in a process that was forked from the one with the lock."""
        return self._fd >= 0

    def release(self) -> None:
        """Let another writer have the log, even while another process has the file open."""
        if self.held:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._forget()

    def _forget(self) -> None:
        """Close the file; the lock stays with a process that shares it."""
        if self.held:
            fd, self._fd = self._fd, -1
            os.close(fd)


def is_locked(root: Path) -> bool:
    """Does a writer have the log right now? LogReadError where that cannot be known."""
    path = root / LOCK_NAME
    try:
        fd = retried(path, lambda: os.open(path, os.O_RDONLY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _take(fd: int) -> bool:
    """Lock the file for this writer; False when another writer has it."""
    until = time.monotonic() + _LOOK_S
    while not _try(fd, fcntl.LOCK_EX):
        if not _try(fd, fcntl.LOCK_SH) or time.monotonic() > until:
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)  # is_locked() of another process was in the way
        time.sleep(_RETRY_S)
    return True


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _close_copies() -> None:
    for lock in _locks:
        lock._forget()


os.register_at_fork(after_in_child=_close_copies)
