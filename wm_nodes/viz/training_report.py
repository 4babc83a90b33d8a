"""The report folder of a run that was trained on recorded logs (`wm train`) and has no episodes:
its logs, metrics and predictions.

report/
  summary.json     model, logs, newest weights, last value of every metric and its update
  training.png     every metric over updates
  prediction.png   5 observed frames of the first log, then imagined ones, with the true frames
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_datasets import LogReader
from wm_models.interface.world_model import WorldModel
from wm_nodes.csv_table import read_rows
from wm_nodes.training.config import TrainingConfig
from wm_nodes.viz.run_report import (
    ReportError,
    ReportSettings,
    logged_episodes,
    require_viz,
    write_prediction,
)

Curve = tuple[list[int], list[float]]  # updates and values, in their order
COLUMNS = 3  # of panels
METRICS_EVERY = TrainingConfig.log_every


def write_training_report(
    run: str | Path,
    folder: str | Path,
    *,
    model: WorldModel | None = None,
    log: LogReader | None = None,
    settings: ReportSettings | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the report and return the summary. ReportError: neither metrics nor a model yet.

    The prediction needs a model and the log to predict. `facts` are put into the summary first. A
    run of fewer updates than a line of metrics is the mean of has no training.png.
    """
    require_viz()
    run, folder = Path(run), Path(folder)
    curves = read_curves(run / "metrics" / "train.csv")
    if not curves and model is None:
        raise ReportError(
            f"run {run}: got neither metrics, which are written every {METRICS_EVERY} updates, nor "
            "weights, expected one of them. Continue the run."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if curves:
        draw_curves(curves, folder / "training.png", run.name)
    summary: dict[str, Any] = dict(facts or {})
    summary["measured_updates"] = max((updates[-1] for updates, _ in curves.values()), default=0)
    summary["metrics"] = {name: values[-1] for name, (_, values) in curves.items()}
    if model is not None and log is not None and (episodes := logged_episodes(log)):
        summary |= write_prediction(log, model, episodes, folder, settings or ReportSettings())
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def read_curves(path: Path) -> dict[str, Curve]:
    """Return metric -> its curve from metrics/train.csv; an incomplete last line is skipped."""
    curves: dict[str, Curve] = {}
    for row in read_rows(path):
        try:
            metric, update, value = row["metric"], int(row["update"]), float(row["value"])
        except (KeyError, ValueError):
            continue
        if math.isfinite(value):
            updates, values = curves.setdefault(metric, ([], []))
            updates.append(update)
            values.append(value)
    return curves


def draw_curves(curves: Mapping[str, Curve], path: str | Path, title: str) -> None:
    """Write one panel a metric as PNG."""
    from matplotlib.figure import Figure

    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.2 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes, (name, (updates, values)) in zip(panels, curves.items(), strict=False):
        axes.plot(updates, values, lw=1, marker="." if len(updates) < 30 else None)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in list(figure.axes)[len(curves) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
