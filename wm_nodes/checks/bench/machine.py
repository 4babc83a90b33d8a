"""Description and peak rates of the machine, as a reference for all other figures."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.timing import Timing, measure


def describe() -> dict[str, object]:
    """Return name, cores, versions, and the load before measuring."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "gpu": cuda,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "load_average_1min": round(load, 2),
    }


def headline(machine: dict[str, object]) -> str:
    """Return the machine in one line."""
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{gpu}; torch {machine['torch']}; "
        f"load before measuring {machine['load_average_1min']}"
    )


def matmul(repeats: int = 9, size: int = 1024) -> Timing:
    """One float32 product of two ``size`` x ``size`` matrices."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return measure(lambda: a @ b, repeats=repeats)


def matmul_flops(timing: Timing, size: int = 1024) -> float:
    """Return the FLOP per second of a timing of :func:`matmul`."""
    return 2.0 * size**3 / timing.typical


def copy_bytes(count: int, repeats: int = 9) -> Timing:
    """Copy ``count`` bytes from one place in memory to another that is in use already."""
    source = np.full(count, 7, np.uint8)  # written, so that it is real memory
    target = np.ones_like(source)
    return measure(lambda: np.copyto(target, source), repeats=repeats)


def run(repeats: int = 9) -> list[Row]:
    """Return the two reference rates of the machine."""
    flops = matmul(repeats)
    size = 64 << 20
    copied = copy_bytes(size, repeats)
    threads = torch.get_num_threads()
    return [
        Row(
            "machine",
            "float32 matmul",
            matmul_flops(flops) / 1e9,
            "GFLOP/s",
            samples=repeats,
            better="higher",
            note=f"1024 x 1024, {threads} thread{'s' if threads > 1 else ''}",
        ),
        Row(
            "machine",
            "memory copy",
            size / copied.typical / 1e9,
            "GB/s",
            samples=repeats,
            better="higher",
            note="64 MiB, one thread",
        ),
    ]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads in the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
