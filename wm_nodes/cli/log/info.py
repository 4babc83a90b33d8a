"""`wm log info LOG`: what a replay log holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_datasets import LogError, LogSummary, describe
from wm_datasets.log.summary import Tally
from wm_datasets.spec import LogSpec
from wm_nodes.cli.arguments import parse
from wm_nodes.cli.paths import find_log
from wm_nodes.errors import user_errors

SHOWN = 12  # sources, weights


@dataclass(frozen=True)
class Info:
    """Show what a replay log holds; it may be in use."""

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run."""
    json: bool = False
    """Print JSON instead of text."""


def run_info(words: Sequence[str]) -> int:
    """Run `wm log info WORDS`."""
    options = parse(Info, "log info", words)
    with user_errors(LogError):
        summary = describe(find_log(options.log))
    print(json.dumps(summary.to_json(), indent=2) if options.json else as_text(summary))
    return 0


def as_text(summary: LogSummary) -> str:
    """Return the summary as lines of text."""
    spec, total = summary.spec, summary.total
    dropped = f", {summary.first} older ones dropped" if summary.first else ""
    lines = [
        f"{summary.path}",
        f"robot     {spec.robot}, task {spec.task}, one step each {spec.control_period_s:g} s",
        f"rows      {summary.rows} ({summary.sealed_rows} sealed{dropped})",
        f"size      {summary.bytes_on_disk / 1e6:.1f} MB on disk",
        f"steps     {summary.steps} actions, {summary.seconds / 60:.1f} min",
        f"episodes  {summary.episodes}, {summary.complete} complete{_outcome(spec, total)}",
    ]
    lines += [f"ignored   {path}: no segment of a log has such a name" for path in summary.ignored]
    if summary.evaluation:
        lines.append(f"          {summary.evaluation} are evaluation, never learned from")
    if summary.damaged:
        lines.append(f"damaged   {summary.damaged} episodes, not counted below: wm log verify")
    for kind, tallies in (("source", summary.per_source), ("weights", summary.per_weights)):
        if (older := len(tallies) - SHOWN) > 0:
            lines.append(f"  {kind}: {older} older ones, and the newest (--json has all)")
        for name, tally in list(tallies.items())[-SHOWN:]:
            lines.append(f"  {kind} {name}: {tally.episodes} episodes{_outcome(spec, tally)}")
    lines.append("fields")
    for name, field in summary.fields.items():
        shape = "x".join(map(str, field.shape)) or "1"
        lines.append(
            f"  {name:18s} {field.dtype:8s} {shape:10s} {field.bytes_on_disk / 1e6:9.2f} MB"
            + (f"  from row {field.absent_before} on" if field.absent_before else "")
        )
    lines += [f"extra     {key}: {value}" for key, value in spec.extra.items()]
    return "\n".join(lines)


def _outcome(spec: LogSpec, tally: Tally) -> str:
    success = f", success {tally.success_rate:.2f}" if spec.success else ""
    return f"{success}, mean return {_number(tally.mean_return)}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
