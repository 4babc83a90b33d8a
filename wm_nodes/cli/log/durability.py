"""`wm log verify|torture|sweep`: check a log; kill writers and count lost rows; damage files and
count lost episodes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wm_datasets import LogError
from wm_datasets.durability.file_corruption import corrupt_files
from wm_datasets.durability.writer_kills import KillConfig, KillResult, Life, kill_writers
from wm_datasets.log.row_order import RATE_TOLERANCE
from wm_datasets.log.verify import Report, verify
from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.log.injection import inject
from wm_nodes.errors import user_errors

_SHOWN = 50  # faults
SWEPT = ("file", "way", "trials", "harmless", "named", "mean_rows", "most_episodes",
         "broken_promises")  # fmt: skip


@dataclass(frozen=True)
class Verify:
    """Read every block of a log and report each fault; it may be in use. Exit code 1: faults."""

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run."""
    rate_tolerance: float = RATE_TOLERANCE
    """How far an episode's mean step may be from the declared control period, as a fraction."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Torture:
    """Kill writers of a new log at random moments and read it back. Exit code 1: rows were lost.

    Every other writer records at --rate-hz, the others as fast as they can. With --inject, instead
    of kills: `calls` makes every system call fail once for every reason, in a writer and in a
    sampler; `flips` changes single bytes of every kind of file; `owners` (root only) changes the
    owner of every file.
    """

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the new log; it must not exist."""
    kills: int = 200
    """Writers to kill."""
    power_cut: bool = False
    """Also drop the writes that were not synced to the disk."""
    seed: int = 0
    """Seed of the rows and of the moments."""
    rate_hz: float = 50.0
    """Rows per second of the slow writers."""
    longest_s: float = 0.8
    """Longest life of a writer, its start included [s]."""
    inject: Literal["kills", "calls", "flips", "owners"] = "kills"
    """Kind of fault to inject."""
    trials: int = 0
    """Most calls or owner changes, or flips of each kind of file; 0: all of them, or 500 flips."""
    out: Path | None = None
    """Write OUT.json and OUT.csv (one line per writer); with --inject OUT.csv alone."""


@dataclass(frozen=True)
class Sweep:
    """Damage every kind of file of a small log in every way. Exit code 1: a promise was broken.

    Verify must report the damage, readers must skip it, and only the episodes that it lies in may
    be lost; every value that is read must be exact, and the next writer must continue the log.
    """

    trials: int = 20
    """Trials of every kind of file and every kind of damage."""
    episodes: int = 60
    """Episodes of the log, 25 rows each."""
    seed: int = 0
    """Seed of the rows and of the damage."""
    out: Path | None = None
    """Write the table as OUT.csv."""


def run_verify(words: Sequence[str], find_log: Callable[[Path], Path]) -> int:
    """Run `wm log verify WORDS`."""
    options = parse(Verify, "log verify", words)
    require("rate-tolerance", options.rate_tolerance, 0.0)
    with user_errors(LogError):
        report = verify(
            find_log(options.log), rate_tolerance=options.rate_tolerance, progress=_show_progress
        )
    _clear()
    print(json.dumps(report.to_json(), indent=2) if options.json else as_text(report))
    return 1 if report.faults else 0


def run_torture(words: Sequence[str]) -> int:
    """Run `wm log torture WORDS`."""
    options = parse(Torture, "log torture", words)
    require("kills", options.kills, 1)
    require("rate-hz", options.rate_hz, 0.1, 10_000)
    require("longest-s", options.longest_s, 0.01, 3600)
    require("trials", options.trials, 0)
    if options.inject != "kills":
        with user_errors(LogError):
            return inject(
                options.inject,
                options.log,
                options.trials,
                options.seed,
                options.out,
                _show_progress,
            )
    config = KillConfig(
        kills=options.kills, power_cut=options.power_cut, seed=options.seed,
        rate_hz=options.rate_hz, longest_s=options.longest_s,
    )  # fmt: skip

    def show(life: Life, faults: int) -> None:
        if sys.stderr.isatty() or life.number % 20 == 19:
            end = "\r" if sys.stderr.isatty() else "\n"
            text = f"kill {life.number + 1} of {config.kills}, {life.found} rows, {faults} faults"
            print(text, end=end, file=sys.stderr, flush=True)

    with user_errors(LogError):
        result = kill_writers(options.log, config, show)
    _clear()
    if options.out is not None:
        write_result(options.out, result)
    for fault in result.faults[:_SHOWN]:
        print(fault)
    print(result.line())
    return 1 if result.faults else 0


def run_sweep(words: Sequence[str]) -> int:
    """Run `wm log sweep WORDS`."""
    options = parse(Sweep, "log sweep", words)
    require("trials", options.trials, 1)
    require("episodes", options.episodes, 20)
    outcomes = corrupt_files(options.trials, options.episodes, options.seed, _show_progress)
    _clear()
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.with_suffix(".csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(SWEPT)
            table.writerows([getattr(outcome, name) for name in SWEPT] for outcome in outcomes)
    print("  ".join([f"{'file':21s}", f"{'way':16s}", *SWEPT[2:]]))
    for outcome in outcomes:
        cells = [f"{getattr(outcome, name)!s:>{len(name)}s}" for name in SWEPT[2:]]
        print("  ".join([f"{outcome.file:21s}", f"{outcome.way:16s}", *cells]))
    for error in [error for outcome in outcomes for error in outcome.errors][:_SHOWN]:
        print(error)
    broken = sum(outcome.broken_promises for outcome in outcomes)
    print(f"{sum(outcome.trials for outcome in outcomes)} trials, {broken} broken promises")
    return 1 if broken else 0


def write_result(out: Path, result: KillResult) -> None:
    """Write the result as OUT.json, and its writers as OUT.csv."""
    out.parent.mkdir(parents=True, exist_ok=True)
    content = result.to_json()
    lives = content.pop("lives")
    out.with_suffix(".json").write_text(json.dumps(content | {"line": result.line()}, indent=2))
    with out.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(asdict(result.lives[0])))
        table.writeheader()
        table.writerows(lives)


def as_text(report: Report) -> str:
    """Return the report as lines of text."""
    lines = [str(fault) for fault in report.faults[:_SHOWN]]
    if len(report.faults) > _SHOWN:
        lines.append(f"... and {len(report.faults) - _SHOWN} more; --json names all")
    lines += [f"ignored: {path}: no segment of a log has such a name" for path in report.ignored]
    verdict = f"{len(report.faults)} faults" if report.faults else "no fault"
    lines.append(
        f"{report.path}: {verdict} in {report.rows} rows, {report.damaged} of {report.episodes} "
        "episodes damaged"
    )
    return "\n".join(lines)


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"{done / max(1, total):4.0%}", end="\r", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print(" " * 60, end="\r", file=sys.stderr)
