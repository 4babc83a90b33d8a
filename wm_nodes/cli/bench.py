"""`wm bench`: measure the speed of every part on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_nodes.cli.arguments import parse, require, require_one_of
from wm_nodes.graphs.arguments import MODELS

# torch's profiler writes about its own start, and about CUDA where there is none, to stderr
QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Bench:
    """Measure the parts on this machine: medians, with a description of the machine."""

    only: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="GROUP")] = ()
    """Groups to measure; none: all (machine, models, sampler, log, archive, simulator,
    graph, environments, jitter)."""
    model: str = "mwm_cpu"
    """Model preset."""
    threads: int = 1
    """Threads of torch."""
    quick: bool = False
    """Fewer repeats, for a first look."""
    out: Path | None = None
    """Folder for bench.json and bench.csv."""


def run(words: Sequence[str]) -> int:
    """Run `wm bench WORDS`."""
    options = parse(Bench, "bench", words)
    require_one_of("model", options.model, MODELS)
    require("threads", options.threads, 1, 1024)

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from wm_nodes.checks import bench

    bench.run(
        options.only,
        model=options.model,
        threads=options.threads,
        quick=options.quick,
        folder=options.out,
    )
    return 0
