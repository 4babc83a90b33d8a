"""Change one byte of one file of a log, again and again: what is read is right, or it is named.

The log is one that a killed writer has left. After each change it is read and verified; now and
then the next writer opens a copy and appends to it, and the copy is read.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wm_datasets.durability.file_corruption import FILES
from wm_datasets.durability.known_rows import (
    LATER,
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
from wm_datasets.storage.damage import quiet

_SEED, _SEALED, _LEFT, _EPISODE = 7, 48, 12, 6
_WRITER_EVERY = 10  # trials


@dataclass(frozen=True)
class FlipOutcome:
    """Trials on one kind of file: nothing was lost (`right`), or all that was is `named`."""

    file: str
    trials: int
    right: int
    named: int
    wrong: tuple[str, ...]


def flip_bytes(
    folder: Path,
    trials: int = 500,
    seed: int = 0,
    files: Mapping[str, str] = FILES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[FlipOutcome]:
    """Run `trials` on every kind of file of a log made in `folder`.

    `files` are patterns by kind; progress(done, total) counts trials.
    """
    chance = random.Random(seed)
    outcomes: list[FlipOutcome] = []
    with quiet():
        log = _Log(folder)
        for file, pattern in files.items():
            trials_run = []
            for number in range(trials):
                trials_run.append(log.flip(pattern, chance, go_on=number % _WRITER_EVERY == 0))
                progress(len(outcomes) * trials + number + 1, len(files) * trials)
            wrong = tuple(text for _, text in trials_run if text)
            right = sum(lost is False and not text for lost, text in trials_run)
            named = sum(lost is True and not text for lost, text in trials_run)
            outcomes.append(FlipOutcome(file, trials, right, named, wrong))
    shutil.rmtree(log.copy, ignore_errors=True)
    return outcomes


class _Log:
    def __init__(self, folder: Path) -> None:
        self.path, self.copy = folder / "whole", folder / "copy"
        self.spec = make_spec(6, 20.0, added=len(LATER))
        self.sums = leave_log(
            self.path, self.spec, _SEED, sealed=_SEALED, left=_LEFT, episode=_EPISODE
        )
        with LogReader(self.path) as reader:
            self.episodes = reader.episodes.tolist()

    def flip(self, pattern: str, chance: random.Random, *, go_on: bool) -> tuple[bool, str]:
        """Change a byte; return whether rows were lost, and what is wrong ('': nothing)."""
        path = chance.choice(sorted(self.path.glob(pattern)))
        whole = path.read_bytes()
        at = chance.randrange(len(whole))
        path.write_bytes(
            whole[:at] + bytes([whole[at] ^ chance.randrange(1, 256)]) + whole[at + 1 :]
        )
        try:
            lost, problem = self._read(self.path)
            if go_on and not problem:
                problem = self._go_on()
        except Exception as error:
            lost, problem = False, f"got {error!r}, expected a LogError"
        finally:
            path.write_bytes(whole)
        place = f"{path.relative_to(self.path)}, byte {at}"
        return lost, problem and f"{place}: {problem}"

    def _read(self, path: Path) -> tuple[bool, str]:
        """Hold all rows against what was appended; lost ones must be named."""
        try:
            faults = verify(path, rate_tolerance=1e9).faults
            with LogReader(path) as reader:
                sums = checksums(reader, reader.first, reader.length)
                lost = {row for d in reader.damage for row in range(d.start, d.stop)}
                episodes = reader.episodes.tolist()
        except LogError:
            return True, ""  # it names the file, and nothing was read
        for row, checksum_read in enumerate(sums):
            if row not in lost and self.sums.get(row, checksum_read) != checksum_read:
                return bool(lost), f"row {row} is not what was appended"
        missing = lost or len(sums) < len(self.sums)
        if missing and not faults:
            return True, "rows are gone and verify names no fault"
        if not missing and episodes[: len(self.episodes)] != self.episodes and not faults:
            return False, "the episodes are not what they were"
        return bool(missing), ""

    def _go_on(self) -> str:
        """Let a writer open a copy and append an episode."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.path, self.copy)
        try:
            with LogWriter(self.copy, self.spec) as writer:
                start = writer.length
                for step in range(_EPISODE):
                    row = make_row(
                        self.spec, _SEED, start + step, step, start, step == _EPISODE - 1
                    )
                    writer.append(row)
        except LogError:
            return ""  # it names the file; a log of another schema, say
        _, problem = self._read(self.copy)
        with LogReader(self.copy) as reader:
            sums = checksums(reader, start, start + _EPISODE)
        for step, known in enumerate(sums):
            row = make_row(self.spec, _SEED, start + step, step, start, step == _EPISODE - 1)
            if checksum(self.spec, row) != known:
                return f"row {start + step}, appended afterwards, is not what was appended"
        return problem and f"after the next writer: {problem}"
