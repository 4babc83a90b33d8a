"""Shared memory that killed processes have left behind, removed at the next start.

Fast DDS keeps a segment and some ports in /dev/shm for every process, each with a lock file
(`<name>_el`) that the process holds with flock as long as it lives. A process that is killed cannot
remove them. A segment (8 MB with the launch profile) has a name of its own and is of use to no
other process: it is removed here. A port (50 kB) is used again by the next process that gets its
number. Fast DDS repairs it then; removing it here could take it from a process that is starting.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
SEGMENT = re.compile(r"fastdds_[0-9a-f]{16}")
LOCK = "_el"
YOUNG_S = 5.0  # a file may exist for a moment before its owner has locked it


def remove_dead(folder: Path = FOLDER, *, young_s: float = YOUNG_S) -> list[str]:
    """Remove the segments that dead processes have left; return their names.

    Removed are only files of this user whose lock is free, which no visible process has mapped, and
    which are older than `young_s` [s].
    """
    removed: list[str] = []
    with suppress(OSError):
        candidates = [path for path in folder.iterdir() if _owned(path, young_s)]
        mapped: frozenset[str] | None = None
        for path in candidates:
            with _free(Path(f"{path}{LOCK}")) as free:
                if not free:
                    continue
                if mapped is None:
                    mapped = _mapped(folder)
                if str(path) not in mapped:
                    path.unlink(missing_ok=True)
                    Path(f"{path}{LOCK}").unlink(missing_ok=True)
                    removed.append(path.name)
    return removed


def _owned(path: Path, young_s: float) -> bool:
    """Is it a segment of this user, old enough?"""
    if not SEGMENT.fullmatch(path.name):
        return False
    with suppress(OSError):
        status = path.lstat()
        return status.st_uid == os.getuid() and time.time() - status.st_ctime > young_s
    return False


@contextmanager
def _free(lock: Path) -> Iterator[bool]:
    """Hold a lock file if no process does; gives False where one does, or where there is none."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(handle)


def _mapped(folder: Path) -> frozenset[str]:
    """Return the files of the folder that processes have mapped, as far as this user may look."""
    name = re.compile(rf"{re.escape(str(folder))}/\S+")
    mapped: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            mapped.update(name.findall(maps.read_text(errors="replace")))
    return frozenset(mapped)
