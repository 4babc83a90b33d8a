"""`wm report RUN`: film, plot and figures of a run, from its log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wm_datasets import LogError
from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.log import find_log
from wm_nodes.errors import user_errors


@dataclass(frozen=True)
class Report:
    """Film, plot and figures of a run or a log: summary.json, episodes.mp4 and pictures."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run (runs/NAME or NAME) or replay log."""
    out: Path | None = None
    """Folder of the report; default: report/ in the run, or beside the log."""
    last: int = 0
    """Only the newest so many episodes; 0: all."""


def run(words: Sequence[str]) -> int:
    """Run `wm report WORDS`."""
    wanted = parse(Report, "report", words)
    require("last", wanted.last, 0)
    log = find_log(wanted.run)
    folder = wanted.out or log.parent / "report"
    print(json.dumps(make_report(log, folder, last=wanted.last), indent=2))
    print(f"report: {folder}")
    return 0


def make_report(
    log: Path, folder: Path, *, last: int = 0, facts: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the report of a log, with an open-loop prediction where the run has weights."""
    from wm_models.checkpoint import WeightsError, load_model
    from wm_nodes.report import ReportError, ReportSettings, write_report

    with user_errors(LogError, ReportError, WeightsError):
        weights = log.parent / "weights"
        model = load_model(weights)[0] if (weights / "latest").exists() else None
        settings = ReportSettings(last=last or None)
        return write_report(log, folder, model=model, settings=settings, facts=facts)
