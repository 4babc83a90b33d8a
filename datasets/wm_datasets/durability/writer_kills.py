"""Kill the writer of a log again and again, and look whether anything it promised is gone.

A writer process appends rows at 50 Hz or as fast as it can and tells, through a pipe, the checksum
of every row that append() took, and which rows are durable. It is killed with -9 at a random
moment, also while it opens, seals or repairs the log, while a reader process follows. Then every
row is read back. With `power_cut`, all that the writer had not synced is taken away as well.
After each fifth of the writers the log gets one field more: depth, float images, a camera, force.
"""

from __future__ import annotations

import os
import random
import selectors
import shutil
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from wm_datasets.durability.known_rows import (
    LATER,
    checksum,
    checksums,
    create_log,
    make_row,
    make_spec,
)
from wm_datasets.durability.power_cut import Recorder, cut_power
from wm_datasets.errors import LogSpecError
from wm_datasets.log.reader import LogReader
from wm_datasets.log.writer import LogWriter
from wm_datasets.spec import LogSpec
from wm_datasets.storage.damage import quiet

_ACK = struct.Struct("<qIqd")  # row, its checksum, rows durable, when [s]; row -1: opened
_READ_ROW = struct.Struct("<qI")  # row, its checksum
_MAX_FAULTS = 100


@dataclass(frozen=True)
class KillConfig:
    """One run. Writers with an even number go at `rate_hz`, the others as fast as they can."""

    kills: int = 20
    power_cut: bool = False
    seed: int = 0
    rate_hz: float = 50.0
    longest_s: float = 0.8  # a writer's life, its opening included
    durable_s: float = 0.1
    frame: int = 16  # height and width of the camera
    segment_rows: int = 16  # small, so that many kills meet a log that is being sealed
    most_rows: int = 600  # of one writer


@dataclass(frozen=True)
class Life:
    """One writer from its start to its kill; `taken` rows were acknowledged and are gone (only
    after a power cut, and none of the durable ones), the oldest of them `taken_s` before."""

    number: int
    rate_hz: float
    lived_s: float
    opened_s: float | None
    first_row: int
    acknowledged: int
    durable: int
    found: int
    taken: int
    taken_s: float
    seen: int


@dataclass
class KillResult:
    """What was found; the log kept its promises when `faults` is empty."""

    config: KillConfig
    lives: list[Life] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    rows: int = 0
    episodes: int = 0
    lost_rows: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"kept_its_promises": not self.faults}

    def line(self) -> str:
        """The result in one line."""
        how = "power cuts" if self.config.power_cut else "kills"
        opened = [life.opened_s for life in self.lives if life.opened_s is not None]
        taken = max((life.taken_s for life in self.lives), default=0.0)
        power = f", at most {taken:.2f} s of rows that were not durable gone"
        rows_read = sum(life.seen for life in self.lives)
        acknowledged = sum(life.acknowledged for life in self.lives)
        return (
            f"{len(self.lives)} {how}, {acknowledged} rows acknowledged, "
            f"{self.rows} rows in {self.episodes} episodes read back bit for bit, "
            f"{len(self.faults)} faults; reopened within {max(opened, default=0.0):.2f} s"
            + (power if self.config.power_cut else f", {rows_read} rows seen by the reader")
        )


def kill_writers(
    path: str | Path,
    config: KillConfig,
    progress: Callable[[Life, int], None] = lambda life, faults: None,
) -> KillResult:
    """Run it on a new log at `path`; progress(life, faults so far) is called after every kill."""
    root = Path(path)
    if root.exists() and any(root.iterdir()):
        raise LogSpecError(
            f"log: got {root}, which exists, expected a new log to kill writers on. Give a new "
            "path."
        )
    if config.kills < 1:
        raise LogSpecError(f"kills: got {config.kills}, expected at least 1.")
    with quiet():
        return _WriterKills(root.absolute(), config).run(progress)


