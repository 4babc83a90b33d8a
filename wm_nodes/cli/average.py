"""`wm average RUN`: the mean of a run's newest weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_nodes.cli.arguments import parse, require
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.launch.run_folder import RUNS
from wm_nodes.graphs.weights import versions


@dataclass(frozen=True)
class Average:
    """Average the newest versions of a run's weights (stochastic weight averaging).

    The mean varies less than the single versions. The run itself is not changed.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run (runs/NAME or NAME)."""
    last: int = 10
    """How many of the newest versions."""
    out: Path | None = None
    """Folder of the result; default: averaged/ in the run."""


def run(words: Sequence[str]) -> int:
    """Run `wm average WORDS`."""
    options = parse(Average, "average", words)
    require("last", options.last, 2)
    runs = [path for path in (options.run, RUNS / options.run) if (path / "weights").is_dir()]
    if not runs:
        raise UserError(f"RUN: got {options.run}, which has no weights, expected a trained run.")
    weights = runs[0] / "weights"
    count = len(versions(weights))
    if count < 2:
        raise UserError(f"RUN: {weights}: got {count} versions, expected 2 or more.")
    if count < options.last:
        raise UserError(
            f"--last: got {options.last}, expected 2 to {count}, the versions in {weights}."
        )
    out = options.out or runs[0] / "averaged"
    if out.resolve() == weights.resolve():
        raise UserError(f"--out: got {out}, which holds the versions, expected another folder.")

    from wm_models.errors import ModelError
    from wm_models.weights.averaging import average
    from wm_models.weights.manifest import WeightsError

    with user_errors(WeightsError, ModelError, OSError):
        manifest = average(weights, options.last, out)
    print(f"{manifest.preset}: mean of versions {manifest.extra['averaged']}\nweights: {out}")
    return 0
