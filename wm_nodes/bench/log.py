"""How fast a log takes rows, and what recording at 50 Hz costs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from wm_datasets.log import LogWriter
from wm_nodes.bench.rows import Row
from wm_nodes.bench.sampler import EPISODE, row, spec

RATE_HZ = 50.0


def run(*, rows: int = 3000, seconds: float = 10.0) -> list[Row]:
    """Appending ``rows`` rows as fast as possible, then ``seconds`` at 50 Hz."""
    with tempfile.TemporaryDirectory() as folder:
        return [_fastest(Path(folder) / "a", rows), _share(Path(folder) / "b", seconds)]


def _fastest(path: Path, rows: int) -> Row:
    start = time.perf_counter()
    with LogWriter(path, spec()) as log:
        for i in range(rows):
            log.append(row(i % EPISODE == 0, i % EPISODE == EPISODE - 1, i))
    rate = rows / (time.perf_counter() - start)
    return Row(
        "log", "append", rate, "rows/s", better="higher", note="64 x 64 x 3, durable and closed"
    )


def _share(path: Path, seconds: float) -> Row:
    """CPU time of this process, all threads, over wall-clock time, while it only records."""
    count = int(seconds * RATE_HZ)
    made = [row(i % EPISODE == 0, i % EPISODE == EPISODE - 1, i) for i in range(count)]
    with LogWriter(path, spec()) as log:
        log.append(row(True, False, 0))  # opening and the first segment do not count
        log.append(row(False, True, 1))
        start, cpu = time.perf_counter(), time.process_time()
        for i, one in enumerate(made):
            time.sleep(max(0.0, start + i / RATE_HZ - time.perf_counter()))
            log.append({**one, "stamp": int(one["stamp"]) + 60_000_000})  # type: ignore[call-overload]
        share = (time.process_time() - cpu) / (time.perf_counter() - start)
    return Row(
        "log",
        "recording at 50 Hz",
        100 * share,
        "% of a core",
        goal=2.0,
        note=f"over {seconds:g} s",
    )
