"""Let one call to the system fail, each in turn and for every reason, and hold the log to account.

A trial copies a log as a killed writer leaves it and works on the copy while the n-th call of one
kind fails once. A writer opens it, appends episodes, drops old ones, seals and closes; or a sampler
draws from it. The disk is sound, so nothing may be lost: every acknowledged row must be there bit
for bit, nothing may be called damaged, and all that the user may have seen is a LogError. Then the
next writer, which nothing disturbs, must be able to append.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from wm_datasets.durability.known_rows import (
    checksum,
    checksums,
    leave_log,
    make_row,
    make_spec,
)
from wm_datasets.errors import LogError
from wm_datasets.log.reader import LogReader
from wm_datasets.log.verify import verify
from wm_datasets.log.writer import LogWriter
from wm_datasets.sampling.sampler import Sampler
from wm_datasets.spec import LogSpec
from wm_datasets.storage.damage import quiet

REASONS = {  # call -> why it may fail
    "open": ("EMFILE", "ENFILE", "ENOMEM", "EACCES", "EIO", "ENOSPC", "EROFS", "EINTR"),
    "pread": ("EIO", "ENOMEM", "EINTR", "ESTALE"),
    "pwrite": ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EINTR"),
    "fsync": ("EIO", "ENOSPC"),
    "replace": ("EIO", "ENOSPC", "EACCES"),
    "unlink": ("EACCES", "EIO", "EBUSY"),
    "ftruncate": ("EIO",),
    "stat": ("EACCES", "EIO", "ENOMEM"),
    "fstat": ("EIO",),
    "listdir": ("EACCES", "EMFILE", "EIO"),
    "dup": ("EMFILE",),
}
_ON_DESCRIPTORS = ("pread", "pwrite", "fsync", "ftruncate", "fstat", "dup")
_SEED = 5
_SEALED, _LEFT = 30, 10  # rows in the arrays, and in segments
_EPISODE = 10
_CAPACITY = 24
_SEALED_S = 0.1  # time for full segments to be sealed, which a fault may prevent
_NEVER = 1 << 60


class FailingCall:
    """A context in which the `index`-th call of one kind below `root` fails, once.

    `calls` counts the calls of all kinds.
    """

    def __init__(self, root: Path, call: str, reason: str, index: int) -> None:
        self.calls = dict.fromkeys(REASONS, 0)
        self._root, self._call, self._number = str(root), call, getattr(errno, reason)
        self._index, self._real = index, {n: getattr(os, n) for n in (*REASONS, "close")}
        self._held: set[int] = set()  # descriptors of files below the root
        self._lock = threading.Lock()

    def __enter__(self) -> FailingCall:
        for name in self._real:
            setattr(os, name, partial(self._pass, name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)

    def _pass(self, name: str, first: Any, *args: Any, **kwargs: Any) -> Any:
        mine = first in self._held if name in _ON_DESCRIPTORS else self._is_below(first)
        if mine and name in self.calls:
            with self._lock:
                self.calls[name] += 1
                if name == self._call and self.calls[name] == self._index + 1:
                    raise OSError(self._number, os.strerror(self._number), str(first))
        if name == "close":
            self._held.discard(first)
        result = self._real[name](first, *args, **kwargs)
        if mine and name in ("open", "dup"):
            self._held.add(result)
        return result

    def trial(self, refused: bool, faults: Sequence[str]) -> _Trial:
        """The outcome of what was done in this context."""
        what = f"{self._call} {self._index} fails with {errno.errorcode[self._number]}"
        return _Trial(self.calls, refused, tuple(f"{what}: {fault}" for fault in faults))

    def _is_below(self, path: Any) -> bool:
        return isinstance(path, str | Path) and str(path).startswith(self._root)


@dataclass(frozen=True)
class CallOutcome:
    """All trials of one call and reason; `refused` ended in a LogError, `wrong` broke a promise."""

    work: str
    call: str
    reason: str
    trials: int
    refused: int
    wrong: tuple[str, ...]


def fail_calls(
    folder: Path,
    most: int | None = None,
    seed: int = 0,
    reasons: Mapping[str, Sequence[str]] = REASONS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CallOutcome]:
    """Try every call for every reason, in a writer and in a sampler, or `most` of these at random.

    The logs lie in `folder`; progress(done, total) counts trials. Outcomes come in the order of
    REASONS.
    """
    trials_of: dict[tuple[str, str, str], list[_Trial]] = {}
    with quiet(), _unsynced():
        base = _Base(folder)
        works = {"writer": base.try_writer, "sampler": base.try_sampler}
        every = [
            (work, call, reason, index)
            for work, trial in works.items()
            for call, count in trial("open", "EIO", _NEVER).calls.items()
            for index in range(count)
            for reason in reasons.get(call, ())
        ]
        chosen = every
        if most is not None and most < len(every):
            chosen = sorted(random.Random(seed).sample(every, most), key=every.index)
        for done, (work, call, reason, index) in enumerate(chosen):
            trial = works[work](call, reason, index)
            trials_of.setdefault((work, call, reason), []).append(trial)
            progress(done + 1, len(chosen))
    shutil.rmtree(base.copy, ignore_errors=True)
    return [
        CallOutcome(
            *key, len(trials), sum(trial.refused for trial in trials),
            tuple(wrong for trial in trials for wrong in trial.wrong),
        )
        for key, trials in sorted(trials_of.items(), key=lambda item: _order(*item[0]))
    ]  # fmt: skip


def _order(work: str, call: str, reason: str) -> tuple[int, int]:
    return work != "writer", list(REASONS).index(call)


@contextmanager
def _unsynced() -> Iterator[None]:
    """Sync nothing: these trials cut no power."""
    real, os.fsync = os.fsync, lambda fd: None
    try:
        yield
    finally:
        os.fsync = real


@dataclass(frozen=True)
class _Trial:
    calls: Mapping[str, int]
    refused: bool
    wrong: tuple[str, ...]


class _Base:
    """The log that every trial begins with, and what it holds."""

    def __init__(self, folder: Path) -> None:
        self.spec = make_spec(6, 20.0)
        self.whole, self.copy = folder / "whole", folder / "copy"
        self.sums = leave_log(
            self.whole, self.spec, _SEED, sealed=_SEALED, left=_LEFT, episode=_EPISODE
        )

    def try_writer(self, call: str, reason: str, index: int) -> _Trial:
        """Let a writer work while the call fails, and look at what it and the next one leave."""
        self._renew()
        sums, refused, faults = dict(self.sums), False, []
        with FailingCall(self.copy, call, reason, index) as failing:
            try:
                refused = self._write(sums)
            except LogError:
                refused = True
            except Exception as error:
                faults.append(f"got {error!r}, expected a LogError")
        faults += self._find_wrong(sums)
        try:
            with LogWriter(self.copy, self.spec, capacity_steps=_CAPACITY) as writer:
                _append(writer, sums)
        except Exception as error:
            faults.append(f"the next writer fails: {error!r}")
        faults += self._find_wrong(sums)
        faults += [str(fault) for fault in verify(self.copy, rate_tolerance=1e9).faults]
        return failing.trial(refused, faults)

    def _write(self, sums: dict[int, int]) -> bool:
        """Work on the copy as a recorder does; True where a row was refused with a LogError."""
        refused = False
        with LogWriter(self.copy, self.spec, durable_s=1000.0, capacity_steps=_CAPACITY) as writer:
            for _ in range(3):
                try:
                    _append(writer, sums)
                except LogError:
                    refused = True
                    writer.end_episode()
                self._await_sealing()
            try:
                writer.flush()
            except LogError:
                refused = True
        return refused

    def _await_sealing(self) -> None:
        end = time.monotonic() + _SEALED_S
        while time.monotonic() < end:
            with os.scandir(self.copy / "wal") as entries:  # a call that never fails here
                if sum(entry.name.endswith(".seg") for entry in entries) < 2:
                    return
            time.sleep(0.001)

    def try_sampler(self, call: str, reason: str, index: int) -> _Trial:
        """The same of a reader and a sampler that holds next to nothing in memory."""
        self._renew()
        refused, faults = False, []
        with FailingCall(self.copy, call, reason, index) as failing:
            try:
                faults += self._sample()
            except LogError:
                refused = True
            except Exception as error:
                faults.append(f"got {error!r}, expected a LogError")
        return failing.trial(refused, faults)

    def _sample(self) -> list[str]:
        with LogReader(self.copy) as reader:
            sampler = Sampler(reader, batch=8, length=4, seed=0, cache_bytes=1, disk_bytes=0)
            refused: LogError | None = None
            for _ in range(4):
                try:
                    sampler.refresh()
                    rows = sampler.sample()
                except LogError as error:  # what failed once may be asked for again
                    if refused is not None:
                        raise
                    refused = error
                    sampler.refresh()
                    rows = sampler.sample()
                for number, front in zip(
                    rows["proprio"][..., 0].astype(int).ravel(),
                    rows["image/front"].reshape(-1, *rows["image/front"].shape[2:]),
                ):
                    if not np.array_equal(front, _row(self.spec, int(number))["image/front"]):
                        return [f"row {number} is drawn wrong"]
            left = [view["lost"] for view in sampler.state_dict()["logs"] if view["lost"]]
            drawn = sampler.longest and len(reader.intact) == len(reader.episodes)
            faults = [f"remembered as damage: {left}"] if left or not drawn else []
            if refused is not None and not faults:
                raise refused
            return faults

    def _renew(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)

    def _find_wrong(self, sums: dict[int, int]) -> list[str]:
        with LogReader(self.copy) as reader:
            if reader.damage:
                return [f"sound rows are called damaged: {reader.damage[0]}"]
            if reader.length < len(sums):
                return [f"rows {reader.length} to {len(sums)} are gone"]
            if reader.length > len(sums):
                return [f"rows {len(sums)} to {reader.length} were never acknowledged"]
            if reader.first > max(0, reader.length - _CAPACITY + _EPISODE):
                return [f"rows before {reader.first} of {reader.length} were dropped"]
            sums_read = checksums(reader, reader.first, reader.length)
            return [
                f"row {row} is not what was appended"
                for row, row_sum in enumerate(sums_read, reader.first)
                if sums[row] != row_sum
            ]


def _append(writer: LogWriter, sums: dict[int, int]) -> None:
    """Append one episode and note what was acknowledged."""
    start = writer.length
    for step in range(_EPISODE):
        row = _row(writer.spec, writer.length, step, start)
        sums[writer.append(row)] = checksum(writer.spec, row)


def _row(
    spec: LogSpec, number: int, step: int | None = None, start: int | None = None
) -> dict[str, Any]:
    """Row `number`, of an episode of _EPISODE rows unless `step` and `start` are given."""
    step = number % _EPISODE if step is None else step
    start = number - step if start is None else start
    return make_row(spec, _SEED, number, step, start, step == _EPISODE - 1)
