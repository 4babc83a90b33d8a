"""What a log holds, in one object: for `wm log info` and reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.log.reader import LogReader
from wm_datasets.spec import LogSpec, Source
from wm_datasets.storage.damage import episodes_hit
from wm_datasets.storage.file_reads import retried
from wm_datasets.storage.segment import WAL_FOLDER, list_foreign


@dataclass(frozen=True)
class Tally:
    """Episodes of one kind, their successes, and the mean of their returns (None: no rewards)."""

    episodes: int
    successes: int
    mean_return: float | None

    @property
    def success_rate(self) -> float:
        return self.successes / self.episodes if self.episodes else 0.0


@dataclass(frozen=True)
class FieldSummary:
    """One array: its row, and the bytes of its files; newest rows lie in segments instead.

    Rows below `absent_before` were recorded before the log had the field.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes_on_disk: int
    absent_before: int


@dataclass(frozen=True)
class LogSummary:
    """A log as it stood when described.

    `steps` counts actions. An episode counts for the source and the weights version of its first
    row, and is a success if any of its rows is. Episodes that hold a lost row are counted in
    `episodes` and `damaged`, and nowhere else: who acted in them is not known for sure. `returns`
    has one sum of rewards for each of the others, oldest first, incomplete ones included.
    `evaluation` episodes were recorded to evaluate a policy, and are never learned from. `ignored`
    are files among the segments that are none by their names.
    """

    path: Path
    spec: LogSpec
    first: int
    rows: int
    sealed_rows: int
    steps: int
    seconds: float
    episodes: int
    complete: int
    damaged: int
    evaluation: int
    bytes_on_disk: int
    fields: dict[str, FieldSummary]
    total: Tally
    per_source: dict[str, Tally]
    per_weights: dict[int, Tally]
    returns: np.ndarray = field(repr=False)
    ignored: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON, with the returns reduced to their quartiles."""
        data = asdict(self) | {"path": str(self.path), "spec": self.spec.to_json()}
        data["per_weights"] = {str(k): v for k, v in data["per_weights"].items()}
        names = ("min", "q25", "median", "q75", "max")
        quartiles = np.quantile(self.returns, np.linspace(0, 1, 5)) if len(self.returns) else []
        data["returns"] = dict(zip(names, map(float, quartiles)))
        return data


def describe(log: LogReader | str | Path) -> LogSummary:
    """Summarise a log; it may be in use, and the answer holds for the rows seen at the start."""
    if not isinstance(log, LogReader):
        with LogReader(log) as reader:
            return describe(reader)
    table = log.episodes
    starts = table["start"] - log.first
    success = _per_episode(log, "success", starts) > 0
    returns = _per_episode(log, "reward", starts) if "reward" in log.spec.fields else None
    source = _at_starts(log, "source", starts)
    weights = _at_starts(log, "weights", starts)
    whole = ~episodes_hit(table, log.damage)  # of what was read here
    rows = log.length - log.first
    steps = rows - int(table["complete"].sum())
    sizes = {name: _bytes(log.path / name) for name in log.spec.fields}
    return LogSummary(
        path=log.path,
        spec=log.spec,
        first=log.first,
        rows=rows,
        sealed_rows=log.sealed - log.first,
        steps=steps,
        seconds=steps * log.spec.control_period_s,
        episodes=len(table),
        complete=int(table["complete"].sum()),
        damaged=int((~whole).sum()),
        evaluation=int(log.is_evaluation(table).sum()),
        bytes_on_disk=_bytes(log.path),
        fields={
            name: FieldSummary(f.dtype.name, f.shape, sizes[name], log.since(name))
            for name, f in log.spec.fields.items()
        },
        total=_tally(success, returns, whole),
        per_source={
            Source(int(s)).name.lower(): _tally(success, returns, whole & (source == s))
            for s in np.unique(source[whole])
        },
        per_weights={
            int(v): _tally(success, returns, whole & (weights == v))
            for v in np.unique(weights[whole])
        },
        returns=np.zeros(0) if returns is None else returns[whole],
        ignored=tuple(map(str, list_foreign(log.path / WAL_FOLDER))),
    )


def _tally(success: np.ndarray, returns: np.ndarray | None, chosen: np.ndarray) -> Tally:
    count = int(chosen.sum())
    mean = None if returns is None or not count else float(returns[chosen].mean())
    return Tally(count, int(success[chosen].sum()), mean)


def _per_episode(log: LogReader, name: str, starts: np.ndarray) -> np.ndarray:
    """Sum a field over each episode: (E,) float."""
    values = _whole(log, name).astype(np.float64)
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)


def _at_starts(log: LogReader, name: str, starts: np.ndarray) -> np.ndarray:
    values: np.ndarray = _whole(log, name)[starts]
    return values


def _whole(log: LogReader, name: str) -> np.ndarray:
    return log.read_around(name, log.first, log.length)


def _bytes(folder: Path) -> int:
    return retried(folder, lambda: sum(_sizes(folder)))


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.stat().st_size
        except FileNotFoundError:  # the writer moved on
            continue
