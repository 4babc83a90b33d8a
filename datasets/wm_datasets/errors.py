"""Everything a log refuses, under one base.

Messages have the form `<what>: got <given>, expected <right>. <how to fix>`. Where no value was
given (a missing file, a damaged block), they name the path, what is wrong and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LogError(Exception):
    """Base of all errors of a replay log."""


class LogSpecError(LogError, ValueError):
    """A row, a spec or an argument does not fit the log."""


class LogBusyError(LogError):
    """Another writer holds the log."""


class LogFullError(LogError, OSError):
    """The disk (or a quota) has no room; the row was not recorded, the log stays valid."""


class LogReadError(LogError, OSError):
    """The machine could not read a file (no descriptors, memory or permission, a failing disk).

    It says nothing about what the file holds: no damage was found, and nothing was changed.
    """


class LogFormatError(LogError):
    """The folder is not a log that this version reads, or a part of it is damaged."""


class LogRowError(LogError, IndexError):
    """Rows were asked for that do not exist (yet), or were dropped by the capacity."""


class LogAbsentError(LogRowError):
    """A field was asked for in rows that were recorded before the log had it."""


class LogEmptyError(LogError):
    """The log holds no episode long enough for the windows asked for."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing under `path` into LogFullError or LogError."""
    try:
        yield
    except LogError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise LogFullError(
                f"{path}: no room to record ({error.strerror}). What was recorded is safe. Free "
                "space and start the next episode."
            ) from error
        raise LogError(f"{path}: cannot be written: {error}.") from error
