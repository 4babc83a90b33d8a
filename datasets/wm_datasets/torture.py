"""Kill the writer of a log again and again, and look whether anything it promised is gone.

A writer process appends rows at 50 Hz or as fast as it can and tells, through a pipe, the checksum
of every row that append() took, and which rows are durable. It is killed with -9 at a random
moment, also while it opens, seals or repairs the log, while a reader process follows. Then every
row is read back. With `power_cut`, all that the writer had not synced is taken away as well.
After each fifth of the writers the log gets one field more: depth, float pictures, a camera, force.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.random import default_rng  # before any fork

from wm_datasets.damage import quiet
from wm_datasets.errors import LogSpecError
from wm_datasets.manifest import Manifest
from wm_datasets.powercut import Recorder, cut_power
from wm_datasets.reader import WAL_FOLDER, LogReader
from wm_datasets.sensor import SensorSpec
from wm_datasets.spec import Field, LogSpec, Source, VectorSpec
from wm_datasets.writer import LogWriter

_ACK = struct.Struct("<qIqd")  # row, its checksum, rows durable, when [s]; row -1: opened
_SEEN = struct.Struct("<qI")  # row, its checksum
_MAX_FAULTS = 100
_LATER: tuple[tuple[str, SensorSpec | tuple[int, int, int]], ...] = (  # added one by one
    ("depth", SensorSpec("uint16", (4, 6), "mm")),
    ("radiance", SensorSpec("float32", (3, 4, 2), "W/m^2/sr")),
    ("side", (5, 3, 3)),
    ("force", SensorSpec("float32", (6,), ("N",) * 3 + ("Nm",) * 3)),
)


@dataclass(frozen=True)
class TortureConfig:
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
class TortureResult:
    """What was found; the log kept its promises when `faults` is empty."""

    config: TortureConfig
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
        seen = sum(life.seen for life in self.lives)
        told = sum(life.acknowledged for life in self.lives)
        return (
            f"{len(self.lives)} {how}, {told} rows acknowledged, "
            f"{self.rows} rows in {self.episodes} episodes read back bit for bit, "
            f"{len(self.faults)} faults; reopened within {max(opened, default=0.0):.2f} s"
            + (power if self.config.power_cut else f", {seen} rows seen by the reader")
        )


def torture(
    path: str | Path,
    config: TortureConfig,
    progress: Callable[[Life, int], None] = lambda life, faults: None,
) -> TortureResult:
    """Run it on a new log at `path`; progress(life, faults so far) is called after every kill."""
    root = Path(path)
    if root.exists() and any(root.iterdir()):
        raise LogSpecError(f"{root} exists; torture makes a log of its own, give a new path")
    if config.kills < 1:
        raise LogSpecError(f"kills must be >= 1, got {config.kills}")
    with quiet():
        return _Torture(root.absolute(), config).run(progress)


class _Torture:
    def __init__(self, root: Path, config: TortureConfig) -> None:
        self.root, self.config, self.spec = root, config, _spec(config, 0)
        self.result = TortureResult(config)
        self._chance = random.Random(config.seed)
        self._sums: dict[int, int] = {}  # row -> checksum, of all rows that must be there
        self._times: dict[int, float] = {}
        self._seen, self._seen_at = root.with_name(root.name + ".seen"), 0
        self._journal = root.with_name(root.name + ".journal")
        self._stash = root.with_name(root.name + ".stash")
        _create(root, self.spec, config.segment_rows)

    def run(self, progress: Callable[[Life, int], None]) -> TortureResult:
        begin = time.monotonic()
        self._seen.unlink(missing_ok=True)
        reader = None if self.config.power_cut else _fork(lambda: _follow(self.root, self._seen))
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
            self._seen.unlink(missing_ok=True)
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
        seen = self._check_seen()
        found = self._check(first if number % 10 else 0)
        return Life(
            number, rate_hz, lived_s, opened_s, first, acknowledged - first, durable, found,
            len(taken), max(taken, default=0.0), seen,
        )  # fmt: skip

    def _run_writer(self, number: int, rate_hz: float, lived_s: float) -> tuple[float | None, int]:
        """Start, listen, kill; return the seconds until the log was open, and rows durable."""
        mine, theirs = os.pipe()
        begin = time.monotonic()
        child = _fork(lambda: self._write(number, rate_hz, theirs), close=mine)
        os.close(theirs)
        heard, killed, rest = [], False, b""
        while True:
            left = begin + lived_s - time.monotonic()
            if left <= 0 and not killed:
                os.kill(child, signal.SIGKILL)
                killed = True
            if select.select([mine], [], [], None if killed else max(left, 0.0))[0]:
                data = os.read(mine, 1 << 16)
                if not data:
                    break
                rest += data
                whole = len(rest) // _ACK.size * _ACK.size
                heard += list(_ACK.iter_unpack(rest[:whole]))
                rest = rest[whole:]
        os.close(mine)
        if not killed:  # it ended by itself: at its last row, or by an error
            if os.waitpid(child, 0)[1]:
                self._fault(f"writer {number} failed by itself, see its traceback")
        else:
            os.waitpid(child, 0)
        opened_s, durable = None, 0
        for row, checksum, safe, when in heard:
            durable = max(durable, safe)
            if row < 0:
                opened_s = when - begin if opened_s is None else opened_s
            elif row != len(self._sums):
                self._fault(f"writer {number}: row {row} follows row {len(self._sums) - 1}")
            else:
                self._sums[row], self._times[row] = checksum, when
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
                row = _row(self.config, self.spec, writer.length, step, start, step == rows - 1)
                writer.append(row)
                told = _ACK.pack(
                    writer.length - 1, _checksum(self.spec, row), writer.durable, time.monotonic()
                )
                os.write(pipe, told)
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

    def _check_seen(self) -> int:
        """What the reader has seen must be what was written; return how many rows are new."""
        if self.config.power_cut:
            return 0
        with LogReader(self.root) as reader, self._seen.open("rb") as file:
            file.seek(self._seen_at)
            data = file.read()
            whole = len(data) // _SEEN.size * _SEEN.size
            self._seen_at += whole
            for row, checksum in _SEEN.iter_unpack(data[:whole]):
                if row < 0:
                    self._fault(f"the reader's log shrank by {checksum} rows")
                elif row >= reader.length:
                    self._fault(f"row {row} was seen by the reader and is gone")
                elif self._sums.get(row, checksum) != checksum:
                    self._fault(f"row {row} was seen by the reader with another content")
        return whole // _SEEN.size

    def _check(self, start: int) -> int:
        """Read rows [start, length) back; return the log's length."""
        with LogReader(self.root) as reader:
            acknowledged, length = len(self._sums), reader.length
            if length < acknowledged:
                self._fault(f"rows {length} to {acknowledged} were acknowledged and are gone")
            if length > acknowledged + 1:
                self._fault(f"rows {acknowledged} to {length} were never appended")
            start = min(start, length)
            sums = _checksums(reader, start, length)
            lost = {row for d in reader.damage for row in range(d.start, d.stop)}
            for row, checksum in enumerate(sums, start):
                if row in lost:
                    if self._sums.get(row, -1) >= 0:
                        self._fault(f"row {row} is lost without a cause: {reader.damage[0]}")
                    self._sums[row] = -1
                elif self._sums.setdefault(row, checksum) != checksum:
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


