"""Medians of repeated runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from wm_nodes.checks.bench.rows import Row


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one entry per call.

    Work on one thread is measured in CPU time of this process: its time on an idle core, also
    while the machine is busy. With several threads it is wall-clock time.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    threads: int = 1

    @property
    def seconds(self) -> tuple[float, ...]:
        """CPU times of one thread, wall-clock times of several."""
        return self.cpu_s if self.threads == 1 else self.wall_s

    @property
    def typical(self) -> float:
        """Their median."""
        return float(np.median(self.seconds))

    def row(self, group: str, name: str, *, goal_ms: float | None = None, note: str = "") -> Row:
        """The latency in milliseconds."""
        low, high = np.percentile(self.seconds, [10, 90]) * 1e3
        return Row(
            group,
            name,
            1e3 * self.typical,
            "ms",
            float(low),
            float(high),
            len(self.seconds),
            goal_ms,
            note=self._note(f"{1e3 * float(np.median(self.wall_s)):.3g} ms", note),
        )

    def rate_row(
        self, group: str, name: str, unit: str, *, goal: float | None = None, note: str = ""
    ) -> Row:
        """Calls per second."""
        low, high = np.percentile(self.seconds, [10, 90])
        return Row(
            group,
            name,
            1 / self.typical,
            unit,
            float(1 / high),
            float(1 / low),
            len(self.seconds),
            goal,
            "higher",
            self._note(f"{1 / float(np.median(self.wall_s)):.3g}", note),
        )

    def _note(self, wall: str, note: str) -> str:
        by = f"wall clock {wall}" if self.threads == 1 else f"{self.threads} threads"
        return f"{by}; {note}" if note else by


def measure(call: Callable[[], object], *, repeats: int, warmup: int = 2) -> Timing:
    """Time ``repeats`` calls after ``warmup`` that do not count."""
    for _ in range(warmup):
        call()
    wall, cpu = [], []
    for _ in range(repeats):
        w, c = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    return Timing(tuple(wall), tuple(cpu), torch.get_num_threads())
