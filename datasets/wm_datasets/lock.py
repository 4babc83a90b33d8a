"""One writer per log: an exclusive flock that ends with its process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from wm_datasets.errors import LogBusyError

LOCK_NAME = "writer.lock"


class WriterLock:
    """Holds `<log>/writer.lock`; LogBusyError names the process that has it already."""

    def __init__(self, root: Path) -> None:
        self._fd = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise LogBusyError(
                f"{root} is being written by process {holder}; a log has one writer. "
                "End that process or use another path."
            ) from None
        try:
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        os.close(self._fd)


def is_locked(root: Path) -> bool:
    """Does a writer have the log right now?"""
    try:
        fd = os.open(root / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