def _spec(config: TortureConfig, number: int) -> LogSpec:
    """What the writer of this number records: after each fifth of the writers one field more."""
    place = VectorSpec(("row", "step", "episode"), ("1",) * 3, (0,) * 3, (float("inf"),) * 3)
    hand = VectorSpec(("x", "y"), ("m", "m"), (-1, -1), (1, 1))
    cameras = {"front": (config.frame, config.frame, 3), "wrist": (4, 6, 3)}
    sensors: dict[str, SensorSpec] = {}
    for name, more in _LATER[: number * (len(_LATER) + 1) // config.kills]:
        if isinstance(more, SensorSpec):
            sensors[name] = more
        else:
            cameras[name] = more
    return LogSpec("torture", "none", 1 / config.rate_hz, cameras, place, hand, sensors=sensors)


def _create(root: Path, spec: LogSpec, segment_rows: int) -> None:
    """Make an empty log with small segments."""
    manifest = replace(Manifest.new(spec), segment_rows=segment_rows)
    root.mkdir(parents=True, exist_ok=True)
    manifest.create_folders(root)
    (root / WAL_FOLDER).mkdir()
    manifest.commit(root)


def _row(
    config: TortureConfig, spec: LogSpec, number: int, step: int, start: int, last: bool
) -> dict[str, Any]:
    """Row `number` of the episode that begins with row `start`."""
    rng = default_rng((config.seed, number))
    action = np.zeros(2, np.float32) if last else rng.uniform(-1, 1, 2).astype(np.float32)
    observed = {
        name: _noise(field, rng)
        for name, field in spec.fields.items()
        if name.startswith(("image/", "sensor/"))
    }
    return {
        **observed,
        "proprio": np.array([number, step, start], np.float32),
        "action": action,
        "commanded": action,
        "reward": np.float32(0 if last else number % 7),
        "is_first": step == 0,
        "is_last": last,
        "is_terminal": False,
        "success": number % 3 == 0,
        "stamp": round((number + 1) * 1e9 / config.rate_hz),
        "source": Source.RANDOM,
        "weights": number % 1000,
    }


def _noise(field: Field, rng: np.random.Generator) -> np.ndarray:
    """One row of a camera or sensor, which no compression makes small."""
    if field.dtype.kind == "f":
        return rng.normal(0, 100, field.shape).astype(field.dtype)
    return rng.integers(0, np.iinfo(field.dtype).max, field.shape, field.dtype, endpoint=True)


def _checksum(spec: LogSpec, row: Mapping[str, Any]) -> int:
    checksum = 0
    for name, f in spec.fields.items():
        checksum = zlib.crc32(np.asarray(row[name], f.dtype).tobytes(), checksum)
    return checksum


def _checksums(reader: LogReader, start: int, stop: int) -> list[int]:
    """The checksum of every row, over the fields that it has; that of a lost one is of zeros."""
    sums = [0] * (stop - start)
    for name in reader.spec.fields:
        begin = min(max(start, reader.since(name)), stop)
        values = reader.read_around(name, begin, stop)
        for i, value in enumerate(values, begin - start):
            sums[i] = zlib.crc32(value.tobytes(), sums[i])
    return sums


def _follow(root: Path, seen: Path) -> None:
    """The reader process: follow the log for ever and write down every row seen."""
    with LogReader(root) as reader, seen.open("ab", buffering=0) as file:
        at = reader.first
        while True:
            reader.refresh()
            if reader.length < at:
                file.write(_SEEN.pack(-1, at - reader.length))
            sums = _checksums(reader, at, reader.length)
            file.write(b"".join(_SEEN.pack(at + i, value) for i, value in enumerate(sums)))
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
