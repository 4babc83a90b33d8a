"""Looking at a log's files: an error of the machine is never taken for the state of a file.

A file is missing where the system says that there is no such name, and damaged where its bytes do
not fit their checksum or size. Anything else (no file descriptors, no memory, no permission, a
failing read) says nothing about what is on the disk: it is tried again where that may help, and
then it is a LogReadError.
"""

# Failing calls are injected into `os` (durability/failing_calls.py):
# ruff: noqa: PTH116, PTH208

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wm_datasets.errors import LogError, LogReadError

T = TypeVar("T")

TRANSIENT = frozenset(
    getattr(errno, name)
    for name in ("EMFILE", "ENFILE", "ENOMEM", "EINTR", "EAGAIN", "EIO", "EBUSY", "ESTALE",
                 "ETIMEDOUT", "ENOBUFS")
)  # fmt: skip
PAUSES_S = (0.01, 0.05, 0.2, 0.5)  # before each new try


def retried(path: Path | str, look: Callable[[], T], what: str = "read") -> T:
    """Return look(), tried again while it fails for a reason that may pass; `what` it does.

    FileNotFoundError and NotADirectoryError, which say that the file is missing, go to the caller;
    all other errors of the system become LogReadError, which names `path`.
    """
    pauses = iter(PAUSES_S)
    while True:
        try:
            return look()
        except (LogError, FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, MemoryError) as error:
            number = error.errno if isinstance(error, OSError) else errno.ENOMEM
            pause = next(pauses, None) if number in TRANSIENT else None
            if pause is None:
                reason = os.strerror(number) if number else str(error)
                raise LogReadError(
                    f"cannot {what} {path}: {reason}. This is not damage and nothing was changed: "
                    f"{_remedy(number, path)}, then open the log again."
                ) from error
        time.sleep(pause)


def read_file(path: Path | str) -> bytes:
    """Return a file's content; FileNotFoundError or NotADirectoryError without one."""
    return retried(path, lambda: _read(path))


def create_file(path: Path | str) -> int:
    """Open a file, made or emptied, for writing; return its descriptor.

    LogReadError where the machine cannot just now (TRANSIENT); any other OSError (no room, no
    permission) goes to the caller.
    """

    def create() -> int | OSError:
        try:
            return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        except OSError as error:
            if error.errno in TRANSIENT:
                raise
            return error

    result = retried(path, create, "create")
    if isinstance(result, OSError):
        raise result
    return result


def exists(path: Path | str) -> bool:
    """Is there something of this name? LogReadError where that cannot be known."""
    try:
        retried(path, lambda: os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def list_names(folder: Path | str) -> list[str]:
    """Return the names in a folder, sorted; none where there is no such folder."""
    try:
        return sorted(retried(folder, lambda: os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path | str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts, at = [], 0
        while part := os.pread(fd, 1 << 24, at):
            parts.append(part)
            at += len(part)
    finally:
        os.close(fd)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _remedy(number: int | None, path: Path | str) -> str:
    if number in (errno.EACCES, errno.EPERM):
        return "give this user the right to read it (ls -l shows its owner)"
    if number in (errno.EMFILE, errno.ENFILE):
        return "let this process have more files open (ulimit -n)"
    if number == errno.ENOMEM:
        return "free memory"
    name = Path(path).name
    if number == errno.EIO and (name.startswith("c.") or name.endswith(".seg")):
        return (
            "mend the disk (dmesg may name the cause) or, where the file stays unreadable, move it "
            "out of the log: it then counts as missing, which is damage, and only its rows are lost"
        )
    return "mend the cause (dmesg may name it)"
