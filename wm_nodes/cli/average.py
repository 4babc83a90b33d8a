"""`wm average RUN`: the mean of a run's newest weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_nodes.cli.arguments import parse, require
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.runs import RUNS


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
    from wm_models.averaging import average
    from wm_models.checkpoint import WeightsError

    found = [place for place in (wanted.run, RUNS / wanted.run) if (place / "weights").is_dir()]
    if not found:
        raise UserError(f"RUN: {wanted.run} has no weights. Right: a run that has learned.")
    out = wanted.out or found[0] / "averaged"
    with user_errors(WeightsError, OSError):
        made = average(found[0] / "weights", wanted.last, out)
    print(f"{made.preset}: mean of versions {made.extra['averaged']}\nweights: {out}")
    return 0
