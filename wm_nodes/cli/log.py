"""`wm log info|show|stats|import|export`: what a replay log holds, and other formats in and out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_datasets import LogError, LogSummary, describe
from wm_nodes.cli import durability, transfer
from wm_nodes.cli.arguments import parse
from wm_nodes.cli.helptext import group_help
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.declaration import unknown

SUBCOMMANDS = {
    "info": "episodes, success, returns, fields and settings of a replay log (it may be in use)",
    "show": "an episode as a film with a strip of actions and reward, or in the rerun viewer",
    "stats": "ranges of every dimension, rates, lengths, success by source and by weights",
    "verify": "read every block; name each fault with file and rows (exit code 1)",
    "torture": "kill writers of a new log, let calls fail or change bytes, and look what it lost",
    "sweep": "break files of a log in every way, and count what it costs",
    "archive": "upload a log to an object store, also while it is recorded",
    "import": "bring recordings of another format into a log",
    "export": "write a log in another format",
}
SHOWN = 12  # sources, weights
LOOKS = ("show", "stats")
MOVES = {"import": transfer.run_import, "export": transfer.run_export}


@dataclass(frozen=True)
class Info:
    """Show what a replay log holds; it may be in use."""

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run."""
    json: bool = False
    """Print JSON instead of text."""


def run(words: Sequence[str]) -> int:
    """Run `wm log WORDS`."""
    if words and words[0] in MOVES:
        return MOVES[words[0]](words[1:])
    if words and words[0] in LOOKS:
        from wm_nodes.cli import look

        return {"show": look.run_show, "stats": look.run_stats}[words[0]](words[1:])
    if words and words[0] == "verify":
        return durability.run_verify(words[1:], find_log)
    if words and words[0] == "torture":
        return durability.run_torture(words[1:])
    if words and words[0] == "sweep":
        return durability.run_sweep(words[1:])
    if words and words[0] == "archive":
        from wm_nodes.cli.archive import run_archive

        return run_archive(words[1:], find_log)
    if not words or words[0] != "info":
        if words and words[0] not in ("-h", "--help"):
            raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
        print(group_help("log", SUBCOMMANDS))
        return 0 if words else 2
    wanted = parse(Info, "log info", words[1:])
    with user_errors(LogError):
        summary = describe(find_log(wanted.log))
    print(json.dumps(summary.to_json(), indent=2) if wanted.json else as_text(summary))
    return 0


def find_log(path: Path) -> Path:
    """Return the log's folder: the path itself, or `log` in it where a run was named."""
    for folder in (path, path / "log", Path("runs") / path / "log"):
        if (folder / "zarr.json").is_file():
            return folder
    return path  # the reader says what is wrong with it


def as_text(summary: LogSummary) -> str:
    """Return the summary as lines for people."""
    spec, total = summary.spec, summary.total
    dropped = f", {summary.first} older ones dropped" if summary.first else ""
    lines = [
        f"{summary.path}",
        f"robot     {spec.robot}, task {spec.task}, one step each {spec.control_period_s:g} s",
        f"rows      {summary.rows} ({summary.sealed_rows} sealed{dropped})",
        f"size      {summary.bytes_on_disk / 1e6:.1f} MB on disk",
        f"steps     {summary.steps} actions, {summary.seconds / 60:.1f} min",
        f"episodes  {summary.episodes}, {summary.complete} complete, success "
        f"{total.success_rate:.2f}, mean return {_number(total.mean_return)}",
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
            lines.append(
                f"  {kind} {name}: {tally.episodes} episodes, success {tally.success_rate:.2f}, "
                f"mean return {_number(tally.mean_return)}"
            )
    lines.append("fields")
    for name, field in summary.fields.items():
        shape = "x".join(map(str, field.shape)) or "1"
        lines.append(
            f"  {name:18s} {field.dtype:8s} {shape:10s} {field.bytes_on_disk / 1e6:9.2f} MB"
            + (f"  from row {field.absent_before} on" if field.absent_before else "")
        )
    lines += [f"extra     {key}: {value}" for key, value in spec.extra.items()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
