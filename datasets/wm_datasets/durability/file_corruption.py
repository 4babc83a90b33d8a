"""Break every kind of file of a log in every way, again and again, and count what it costs.

Each trial breaks one file of a fresh copy of a log as a killed writer leaves it (most rows sealed,
the newest in segments), then verifies it, reads all that is left and holds it bit for bit against
the log as it was, draws batches, and lets a writer append.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogError
from wm_datasets.log.reader import LogReader
from wm_datasets.log.verify import verify
from wm_datasets.log.writer import LogWriter
from wm_datasets.sampling.sampler import Sampler
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, Source, VectorSpec
from wm_datasets.storage.damage import episodes_hit, quiet

EPISODE_ROWS = 25
_BOX = VectorSpec(("x", "y"), ("m", "m"), (-1, -1), (1, 1))
_OLD = LogSpec("arm", "none", 0.05, {"front": (32, 32, 3)}, _BOX, _BOX)
_SPEC = replace(_OLD, sensors={"depth": SensorSpec("uint16", (24, 32), "mm")})  # from a third on

FILES = {  # kind -> pattern in the log's folder
    "frames": "image/front/c.*",
    "depth": "sensor/depth/c.*",
    "numbers": "[!eis]*/c.*",
    "flags": "is_*/c.*",
    "episode table": "episode/*/c.*",
    "root zarr.json": "zarr.json",
    "root's copy": "zarr.json.copy",
    "an array's zarr.json": "*/**/zarr.json",
    "segment": "wal/*.seg",
    "mark of durable rows": "wal/durable",
}


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _blank(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data)) // 512 * 512
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)


def _cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _remove(path: Path, chance: random.Random) -> None:
    path.unlink()


WAYS: dict[str, Callable[[Path, random.Random], None]] = {
    "one bit flipped": _flip,
    "one sector zero": _blank,
    "cut short": _cut,
    "missing": _remove,
}


@dataclass(frozen=True)
class Trial:
    """What one broken file did.

    changed: the file differs from what it was (a zero sector may have been zero before).
    lost: rows that are not there any more. named: verify() found a fault. wrong: a row was read
    that is not what was appended. over: episodes were lost that hold no lost row. went_on: the
    next writer appended an episode and lost no more rows.
    """

    changed: bool
    lost: int
    episodes: int
    named: bool
    wrong: bool
    over: bool
    went_on: bool
    error: str = ""

    @property
    def kept(self) -> bool:
        """Were the promises kept? Damage is named, read around, and costs its own episodes."""
        named = self.named or not self.lost
        return named and not (self.wrong or self.over or self.error) and self.went_on


@dataclass(frozen=True)
class Outcome:
    """All trials of one kind of file and one way to break it."""

    file: str
    way: str
    trials: int
    harmless: int  # no row lost
    named: int
    mean_rows: float  # lost
    most_episodes: int  # lost
    broken_promises: int
    errors: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def corrupt_files(
    trials: int = 20,
    episodes: int = 60,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Run `trials` of every kind of file and way; progress(done, total) counts outcomes."""
    chance, outcomes = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder, quiet():
        whole = _make(Path(folder), episodes, seed)
        truth = _Contents(whole)
        for kind, pattern in FILES.items():
            for way in WAYS:
                trials_run = [
                    _try(truth, Path(folder) / "copy", pattern, way, chance) for _ in range(trials)
                ]
                outcomes.append(_outcome(kind, way, trials_run))
                progress(len(outcomes), len(FILES) * len(WAYS))
    return outcomes


