"""Time to draw a training batch, compared with a copy of the same bytes in memory."""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.log import LogReader, LogWriter
from wm_datasets.sampling.sampler import Sampler
from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.timing import Timing, measure

EPISODE = 101  # rows, as the CPU presets have it


FIELDS = ("image/camera", "action", "reward", "is_first", "is_terminal")
GOAL = 80.0  # % of the speed of a copy: 1.25 times its time
RATE_HZ = 50.0


def run(*, rows: int = 5050, batch: int = 50, length: int = 50, repeats: int = 21) -> list[Row]:
    """Batches of 64 x 64 images with their actions, from a log of ``rows`` rows.

    Measured with the whole log in memory, while another process appends to it at 50 Hz, and with
    an eighth of it in memory: the rest in memory-mapped files, when these are filled and not yet.
    """
    figures: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "log", Path(folder) / "cache"
        write(path, rows)

        def sampler(reader: LogReader, **options: Any) -> Sampler:
            return Sampler(reader, batch=batch, length=length, seed=0, fields=FIELDS,
                           cache_folder=cache, **options)  # fmt: skip

        with LogReader(path) as reader:
            drawn = sampler(reader)
            size = sum(x.nbytes for x in drawn.sample().values())
            inside, copied = beside_a_copy(drawn.sample, size, repeats)

            def follow() -> None:
                drawn.refresh()
                drawn.sample()

            with growing(path):
                grown = beside_a_copy(follow, size, repeats)
        what = f"{batch} x {length} rows of 64 x 64 x 3"
        figures += [
            inside.row("sampler", f"one batch, {what}", note=f"{size / 1e6:.3g} MB, all in memory"),
            copied.row("sampler", "memory copy of the same bytes"),
            share("copy time / batch time", inside, copied, goal=GOAL),
            share("... while the log grows at 50 Hz", *grown, goal=GOAL),
        ]
        with LogReader(path) as reader:
            budget = (reader.length - reader.first) * size // (8 * batch * length)
            drawn = sampler(reader, cache_bytes=budget)
            cold = measure(drawn.sample, repeats=3, warmup=0)
            for _ in range(4 * rows // (batch * length) + 20):
                drawn.sample()
            warm = beside_a_copy(drawn.sample, size, repeats)
            drawn.close()
            chunks = sampler(reader, cache_bytes=budget, disk_bytes=0)
            without = measure(chunks.sample, repeats=3, warmup=1)
        figures += [
            share("... 8 times the memory budget, files filled", *warm),
            cold.row("sampler", "... the first batches, which fill them"),
            without.row("sampler", "... without files: chunks decoded each time"),
        ]
    return figures


def beside_a_copy(
    call: Callable[[], object], size: int, repeats: int, warmup: int = 3
) -> tuple[Timing, Timing]:
    """Time a call and a copy of ``size`` bytes in turn, so that other load slows both alike."""
    calls, copies = [], []
    for _ in range(warmup):
        call()
    source, target = np.full(size, 7, np.uint8), np.ones(size, np.uint8)
    for _ in range(repeats):
        calls.append(measure(call, repeats=1, warmup=0))
        copies.append(measure(lambda: np.copyto(target, source), repeats=1, warmup=0))
    return joined(calls), joined(copies)


def joined(timings: list[Timing]) -> Timing:
    """Return all calls of several timings as one timing."""
    wall = tuple(t for timing in timings for t in timing.wall_s)
    cpu = tuple(t for timing in timings for t in timing.cpu_s)
    return Timing(wall, cpu, timings[0].threads)


def share(name: str, batch: Timing, copied: Timing, goal: float | None = None) -> Row:
    """Return the speed of a batch in percent of the speed of a copy of its bytes."""
    factor = f"{batch.typical / copied.typical:.2f} times the copy"
    value, count = 100 * copied.typical / batch.typical, len(batch.seconds)
    return Row("sampler", name, value, "%", samples=count, goal=goal, better="higher", note=factor)


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Append to the log at 50 Hz from another process, in the context."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=append_for_ever, args=(path,), daemon=True)
    process.start()
    with LogReader(path) as reader:
        before = reader.length
        while reader.length == before and process.is_alive():
            reader.refresh()
            time.sleep(0.02)
    try:
        yield
    finally:
        process.kill()
        process.join()


def append_for_ever(path: Path) -> None:
    """The writer's process."""
    with LogWriter(path, spec()) as log:
        due = time.monotonic()
        for i in itertools.count():
            log.append(row(i % EPISODE == 0, i % EPISODE == EPISODE - 1, log.length))
            due += 1 / RATE_HZ
            time.sleep(max(0.0, due - time.monotonic()))


def write(path: Path, rows: int) -> None:
    """A log of ``rows`` rows of noise, in episodes of 101."""
    with LogWriter(path, spec()) as log:
        for i in range(rows):
            log.append(row(i % EPISODE == 0, i % EPISODE == EPISODE - 1, i))


def spec(size: int = 64) -> LogSpec:
    """One camera, seven joints, four action dimensions."""

    def vector(name: str, count: int) -> VectorSpec:
        names = tuple(f"{name}{i}" for i in range(count))
        return VectorSpec(names, ("1",) * count, (-1.0,) * count, (1.0,) * count)

    return LogSpec(
        robot="bench",
        task="none",
        control_period_s=0.02,
        cameras={"camera": (size, size, 3)},
        proprio=vector("q", 7),
        action=vector("a", 4),
        extra={},
    )


_NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), np.uint8)


def row(first: bool, last: bool, index: int) -> dict[str, object]:
    """One row of random experience."""
    action = np.zeros(4, np.float32) if last else np.full(4, 0.5, np.float32)
    return {
        "image/camera": _NOISE[index % len(_NOISE)],
        "proprio": np.zeros(7, np.float32),
        "action": action,
        "commanded": action,
        "reward": 0.0,
        "is_first": first,
        "is_last": last,
        "is_terminal": False,
        "success": False,
        "stamp": 20_000_000 * (index + 1),
        "source": 2,
        "weights": -1,
    }