class _WriterKills:
    def __init__(self, root: Path, config: KillConfig) -> None:
        self.root, self.config, self.spec = root, config, _spec(config, 0)
        self.result = KillResult(config)
        self._chance = random.Random(config.seed)
        self._sums: dict[int, int] = {}  # row -> checksum, of all rows that must be there
        self._times: dict[int, float] = {}
        self._reads, self._reads_offset = root.with_name(root.name + ".seen"), 0
        self._journal = root.with_name(root.name + ".journal")
        self._stash = root.with_name(root.name + ".stash")
        create_log(root, self.spec, config.segment_rows)

    def run(self, progress: Callable[[Life, int], None]) -> KillResult:
        begin = time.monotonic()
        self._reads.unlink(missing_ok=True)
        reader = None if self.config.power_cut else _fork(lambda: _follow(self.root, self._reads))
        try:
            for number in range(self.config.kills):
                life = self._live(number)
                self.result.lives.append(life)
                progress(life, len(self.result.faults))
                if len(self.result.faults) > _MAX_FAULTS:
                    break
            LogWriter(self.root, _spec(self.config, self.config.kills)).close()
            self._check(0)
            if reader is not None and os.waitpid(reader, os.WNOHANG)[0]:
                reader = None
                self._fault("the reader failed, see its traceback")
        finally:
            if reader is not None:
                os.kill(reader, signal.SIGKILL)
                os.waitpid(reader, 0)
            self._reads.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
            shutil.rmtree(self._stash, ignore_errors=True)
        self.result.seconds = time.monotonic() - begin
        return self.result

    def _live(self, number: int) -> Life:
        """Let one writer live and die, and look at what it left."""
        config, first = self.config, len(self._sums)
        self.spec = _spec(config, number)
        rate_hz = config.rate_hz if number % 2 == 0 else 0.0
        lived_s = self._chance.uniform(0.0, config.longest_s)
        shutil.rmtree(self._stash, ignore_errors=True)
        self._stash.mkdir()
        self._journal.unlink(missing_ok=True)
        opened_s, durable = self._run_writer(number, rate_hz, lived_s)
        died = time.monotonic()
        acknowledged = len(self._sums)
        taken: list[float] = []
        if config.power_cut:
            cut_power(self.root, self._journal, self._chance)
            taken = self._take_back(max(durable, first), died)
        rows_read = self._check_reads()
        rows_found = self._check(first if number % 10 else 0)
        return Life(
            number, rate_hz, lived_s, opened_s, first, acknowledged - first, durable, rows_found,
            len(taken), max(taken, default=0.0), rows_read,
        )  # fmt: skip

    def _run_writer(self, number: int, rate_hz: float, lived_s: float) -> tuple[float | None, int]:
        """Start, listen, kill; return the seconds until the log was open, and rows durable."""
        mine, theirs = os.pipe()
        begin = time.monotonic()
        child = _fork(lambda: self._write(number, rate_hz, theirs), close=mine)
        os.close(theirs)
        messages, killed, rest = [], False, b""
        arrived = selectors.DefaultSelector()  # select() takes no descriptors from 1024 on
        arrived.register(mine, selectors.EVENT_READ)
        while True:
            left = begin + lived_s - time.monotonic()
            if left <= 0 and not killed:
                os.kill(child, signal.SIGKILL)
                killed = True
            if arrived.select(None if killed else max(left, 0.0)):
                data = os.read(mine, 1 << 16)
                if not data:
                    break
                rest += data
                whole = len(rest) // _ACK.size * _ACK.size
                messages += list(_ACK.iter_unpack(rest[:whole]))
                rest = rest[whole:]
        arrived.close()
        os.close(mine)
        if not killed:  # it ended by itself: at its last row, or by an error
            if os.waitpid(child, 0)[1]:
                self._fault(f"writer {number} failed by itself, see its traceback")
        else:
            os.waitpid(child, 0)
        opened_s, durable = None, 0
        for row, value, safe, when in messages:
            durable = max(durable, safe)
            if row < 0:
                opened_s = when - begin if opened_s is None else opened_s
            elif row != len(self._sums):
                self._fault(f"writer {number}: row {row} follows row {len(self._sums) - 1}")
            else:
                self._sums[row], self._times[row] = value, when
        return opened_s, durable

    def _write(self, number: int, rate_hz: float, pipe: int) -> None:
        """The writer process."""
        if self.config.power_cut:
            Recorder(self.root, self._journal, self._stash).install()
        chance = random.Random(self.config.seed * 1_000_003 + number)
        writer = LogWriter(self.root, self.spec, durable_s=self.config.durable_s)
        os.write(pipe, _ACK.pack(-1, 0, writer.durable, time.monotonic()))
        end, due = writer.length + self.config.most_rows, time.monotonic()
        while writer.length < end:
            start, rows = writer.length, chance.randint(1, 40)
            for step in range(rows):
                row = make_row(
                    self.spec, self.config.seed, writer.length, step, start, step == rows - 1
                )
                writer.append(row)
                message = _ACK.pack(
                    writer.length - 1, checksum(self.spec, row), writer.durable, time.monotonic()
                )
                os.write(pipe, message)
                if rate_hz:
                    due += 1 / rate_hz
                    time.sleep(max(0.0, due - time.monotonic()))
        writer.close()
        os.write(pipe, _ACK.pack(-1, 0, writer.length, time.monotonic()))

    def _take_back(self, durable: int, died: float) -> list[float]:
        """Forget what a power cut may take; return how old each of those rows was [s]."""
        with LogReader(self.root) as reader:
            gone = {row for d in reader.damage for row in range(d.start, d.stop)}
            gone |= set(range(reader.length, len(self._sums)))
            self.result.lost_rows = sum(d.stop - d.start for d in reader.damage)
        fresh = [row for row in gone if self._sums.get(row, -1) >= 0]
        for row in fresh:
            if row < durable:
                self._fault(f"row {row} was durable (before {durable}) and is gone")
        ages = [died - self._times[row] for row in fresh]
        for row in sorted(gone, reverse=True):
            if row >= reader.length:
                self._sums.pop(row, None)
            else:
                self._sums[row] = -1  # lost: known to the log
        return ages

    def _check_reads(self) -> int:
        """What the reader has seen must be what was written; return how many rows are new."""
        if self.config.power_cut:
            return 0
        with LogReader(self.root) as reader, self._reads.open("rb") as file:
            file.seek(self._reads_offset)
            data = file.read()
            whole = len(data) // _READ_ROW.size * _READ_ROW.size
            self._reads_offset += whole
            for row, value in _READ_ROW.iter_unpack(data[:whole]):
                if row < 0:
                    self._fault(f"the reader's log shrank by {value} rows")
                elif row >= reader.length:
                    self._fault(f"row {row} was seen by the reader and is gone")
                elif self._sums.get(row, value) != value:
                    self._fault(f"row {row} was seen by the reader with another content")
        return whole // _READ_ROW.size

    def _check(self, start: int) -> int:
        """Read rows [start, length) back; return the log's length."""
        with LogReader(self.root) as reader:
            acknowledged, length = len(self._sums), reader.length
            if length < acknowledged:
                self._fault(f"rows {length} to {acknowledged} were acknowledged and are gone")
            if length > acknowledged + 1:
                self._fault(f"rows {acknowledged} to {length} were never appended")
            start = min(start, length)
            sums = checksums(reader, start, length)
            lost = {row for d in reader.damage for row in range(d.start, d.stop)}
            for row, read in enumerate(sums, start):
                if row in lost:
                    if self._sums.get(row, -1) >= 0:
                        self._fault(f"row {row} is lost without a cause: {reader.damage[0]}")
                    self._sums[row] = -1
                elif self._sums.setdefault(row, read) != read:
                    self._fault(f"row {row} is not what was appended")
            self._check_places(reader, lost)
            self.result.rows, self.result.episodes = length, len(reader.episodes)
            self.result.lost_rows = len(lost)
            return length

    def _check_places(self, reader: LogReader, lost: set[int]) -> None:
        """Every row says where it belongs: its number, its step, the first row of its episode."""
        for start, length, complete in reader.episodes.tolist():
            if not lost.isdisjoint(range(start, start + length)):
                continue
            place = reader.read("proprio", start, start + length)
            rows = np.arange(start, start + length)
            right = np.stack([rows, rows - start, np.full(length, start)], axis=1)
            if not np.array_equal(place, right):
                self._fault(f"episode of rows {start} to {start + length} is shifted or doubled")
            if complete != bool(reader.read("is_last", start + length - 1, start + length)[0]):
                self._fault(f"episode of rows {start} to {start + length}: complete={complete}")

    def _fault(self, what: str) -> None:
        self.result.faults.append(f"after kill {len(self.result.lives)}: {what}")


def _spec(config: KillConfig, number: int) -> LogSpec:
    """What the writer of this number records: after each fifth of the writers one field more."""
    added = number * (len(LATER) + 1) // config.kills
    return make_spec(config.frame, config.rate_hz, min(added, len(LATER)))


def _follow(root: Path, rows_file: Path) -> None:
    """The reader process: follow the log without end and write down every row that it read."""
    with LogReader(root) as reader, rows_file.open("ab", buffering=0) as file:
        at = reader.first
        while True:
            reader.refresh()
            if reader.length < at:
                file.write(_READ_ROW.pack(-1, at - reader.length))
            sums = checksums(reader, at, reader.length)
            file.write(b"".join(_READ_ROW.pack(at + i, value) for i, value in enumerate(sums)))
            at = reader.length
            time.sleep(0.002)


def _fork(work: Callable[[], None], close: int | None = None) -> int:
    """Run `work` in a child process, which ends with it; return its id."""
    child = os.fork()
    if child:
        return child
    _end_with(work, close)


def _end_with(work: Callable[[], None], close: int | None) -> NoReturn:
    code = 1
    try:
        if close is not None:
            os.close(close)
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
