"""What learning measures, as rows of a CSV and as TensorBoard scalars; and how fast it is."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from wm_nodes.atomic_file import replacing

HEAD = ("time", "update", "metric", "value")


class Speed:
    """Updates per second over the last half minute or so."""

    def __init__(self, memory_s: float = 30.0) -> None:
        self.memory_s = memory_s
        self._times: list[float] = []

    def tick(self) -> None:
        now = time.monotonic()
        self._times = [t for t in self._times if now - t < self.memory_s] + [now]

    @property
    def rate(self) -> float:
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)


class MetricsRecorder:
    """Averages of metrics as rows of metrics/train.csv and as TensorBoard scalars.

    Rows may be ahead of the checkpoint that a killed run goes on from: :meth:`resume` takes those
    back, so that each update is reported once and averages are what they would have been.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path = folder / "train.csv"
        self.every = every
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._board: SummaryWriter | None = None
        self._purge: int | None = None  # TensorBoard forgets this step and later ones
        self._folder = folder

    def add(self, update: int, metrics: Mapping[str, float]) -> None:
        """Take in one update's metrics; write a row each ``every`` updates."""
        for name, value in metrics.items():
            self._sums[name].append(value)
        if update % self.every == 0:
            self.write(update, {k: float(np.mean(v)) for k, v in self._sums.items()})
            self._sums.clear()

    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Write values as they are, now; those that are not finite are left out."""
        values = {k: v for k, v in values.items() if math.isfinite(v)}
        if self._board is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            board = str(self._folder / "tensorboard")
            self._board = SummaryWriter(board, purge_step=self._purge)
        for name, value in values.items():
            self._board.add_scalar(name, value, update)
        text = io.StringIO()
        rows = csv.writer(text)
        if not self.path.exists():
            rows.writerow(HEAD)
        rows.writerows([f"{time.time():.1f}", update, k, f"{v:.6g}"] for k, v in values.items())
        with self.path.open("a") as file:
            file.write(text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """What is measured and not yet in a row."""
        return {"sums": {name: list(values) for name, values in self._sums.items()}}

    def resume(self, update: int, state: Mapping[str, Any]) -> None:
        """Go on after ``update``: rows of later updates, and half a row, are taken back."""
        self._sums = defaultdict(list, {k: list(v) for k, v in state.get("sums", {}).items()})
        self.close()
        self._purge = update + 1
        if not self.path.exists():
            return
        text = self.path.read_text()
        kept = "".join(_rows_until(text, update))
        if kept != text:
            with replacing(self.path) as aside:
                aside.write_text(kept)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _rows_until(text: str, update: int) -> Iterator[str]:
    """Yield the head and the whole rows of updates up to ``update``."""
    for number, line in enumerate(text.splitlines(keepends=True)):
        cells = line.split(",")
        whole = line.endswith("\n") and len(cells) == len(HEAD)
        if whole and (number == 0 or int(cells[1]) <= update):
            yield line
