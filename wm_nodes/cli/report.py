"""`wm report RUN`: video, plot and figures of a run, from its log or its training metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_nodes.cli.arguments import parse, require
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.launch.run_folder import RUNS
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.robots.environments import recorded_logs

if TYPE_CHECKING:
    from wm_datasets import LogReader
    from wm_models.weights.manifest import Manifest

CONFIG = "config"  # every setting of the preset: in summary.json, too long to print
METRICS = Path("metrics") / "train.csv"
LATEST = Path("weights") / "latest"


@dataclass(frozen=True)
class Report:
    """Video, plot and figures of a run or a log: summary.json, episodes.mp4 and images.

    A run with several environments is reported as a whole, one of its logs alone where it is given.
    For a run of wm train, which has no episodes: its metrics over updates, and predictions of its
    model on the first log that it was trained on.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run (runs/NAME or NAME) or replay log."""
    out: Path | None = None
    """Folder of the report; default: report/ in the run, or beside the log."""
    last: int = 0
    """Number of newest episodes to use; 0: all."""


def run(words: Sequence[str]) -> int:
    """Run `wm report WORDS`."""
    options = parse(Report, "report", words)
    require("last", options.last, 0)
    place, own = find(options.run)
    folder = options.out or (place.parent if own else place) / "report"
    if own:
        more = recorded_logs(place)[1:] if place != options.run else []
        summary = make_report(place, folder, last=options.last, more=more)
    else:
        summary = make_training(place, folder)
    shown = {name: value for name, value in summary.items() if name != CONFIG}
    print(json.dumps(shown, indent=2))
    print(f"report: {folder}")
    return 0


def find(path: Path) -> tuple[Path, bool]:
    """Return a log (given itself or as a run) and True, or the folder of a run without a log and
    False. UserError: there is neither."""
    runs = (path, RUNS / path)
    for folder in (path, *(run / "log" for run in runs)):
        if (folder / "zarr.json").is_file():
            return folder, True
    for folder in runs:
        if any((folder / part).is_file() for part in (METRICS, LATEST)):
            return folder, False
    there = next((run for run in runs if run.is_dir()), None)
    if there is not None:
        raise UserError(
            f"RUN: got {there}, expected a run with a log, training metrics (written every 25 "
            "updates) or weights. Continue the run."
        )
    raise UserError(f"RUN: got {path}, expected a log or a run. See `wm report --help`.")


def make_report(
    log: Path,
    folder: Path,
    *,
    last: int = 0,
    facts: dict[str, Any] | None = None,
    more: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write the report of a log, with an open-loop prediction where the run has weights. more: logs
    of further environments of the run."""
    from wm_datasets import LogError
    from wm_models.errors import ModelError
    from wm_models.weights.manifest import WeightsError
    from wm_models.weights.store import load_model
    from wm_nodes.viz.run_report import ReportError, ReportSettings, write_report

    with user_errors(LogError, ReportError, WeightsError, ModelError, OSError):
        weights = log.parent / "weights"
        model, known = None, {}
        if (weights / "latest").exists():
            model, manifest = load_model(weights)
            known = _config(manifest)
        settings = ReportSettings(last=last or None)
        facts = {**known, **(facts or {})}
        return write_report(log, folder, model=model, settings=settings, facts=facts, more=more)


def make_training(run: Path, folder: Path) -> dict[str, Any]:
    """Write the report of a run that was trained on recorded logs."""
    from wm_datasets import LogError
    from wm_models.errors import ModelError
    from wm_models.weights.manifest import WeightsError
    from wm_models.weights.store import load_model
    from wm_nodes.viz.run_report import ReportError
    from wm_nodes.viz.training_report import write_training_report

    facts = _about(run)
    with user_errors(LogError, ReportError, WeightsError, ModelError, OSError):
        model = None
        if (run / "weights" / "latest").exists():
            model, manifest = load_model(run / "weights")
            facts["weights"] = {"version": manifest.version, "updates": manifest.step}
            facts |= _config(manifest)
        log = _first_log(facts)
        return write_training_report(run, folder, model=model, log=log, facts=facts)


def _config(manifest: Manifest) -> dict[str, Any]:
    """Return the preset of the newest weights, and its settings if they are known."""
    facts = {"preset": manifest.preset, "set": dict(manifest.settings)}
    return facts | ({CONFIG: manifest.extra[CONFIG]} if CONFIG in manifest.extra else {})


def _about(run: Path) -> dict[str, Any]:
    """Return the arguments in run.json of the run; {} where it cannot be read."""
    try:
        return dict(json.loads((run / "run.json").read_text())["arguments"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _first_log(facts: dict[str, Any]) -> LogReader | None:
    """Return the first log of the training; None where it is not on this computer."""
    from wm_datasets import LogReader

    for word in facts.get("logs") or []:
        path = Path(WeightedLog.parse(str(word)).path)
        return LogReader(path) if (path / "zarr.json").is_file() else None
    return None
