"""How long a training batch takes to draw, against copying as many bytes in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from wm_datasets.log import LogReader, LogWriter
from wm_datasets.sampler import Sampler
from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.bench import machine
from wm_nodes.bench.rows import Row
from wm_nodes.bench.timing import measure

EPISODE = 101  # rows, as the CPU presets have it


def run(*, rows: int = 5050, batch: int = 50, length: int = 50, repeats: int = 21) -> list[Row]:
    """Batches of 64 x 64 pictures with their actions, from a log of ``rows`` rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        write(path, rows)
        with LogReader(path) as reader:
            sampler = Sampler(
                reader,
                batch=batch,
                length=length,
                seed=0,
                fields=("image/camera", "action", "reward", "is_first", "is_terminal"),
            )
            got = sampler.sample()
            timing = measure(sampler.sample, repeats=repeats, warmup=3)
    size = sum(x.nbytes for x in got.values())
    copied = machine.copy_bytes(size, repeats)
    what = f"{batch} x {length} rows of 64 x 64 x 3"
    return [
        timing.row(
            "sampler", f"one batch, {what}", note=f"{size / 1e6:.3g} MB, rows decoded before"
        ),
        copied.row("sampler", "memory copy of the same bytes"),
        Row(
            "sampler",
            "copy time / batch time",
            100 * copied.typical / timing.typical,
            "%",
            samples=repeats,
            goal=50.0,
            better="higher",
        ),
    ]


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
    """One row of made-up experience."""
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
