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
    """Average the newest versions of a run's weights: steadier than any of them (SWA).

    The run itself stays as it is.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run (runs/NAME or NAME)."""
    last: int = 10
    """How many of the newest versions."""
    out: Path | None = None
    """Folder of the result; default: averaged/ in the run."""


def run(words: Sequence[str]) -> int:
    """Run `wm average WORDS`."""
    wanted = parse(Average, "average", words)
    require("last", wanted.last, 2)
    found = [place for place in (wanted.run, RUNS / wanted.run) if (place / "weights").is_dir()]
    if not found:
        raise UserError(f"RUN: {wanted.run} has no weights. Right: a run that has learned.")
    weights = found[0] / "weights"
    if (count := len(versions(weights))) < wanted.last:
        raise UserError(
            f"--last: given {wanted.last}, but {weights} holds {count} versions. "
            f"Right: 2 to {count}."
            if count > 1
            else f"RUN: {weights} holds {count} versions, and a mean is of 2 or more."
        )
    out = wanted.out or found[0] / "averaged"
    if out.resolve() == weights.resolve():
        raise UserError(f"--out: {out} is where the versions are. Right: another folder.")

    from wm_models.errors import ModelError
    from wm_models.weights.averaging import average
    from wm_models.weights.manifest import WeightsError

    with user_errors(WeightsError, ModelError, OSError):
        made = average(weights, wanted.last, out)
    print(f"{made.preset}: mean of versions {made.extra['averaged']}\nweights: {out}")
    return 0