class _Contents:
    """All rows of a log, which of them are lost, and which episodes are whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with LogReader(path) as log:
            fields = log.spec.fields
            self.rows = {n: log.read_around(n, log.first, log.length) for n in fields}
            self.lost = {row for d in log.damage for row in range(d.start, d.stop)}
            self.table, self.length = log.episodes, log.length
            self.hit = episodes_hit(log.episodes, log.damage)
            self.intact = log.intact

    def differs(self, truth: _Contents) -> bool:
        """Is a row there that is not what it was?"""
        count = min(self.length, truth.length)
        kept = [row for row in range(count) if row not in self.lost]
        return any(
            not np.array_equal(truth.rows[name][kept], values[kept])
            for name, values in self.rows.items()
        )

    def lost_of(self, truth: _Contents) -> set[int]:
        return {r for r in self.lost if r < truth.length} | set(range(self.length, truth.length))

    def lost_episodes(self, truth: _Contents) -> set[int]:
        """First rows of the episodes of `truth` that are not whole here."""
        whole = {(s, n) for s, n, _ in self.intact.tolist()}
        return {s for s, n, _ in truth.table.tolist() if (s, n) not in whole}


def _try(truth: _Contents, copy: Path, pattern: str, way: str, chance: random.Random) -> Trial:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(truth.path, copy)
    path = chance.choice(sorted(copy.glob(pattern)))
    before = path.read_bytes()
    WAYS[way](path, chance)
    changed = not path.exists() or path.read_bytes() != before
    try:
        named = bool(verify(copy).faults)
        contents = _Contents(copy)
        lost, episodes = contents.lost_of(truth), contents.lost_episodes(truth)
        mine = {s for s, n, _ in truth.table.tolist() if not lost.isdisjoint(range(s, s + n))}
        with LogReader(copy) as log:
            if contents.intact["length"].max(initial=0) >= 10:  # what else is there to draw?
                Sampler(
                    log, batch=16, length=10, seed=0, fields=[*_OLD.fields], disk_bytes=0
                ).sample()
        with LogWriter(copy, _SPEC) as writer:
            _append_episode(writer, np.random.default_rng(0))
        after = _Contents(copy)
        went_on = after.lost <= lost and bool(after.table["complete"][-1])
        over = bool(episodes - mine)
        return Trial(
            changed, len(lost), len(episodes), named, contents.differs(truth), over, went_on
        )
    except (LogError, OSError, ValueError) as error:
        return Trial(changed, 0, 0, False, False, False, False, f"{path.name}: {error!r}")


def _outcome(kind: str, way: str, trials: list[Trial]) -> Outcome:
    return Outcome(
        file=kind,
        way=way,
        trials=len(trials),
        harmless=sum(t.lost == 0 for t in trials),
        named=sum(t.named for t in trials),
        mean_rows=round(float(np.mean([t.lost for t in trials])), 1),
        most_episodes=max(t.episodes for t in trials),
        broken_promises=sum(not t.kept for t in trials),
        errors=tuple(t.error for t in trials if t.error),
    )


def _make(folder: Path, episodes: int, seed: int) -> Path:
    """A log as a killed writer leaves it: whole segments sealed, the rest in the last one."""
    rng = np.random.default_rng(seed)
    written, left = folder / "written", folder / "left"
    with LogWriter(written, _OLD) as writer:
        for _ in range(episodes // 3):
            _append_episode(writer, rng)
    writer = LogWriter(written, _SPEC, durable_s=1000.0)
    for _ in range(episodes - episodes // 3):
        _append_episode(writer, rng)
    while list((written / "wal").glob("*.seg"))[1:]:
        time.sleep(0.01)
    writer.flush()
    shutil.copytree(written, left)
    writer.close()
    return left


def _append_episode(writer: LogWriter, rng: np.random.Generator) -> None:
    depth = writer.spec.sensors.get("depth")
    for step in range(EPISODE_ROWS):
        last = step == EPISODE_ROWS - 1
        action = rng.uniform(-1, 1, 2).astype(np.float32) * (not last)
        more = {"sensor/depth": rng.integers(0, 65536, depth.shape, np.uint16)} if depth else {}
        writer.append(more | {
            "image/front": rng.integers(0, 256, (32, 32, 3), np.uint8),
            "proprio": rng.uniform(-1, 1, 2), "action": action, "commanded": action,
            "reward": 0.0 if last else rng.random(), "is_first": step == 0, "is_last": last,
            "is_terminal": False, "success": False, "stamp": 50_000_000 * (writer.length + 1),
            "source": Source.RANDOM, "weights": -1,
        })  # fmt: skip
