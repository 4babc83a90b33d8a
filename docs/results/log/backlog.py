"""Opening a log whose writer is faster than its sealing: python backlog.py > backlog.csv

For logs of 10^4, 10^5 and 10^6 sealed rows of 64x64 images: rows are appended as fast as possible
until append() waits, or 100 000 times; then the writer ends as if killed, and a reader and a
sampler open the log.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from wm_datasets import LogReader, LogSpec, LogWriter, Sampler, VectorSpec
from wm_datasets.storage.manifest import load_manifest
from wm_datasets.storage.sealer import Sealer
from wm_datasets.storage.segment import record_dtype

SPEC = LogSpec(
    "bench", "backlog", 0.02, {"front": (64, 64, 3)},
    VectorSpec(tuple(f"j{i}" for i in range(39)), ("m",) * 39, (-9.0,) * 39, (9.0,) * 39),
    VectorSpec(("dx", "dy", "dz", "grip"), ("m",) * 4, (-1.0,) * 4, (1.0,) * 4),
)  # fmt: skip
EPISODE, BLOCK, MOST = 500, 16384, 100_000


def seal(path: Path, rows: int) -> None:
    """Write a log of `rows` sealed rows, without waiting for the disk."""
    LogWriter(path, SPEC).close()
    sealer, fsync, os.fsync = Sealer(path, load_manifest(path)), os.fsync, lambda fd: None
    for start in range(0, rows, BLOCK):
        number = np.arange(start, min(rows, start + BLOCK))
        records = np.zeros(len(number), record_dtype(SPEC.fields))
        records["image/front"] = (number % 251)[:, None, None, None]
        records["is_first"], records["is_last"] = (
            number % EPISODE == 0,
            number % EPISODE == EPISODE - 1,
        )
        records["stamp"] = 20_000_000 * (number + 1)
        sealer.seal(records, end_open=True)
    os.fsync = fsync


def write(path: Path, rows: int) -> None:
    """Append until append() waits; print appended rows per second; end as if killed."""
    seal(path, rows)
    log, begin = LogWriter(path, SPEC), time.monotonic()
    ramp = np.linspace(0, 200, 64 * 64 * 3).reshape(64, 64, 3)
    noise = np.random.default_rng(0).normal(0, 3, (64, 64, 64, 3))
    frames = (ramp + noise).clip(0, 255).astype(np.uint8)
    for i in range(MOST):
        log.append({
            "image/front": frames[i % 64], "proprio": np.zeros(39), "action": np.zeros(4),
            "commanded": np.zeros(4), "reward": 0.0, "is_first": i % EPISODE == 0,
            "is_last": i % EPISODE == EPISODE - 1, "is_terminal": False, "success": False,
            "stamp": 20_000_000 * (rows + i + 1), "source": 0, "weights": -1,
        })  # fmt: skip
        if log._queue.is_behind():
            break
    print(round((i + 1) / (time.monotonic() - begin)), flush=True)
    os._exit(0)


def memory() -> float:
    """Return the memory of this process [MB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure_opening(path: Path, cache: Path) -> None:
    """Print unsealed rows, opening, memory of reader [ms, MB] and sampler [s, MB], batch [ms]."""
    empty, start = memory(), time.monotonic()
    reader = LogReader(path)
    opened, of_reader = time.monotonic(), memory() - empty
    sampler = Sampler(
        reader, batch=50, length=50, seed=0, cache_bytes=256 << 20, cache_folder=cache
    )
    filled, of_sampler, batches = time.monotonic(), memory() - empty, []
    for _ in range(30):
        begin = time.monotonic()
        sampler.sample()
        batches.append(time.monotonic() - begin)
    times = 1e3 * (opened - start), of_reader, filled - opened, of_sampler, 1e3 * np.median(batches)
    print(reader.length - reader.sealed, *(f"{value:.4g}" for value in times), sep=",")


def main() -> None:
    table = csv.writer(sys.stdout)
    table.writerow(["rows", "appended_per_s", "unsealed", "reader_ms", "reader_mb", "sampler_s",
                    "sampler_mb", "batch_ms"])  # fmt: skip
    for rows in (10**4, 10**5, 10**6):
        folder = Path(tempfile.mkdtemp())
        try:
            call = [sys.executable, __file__, str(folder / "log")]
            rate = subprocess.check_output([*call, "write", str(rows)], text=True).strip()
            for _ in range(2):
                output = subprocess.check_output([*call, "open", str(folder / "cache")], text=True)
                table.writerow([rows, rate, *output.strip().split(",")])
                sys.stdout.flush()
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [path, "write", rows]:
            write(Path(path), int(rows))
        case [path, "open", cache]:
            measure_opening(Path(path), Path(cache))
        case _:
            main()
