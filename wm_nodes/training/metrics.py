"""Training metrics, averaged and resumable, and the speed of training."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_nodes.atomic_file import replacing
from wm_nodes.csv_table import Table
from wm_nodes.training.board import Board

COLUMNS = ("time", "update", "metric", "value")


class Speed:
    """Updates per second over about the last `window_s` [s]."""

    def __init__(self, window_s: float = 30.0) -> None:
        self.window_s = window_s
        self._times: list[float] = []

    def tick(self) -> None:
        now = time.monotonic()
        self._times = [t for t in self._times if now - t < self.window_s] + [now]

    @property
    def rate(self) -> float:
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)


class MetricsRecorder:
    """Averages of metrics as rows of metrics/train.csv and as TensorBoard scalars.

    A killed run resumes from its checkpoint, and rows may be newer than that: :meth:`resume`
    removes those, so that each update is reported once and averages are those of a run without
    interruption.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.every = every
        self._table = Table(folder / "train.csv")
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._board: Board | None = None
        self._purge_step: int | None = None
        self._folder = folder

    def add(self, update: int, metrics: Mapping[str, float]) -> None:
        """Take in one update's metrics; write a row each ``every`` updates."""
        for name, value in metrics.items():
            self._sums[name].append(value)
        if update % self.every == 0:
            self.write(update, {k: float(np.mean(v)) for k, v in self._sums.items()})
            self._sums.clear()

    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Write these values now; those that are not finite are left out."""
        values = {k: v for k, v in values.items() if math.isfinite(v)}
        if self._board is None:
            self._board = Board(self._folder / "tensorboard", self._purge_step)
        self._board.add(update, values)
        now = f"{time.time():.1f}"
        rows = ((now, update, name, f"{value:.6g}") for name, value in values.items())
        self._table.add(*(dict(zip(COLUMNS, row)) for row in rows))

    def state_dict(self) -> dict[str, Any]:
        """Return the values that are not in a row yet."""
        return {"sums": {name: list(values) for name, values in self._sums.items()}}

    def resume(self, update: int, state: Mapping[str, Any]) -> None:
        """Continue after ``update``: rows of later updates, and partial rows, are removed."""
        self._sums = defaultdict(list, {k: list(v) for k, v in state.get("sums", {}).items()})
        self.close()
        self._purge_step = update + 1
        path = self._table.path
        if not path.exists():
            return
        text = path.read_text()
        kept = "".join(_rows_until(text, update))
        if kept != text:
            with replacing(path) as aside:
                aside.write_text(kept)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _rows_until(text: str, update: int) -> Iterator[str]:
    """Yield the head and the whole rows of updates up to ``update``."""
    for number, line in enumerate(text.splitlines(keepends=True)):
        cells = line.split(",")
        whole = line.endswith("\n") and len(cells) == len(COLUMNS)
        if whole and (number == 0 or int(cells[1]) <= update):
            yield line
