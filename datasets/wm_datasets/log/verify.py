"""Is a log what it says? Every block is decoded, every row held against tables and clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogFormatError, LogRowError
from wm_datasets.log.reader import LogReader
from wm_datasets.log.recovery import MISSING
from wm_datasets.log.row_order import RATE_TOLERANCE
from wm_datasets.storage.damage import episodes_hit, known_rows
from wm_datasets.storage.damaged_copies import kept_aside
from wm_datasets.storage.file_reads import exists, retried
from wm_datasets.storage.index import read_table
from wm_datasets.storage.lock import is_locked
from wm_datasets.storage.manifest import ROOT, ROOT_COPY, load_manifest, read_json, read_root
from wm_datasets.storage.segment import (
    HEADER_BYTES,
    WAL_FOLDER,
    list_foreign,
    list_segments,
    read_mark,
    record_dtype,
    segment_path,
)

_ROWS = 4096  # read at a time, at most
_ROUNDING = 1e-6  # of a bound: the file has float32
_EMPTY_LAST = ("action", "commanded", "reward")  # zero in the last row of an episode


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with rows [start, stop), and the file it lies in.

    kind: damage, kept (a damaged file that a writer has kept aside), metadata, unfinished,
    episodes, stamp, rate, values, bounds
    """

    kind: str
    path: str
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}, rows {self.start} to {self.stop}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """What verify() read and its faults; `damaged` episodes hold lost rows, `values` are cells.

    `ignored` are files among the segments that are none by their names: no part of the log.
    """

    path: str
    first: int
    rows: int
    episodes: int
    damaged: int
    values: int
    faults: tuple[Fault, ...]
    ignored: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify(
    path: str | Path,
    *,
    rate_tolerance: float = RATE_TOLERANCE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Read all of a log, which may be in use, and name what is wrong with it.

    progress(done, total) is called with numbers of values read. A log of which not even the root
    makes sense raises LogFormatError; where the machine cannot read a file it is a LogReadError.
    """
    for _ in range(10):
        try:
            return _Check(Path(path), rate_tolerance, progress).report()
        except LogRowError:  # the capacity dropped rows meanwhile: look at what is left
            continue
    raise LogFormatError(
        f"{path}: its capacity drops rows faster than they can be read. Stop its writer first."
    )


class _Check:
    def __init__(
        self, root: Path, rate_tolerance: float, progress: Callable[[int, int], None]
    ) -> None:
        self._root, self._tolerance, self._progress = root, rate_tolerance, progress
        self._faults: list[Fault] = []
        self._in_use = is_locked(root)
        self._reader = LogReader(root)
        self._first, self._stop = self._reader.first, self._reader.length
        self._values = 0
        self._odd: list[tuple[str, int]] = []  # rows of float images that are not finite

    def report(self) -> Report:
        with self._reader as reader:
            columns = {name: self._read(name) for name in reader.spec.fields}
            for damage in reader.damage:
                self._add("damage", damage.path, damage.start, damage.stop, damage.reason)
            for path, start, stop in kept_aside(self._root):
                reason = (
                    "it was damaged and is kept aside unchanged. Delete it when you do not need it."
                )
                self._add("kept", path, start, stop, reason)
            self._check_metadata()
            self._check_tail()
            known = known_rows(reader.damage, self._first, self._stop)
            self._check_episodes(columns, known)
            self._check_clock(columns, known)
            self._check_values(columns, known)
            self._check_bounds(columns, known)
            hit = int(episodes_hit(reader.episodes, reader.damage).sum())
            rows, episodes = self._stop - self._first, len(reader.episodes)
        faults = tuple(sorted(self._faults, key=lambda f: (f.start, f.path)))
        foreign = tuple(map(str, list_foreign(self._root / WAL_FOLDER)))
        return Report(
            str(self._root), self._first, rows, episodes, hit, self._values, faults, foreign
        )

    def _add(self, kind: str, path: Path, start: int, stop: int, reason: str) -> None:
        self._faults.append(Fault(kind, str(path), int(start), int(stop), reason))

    def _read(self, name: str) -> np.ndarray:
        """Decode a whole field; return it, (n, ...), unless it is one of frames."""
        field = self._reader.spec.fields[name]
        chunk = load_manifest(self._root).chunks[name]
        keep = len(field.shape) < 2
        out = np.zeros((self._stop - self._first if keep else 0, *field.shape), field.dtype)
        at, total = self._first, (self._stop - self._first) * len(self._reader.spec.fields)
        while at < self._stop:
            end = min(self._stop, (at // chunk + max(1, _ROWS // chunk)) * chunk)
            part = out[at - self._first : end - self._first] if keep else None
            block = self._reader.read_around(name, at, end, part)
            if not keep and field.dtype.kind == "f":
                odd = ~np.isfinite(block.reshape(len(block), -1)).all(axis=1)
                self._odd += [(name, at + int(i)) for i in np.flatnonzero(odd)]
            self._values += end - at
            self._progress(self._values, total)
            at = end
        return out

    def _check_metadata(self) -> None:
        manifest = load_manifest(self._root)
        for name in (ROOT, ROOT_COPY):
            try:
                wrong = _find_wrong_root(self._root, name)
            except (LogFormatError, FileNotFoundError, ValueError) as error:
                wrong = str(error)
            if wrong and not (name == ROOT_COPY and not exists(self._root / name)):
                self._add("metadata", self._root / name, self._first, self._stop, wrong)
        for name, node in manifest.metadata().items():
            path = self._root / name / "zarr.json"
            try:
                content = read_json(path)
            except (FileNotFoundError, NotADirectoryError, ValueError) as error:
                self._add("metadata", path, self._first, manifest.sealed, str(error))
                continue
            shape = content.get("shape") if isinstance(content, dict) else None
            if self._is_ahead(name, shape, node.get("shape")):
                content["shape"] = node["shape"]
            if content != node:
                reason = "it differs from what the log's root says of this array"
                self._add("metadata", path, self._first, manifest.sealed, reason)

    def _is_ahead(self, name: str, shape: object, committed: list[int] | None) -> bool:
        """Does an array's shape count rows of a commit that is under way, or was when its writer
        was killed? They lie in segments: there are no more than the log's newest row or episode."""
        if not (isinstance(shape, list) and shape and committed) or type(shape[0]) is not int:
            return False
        if shape[1:] != committed[1:] or shape[0] <= committed[0]:
            return False
        with LogReader(self._root) as newest:
            dropped = load_manifest(self._root).first_episode
            episodes = dropped + len(newest.episodes)
            return shape[0] <= (episodes if name.startswith("episode/") else newest.length)

    def _check_tail(self) -> None:
        """Bytes of an unfinished write: normal while a writer runs, dropped by the next one."""
        if self._in_use:
            return
        size = record_dtype(self._reader.spec.fields).itemsize
        for start in list_segments(self._root / WAL_FOLDER):
            path = segment_path(self._root / WAL_FOLDER, start)
            rows = max(0, self._stop - start)
            try:
                torn = retried(path, path.stat).st_size - HEADER_BYTES - rows * size
            except FileNotFoundError:  # a writer has begun and sealed it
                continue
            if start >= self._reader.sealed and torn > 0:
                reason = f"{torn} bytes of an unfinished write. The next writer drops them."
                self._add("unfinished", path, self._stop, self._stop, reason)
        if (mark := read_mark(self._root / WAL_FOLDER)) > self._stop:
            path = segment_path(self._root / WAL_FOLDER, self._stop)
            self._add("damage", path, self._stop, mark, MISSING)

    def _check_episodes(self, columns: dict[str, np.ndarray], known: np.ndarray) -> None:
        """The episode table against the rows' own flags."""
        manifest = load_manifest(self._root)
        path = self._root / "episode"
        try:
            table = read_table(self._root, manifest)
        except LogFormatError:
            table = np.zeros(0, self._reader.episodes.dtype)  # named as damage already
        starts, ends = (table["start"], table["start"] + table["length"])
        inside = (starts >= self._first) & (ends <= self._stop)
        starts, ends = starts[inside] - self._first, ends[inside] - self._first
        for begin, end, complete in zip(starts, ends, table["complete"][inside]):
            flags = columns["is_first"][begin:end], columns["is_last"][begin:end]
            if not known[begin:end].all():
                continue
            wrong = [
                (not flags[0][0], "it does not begin with is_first"),
                (flags[0][1:].any(), "is_first stands in its middle"),
                (flags[1][:-1].any(), "is_last stands in its middle"),
                (end < len(known) and bool(flags[1][-1]) != complete,
                 f"got complete={bool(complete)} in its table, expected {bool(flags[1][-1])} as "
                 "is_last of its last row"),
            ]  # fmt: skip
            for bad, reason in wrong:
                if bad:
                    self._add("episodes", path, begin + self._first, end + self._first, reason)

    def _check_clock(self, columns: dict[str, np.ndarray], known: np.ndarray) -> None:
        """Stamps grow within an episode, one declared control period at a time."""
        path, stamps = self._root / "stamp", columns["stamp"]
        period = self._reader.spec.control_period_s
        for start, length, _ in self._reader.episodes.tolist():
            begin = max(0, start - self._first)
            end = min(len(stamps), start + length - self._first)
            steps = np.diff(stamps[begin:end])
            if not known[begin:end].all() or not len(steps):
                continue
            for at in np.flatnonzero(steps <= 0):
                row = self._first + begin + int(at) + 1
                reason = (
                    f"got {stamps[row - self._first]} ns after {stamps[begin + at]} ns, expected "
                    "growing stamps"
                )
                self._add("stamp", path, row, row + 1, reason)
            real = float(steps.mean()) * 1e-9
            if abs(real - period) > self._tolerance * period:
                reason = (
                    f"time of one step: got {real:.4g} s on average, expected {period:g} s as "
                    "declared"
                )
                self._add("rate", path, start, start + length, reason)

    def _check_values(self, columns: dict[str, np.ndarray], known: np.ndarray) -> None:
        """Numbers are finite, and the row of is_last carries no action."""
        for name, values in columns.items():
            if values.ndim > 2 or not len(values):
                continue
            flat = values.reshape(len(values), -1)
            bad = np.zeros(len(values), bool)
            if values.dtype.kind == "f":
                bad |= ~np.isfinite(flat).all(axis=1)
            if name in _EMPTY_LAST:
                bad |= columns["is_last"] & flat.any(axis=1)
            for at in np.flatnonzero(bad & known):
                row, reason = self._first + int(at), "not finite, or not zero in the row of is_last"
                self._add("values", self._root / name, row, row + 1, reason)
        for name, row in self._odd:
            self._add("values", self._root / name, row, row + 1, "not finite")

    def _check_bounds(self, columns: dict[str, np.ndarray], known: np.ndarray) -> None:
        """Executed actions lie within the bounds that the spec declares for them."""
        vector = self._reader.spec.action
        if vector is None:
            return
        actions, names = columns["action"].astype(np.float64), vector.names
        low, high = np.asarray(vector.low), np.asarray(vector.high)
        size = np.maximum(*(np.where(np.isfinite(b), np.abs(b), 0) for b in (low, high)))
        beyond = np.maximum(low - actions, actions - high) - _ROUNDING * size  # (n, A)
        beyond[~known | columns["is_last"]] = -np.inf
        rows = np.flatnonzero((beyond > 0).any(axis=1))
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []:
            at, d = divmod(int(beyond[run].argmax()), len(names))
            reason = (
                f"'{names[d]}': got {actions[run[at], d]:.4g}, expected {low[d]:g} to {high[d]:g} "
                "as declared"
            )
            start, stop = self._first + int(run[0]), self._first + int(run[-1]) + 1
            self._add("bounds", self._root / "action", start, stop, reason)


def _find_wrong_root(root: Path, name: str) -> str:
    """Hold the root, or its copy, against what it says of itself; '' when it is right."""
    manifest, content = read_root(root, name), read_json(root / name)
    if content["attributes"]["wm_log"]["sealed"] != manifest.sealed:
        return ""  # committed again between the two
    right = manifest.root(manifest.metadata())
    differ = [
        key for key in {*right, *content} - {"attributes"} if right.get(key) != content.get(key)
    ]
    return f"its {', '.join(sorted(differ))} differ from the log's arrays" if differ else ""
