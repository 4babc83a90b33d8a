"""Rate at which a log takes rows, and the CPU time of recording at 50 Hz."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from wm_datasets.log import LogReader, LogWriter
from wm_datasets.spec import LogSpec, VectorSpec
from wm_datasets.storage.manifest import load_manifest
from wm_datasets.storage.sealer import Sealer
from wm_datasets.storage.segment import record_dtype
from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.sampler import EPISODE, row, spec

RATE_HZ = 50.0
_BLOCK = 100_000  # rows sealed at once


def run(*, rows: int = 3000, seconds: float = 10.0, reopened_rows: int = 1_000_000) -> list[Row]:
    """Appending ``rows`` rows as fast as possible, then at 50 Hz; opening a long log."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            _fastest(Path(folder) / "a", rows),
            _share(Path(folder) / "b", seconds),
            *_reopen(Path(folder) / "c", reopened_rows),
        ]


def _reopen(path: Path, rows: int) -> list[Row]:
    """Wall-clock time until a log of many rows, with no image in it, is open."""
    pose = VectorSpec(("x",), ("m",), (-1.0,), (1.0,))
    bare = LogSpec("bench", "none", 0.02, {}, pose, None)
    _seal(path, bare, rows)
    with LogWriter(path, bare) as log:  # a segment for the next writer to take in
        for i in range(EPISODE):
            log.append({name: value for name, value in row(i == 0, i == EPISODE - 1, i).items()
                        if name in bare.fields} | {"proprio": [0.0]})  # fmt: skip
        left = path.with_name("left")
        shutil.copytree(path, left)  # as a killed writer leaves it
    opened = []
    for what, kind in (("reader", LogReader), ("writer, repairing", partial(LogWriter, spec=bare))):
        start = time.perf_counter()
        log_again = kind(left)
        seconds = time.perf_counter() - start
        assert log_again.length == rows + EPISODE
        log_again.close()
        opened.append(Row("log", f"open {rows} rows: {what}", 1e3 * seconds, "ms", goal=1e3))
    return opened


def _seal(path: Path, bare: LogSpec, rows: int) -> None:
    """Write a log of `rows` rows in large sealed blocks: by append it would take minutes."""
    LogWriter(path, bare).close()
    sealer = Sealer(path, load_manifest(path))
    for start in range(0, rows, _BLOCK):
        records = np.zeros(min(_BLOCK, rows - start), record_dtype(bare.fields))
        step = np.arange(start, start + len(records)) % EPISODE
        records["is_first"], records["is_last"] = step == 0, step == EPISODE - 1
        records["stamp"] = 20_000_000 * (step + 1)
        sealer.seal(records, end_open=start + len(records) == rows)


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
    """CPU time of this process, all threads, over wall-clock time, while it only records.

    The CPU time of sleeping in between is subtracted; it is largest on an idle machine.
    """
    count = int(seconds * RATE_HZ)
    rows = [row(i % EPISODE == 0, i % EPISODE == EPISODE - 1, i) for i in range(count)]
    sleeping = _busy(lambda i: None, count)
    with LogWriter(path, spec()) as log:
        log.append(row(True, False, 0))  # opening and the first segment do not count
        log.append(row(False, True, 1))
        later = [{**values, "stamp": 20_000_000 * (i + 4)} for i, values in enumerate(rows)]
        share = _busy(lambda i: log.append(later[i]), count) - sleeping
    return Row(
        "log",
        "recording at 50 Hz",
        100 * share,
        "% of a core",
        goal=2.0,
        note=f"over {seconds:g} s; without the sleeping between rows, {100 * sleeping:.2g} %",
    )


def _busy(work: Callable[[int], object], count: int) -> float:
    """Share of a core that `count` calls at 50 Hz take, the sleeping between them included."""
    start, cpu = time.perf_counter(), time.process_time()
    for i in range(count):
        time.sleep(max(0.0, start + i / RATE_HZ - time.perf_counter()))
        work(i)
    return (time.process_time() - cpu) / (time.perf_counter() - start)
