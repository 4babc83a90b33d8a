"""`wm compare RUN RUN ...`: methods over seeds and tasks, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wm_nodes.cli.arguments import parse, require
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.launch.run_folder import RUNS


@dataclass(frozen=True)
class Compare:
    """Compare runs by their evaluations: a table, every evaluation as CSV, and a figure.

    Runs whose arguments differ only in seed and task are one method. Final scores and whole curves
    are compared by the interquartile mean over all runs, with bootstrap intervals, and by the
    probability that a run of one method is better than one of another.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Two or more runs (runs/NAME or NAME) with evaluations."""
    metric: Literal["success", "return"] = "success"
    """What is compared."""
    last: int = 3
    """Evaluations that the final score is the mean of."""
    out: Path = Path("comparison")
    """Folder of comparison.md, comparison.csv and comparison.png."""


def run(words: Sequence[str]) -> int:
    """Run `wm compare WORDS`."""
    options = parse(Compare, "compare", words)
    require("last", options.last, 1)
    if len(options.runs) < 2:
        raise UserError(f"RUN: got {len(options.runs)} run, expected two or more.")
    folders = [_folder(path) for path in options.runs]

    from wm_nodes.evaluation.comparison import (
        ComparisonError,
        compare,
        markdown,
        methods_of,
        read_run,
        write_comparison,
    )

    with user_errors(ComparisonError, OSError):
        methods = methods_of([read_run(folder, options.metric) for folder in folders])
        results = compare(methods, options.last)
        write_comparison(options.out, methods, results, options.metric, options.last)
    print(markdown(results, options.metric, options.last), end="")
    print(f"comparison: {options.out}")
    return 0


def _folder(path: Path) -> Path:
    """Return the folder of a run that is named, or given as a path."""
    for folder in (path, RUNS / path):
        if (folder / "run.json").is_file():
            return folder
    raise UserError(f"RUN: got {path}, expected the folder or the name of a run.")
