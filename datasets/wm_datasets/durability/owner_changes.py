"""Take files of a log away from the user who writes it: what cannot be read is no damage.

Each file in turn belongs to root alone, as after one use of the log by root under umask 077; then
its user opens the log. Either that needs no such file and works, or it ends with a LogError
and the log stays as it was, bit for bit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wm_datasets.durability.known_rows import (
    checksum,
    checksums,
    leave_log,
    make_row,
    make_spec,
)
from wm_datasets.errors import LogSpecError
from wm_datasets.log.reader import LogReader
from wm_datasets.log.verify import verify
from wm_datasets.log.writer import LogWriter
from wm_datasets.storage.damage import quiet
from wm_datasets.storage.lock import LOCK_NAME

NOBODY = 65534  # the unprivileged user
_SEED, _EPISODE = 3, 10


@dataclass(frozen=True)
class OwnerOutcome:
    """One file that its user may not read; `refused`: the log could not be opened."""

    file: str
    refused: bool
    wrong: tuple[str, ...]


def change_owners(
    folder: Path,
    most: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[OwnerOutcome]:
    """Try every file of a log made in `folder`, or `most` of them, evenly; root only."""
    if os.getuid() != 0:
        raise LogSpecError(
            f"user: got uid {os.getuid()}, expected 0, because only root can change owners. Run "
            "sudo wm log torture ..."
        )
    spec, whole, copy = make_spec(6, 20.0), folder / "whole", folder / "copy"
    sums = leave_log(whole, spec, _SEED, sealed=30, left=10, episode=_EPISODE)
    names = [name for name in _contents(whole) if name != LOCK_NAME]
    chosen = names[:: max(1, len(names) // most)] if most else names
    outcomes = []
    with quiet():
        for name in chosen:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(whole, copy)
            give_to(copy, NOBODY)
            os.chown(copy / name, 0, 0)
            (copy / name).chmod(0o600)
            outcomes.append(_try(copy, name, dict(sums)))
            progress(len(outcomes), len(chosen))
    shutil.rmtree(copy, ignore_errors=True)
    return outcomes


def give_to(path: Path, user: int) -> None:
    """Make a folder and all below it a user's own."""
    for file in (path, *path.rglob("*")):
        os.chown(file, user, user)


def as_user(user: int, work: Callable[[], str], *, umask: int = 0o022) -> str:
    """Run `work` in a process of that user; return what it returned, or its error as text."""
    mine, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.umask(umask)
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            message = work()
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        finally:
            os.write(theirs, message.encode()[:4000])
            os._exit(0)
    os.close(theirs)
    with os.fdopen(mine, "rb") as pipe:
        message = pipe.read().decode()
    os.waitpid(child, 0)
    return message


def _try(path: Path, name: str, sums: dict[int, int]) -> OwnerOutcome:
    before, wrong = _contents(path), []
    message = as_user(NOBODY, lambda: _append(path))
    refused = bool(message)
    if refused and not message.startswith(("LogReadError: ", "LogError: ")):
        wrong.append(f"{name}: got {message}, expected a LogError")
    if refused and {**_contents(path), LOCK_NAME: b""} != {**before, LOCK_NAME: b""}:
        wrong.append(f"{name}: the log was refused ({message}) and has changed")
    give_to(path, NOBODY)
    if refused and (again := as_user(NOBODY, lambda: _append(path))):
        wrong.append(f"{name}: the log cannot be opened when its user owns it again: {again}")
    with LogReader(path) as reader:
        spec, start = reader.spec, len(sums)
        for step in range(_EPISODE):
            row = make_row(spec, _SEED, start + step, step, start, step == _EPISODE - 1)
            sums[start + step] = checksum(spec, row)
        if checksums(reader, 0, reader.length) != list(sums.values()):
            wrong.append(f"{name}: rows are not what was appended")
    wrong += [f"{name}: {fault}" for fault in verify(path, rate_tolerance=1e9).faults]
    return OwnerOutcome(name, refused, tuple(wrong))


def _append(path: Path) -> str:
    spec = make_spec(6, 20.0)
    with LogWriter(path, spec) as writer:
        start = writer.length
        for step in range(_EPISODE):
            writer.append(make_row(spec, _SEED, start + step, step, start, step == _EPISODE - 1))
    return ""


def _contents(path: Path) -> dict[str, bytes]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
