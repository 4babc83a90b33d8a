"""`wm log import FORMAT SRC LOG`, `wm log export FORMAT LOG DST`: logs in other formats."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_datasets import LogError, LogReader
from wm_datasets.formats import FORMATS, Options, open_exporter, open_source
from wm_datasets.formats.transfer import export_from, import_into
from wm_nodes.cli.arguments import parse
from wm_nodes.errors import UserError, unknown, user_errors


@dataclass(frozen=True)
class Import:
    """Bring recordings of another format into a replay log, new or of the same spec.

    After an interruption the same command resumes behind the last complete episode.
    """

    format: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMAT")]
    """Name of the format (docs/formats.md): robomimic, video, ..."""
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """File or folder to read."""
    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log."""
    yes: bool = False
    """Continue without a question when something cannot be kept."""
    skip_corrupt: bool = False
    """Skip episodes whose files are damaged, instead of stopping there."""
    robot: str | None = None
    """Name of the robot, where the source has none."""
    task: str | None = None
    """Name of the task, where the source has none."""
    period: float | None = None
    """Control period [s], where the source has none."""
    camera: str | None = None
    """Name of the camera, where the source has none."""
    flip: bool = False
    """Turn images that are upside down (those of LIBERO and robosuite are)."""
    crop: tuple[float, float, float, float] | None = None
    """Shares of the images that are cut off at the left, top, right and bottom, after --flip."""
    size: tuple[int, int] | None = None
    """Height and width that images are resized to, after --crop."""
    topics: Path | None = None
    """YAML file that maps topics to fields (rosbag)."""


@dataclass(frozen=True)
class Export:
    """Write a replay log in another format; the destination appears when it is complete."""

    format: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMAT")]
    """Name of the format (docs/formats.md): robomimic, video, ..."""
    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run."""
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """File or folder to write."""
    yes: bool = False
    """Continue without a question when something cannot be kept."""
    lossy: bool = False
    """Small images (video, lerobot: H.264; rosbag: JPEG) instead of exact ones."""
    layout: str | None = None
    """Which of the format's layouts (dino_wm: point_maze, wall, pusht; rosbag: mcap, sqlite3)."""
    topics: Path | None = None
    """YAML file that maps fields to topics (rosbag)."""
    version: str | None = None
    """Version of the format (lerobot: v3.0, v2.1)."""


def run_import(words: Sequence[str]) -> int:
    """Run `wm log import WORDS`."""
    options = parse(Import, "log import", words)
    _check_format(options.format)
    format_options = Options(
        robot=options.robot, task=options.task, period_s=options.period, camera=options.camera,
        flip=options.flip, crop=options.crop, size=options.size, topics=options.topics,
    )  # fmt: skip
    if not options.source.exists():
        raise UserError(f"SRC: got {options.source}, expected an existing file or folder.")
    with (
        user_errors(LogError),
        open_source(options.format, options.source, format_options) as source,
    ):
        print(f"{options.source}: {len(source.keys)} episodes")
        for note in source.notes:
            print(f"note: {note}")
        if source.upside_down:
            print(f"note: {source.upside_down}: its images may be upside down; --flip turns them.")
        _agree(source.losses, options.yes)
        name = f"{options.format}:{options.source.resolve()}"
        done = import_into(
            source, name, options.log, skip_corrupt=options.skip_corrupt, progress=_progress
        )
    for key, what in done.skipped.items():
        print(f"skipped {key}: {what}")
    before = f" ({done.resumed} were there)" if done.resumed else ""
    print(f"{options.log}: {done.episodes} episodes{before}, {done.rows} new rows")
    return 0


def run_export(words: Sequence[str]) -> int:
    """Run `wm log export WORDS`."""
    from wm_nodes.cli.paths import find_log

    options = parse(Export, "log export", words)
    _check_format(options.format)
    format_options = Options(
        lossy=options.lossy, layout=options.layout, version=options.version, topics=options.topics
    )
    with user_errors(LogError), LogReader(find_log(options.log)) as reader:
        exporter = open_exporter(options.format, reader, format_options)
        _agree(exporter.losses, options.yes)
        count = export_from(reader, exporter, options.destination, progress=_progress)
    print(f"{options.destination}: {count} episodes")
    return 0


def _check_format(name: str) -> None:
    if name not in FORMATS:
        raise UserError(unknown("format", name, list(FORMATS)))


def _agree(losses: list[str], yes: bool) -> None:
    """Print what cannot be kept, and continue only when the user agrees."""
    if not losses:
        return
    print("will not be kept:")
    for line in losses:
        print(f"  - {line}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("not written, because something would be lost. Add --yes to accept this.")
    if input("continue? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was written.")


def _progress(done: int, total: int, what: str) -> None:
    """Print one line that is overwritten, on a terminal; nothing in a file."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{done}/{total} {what}", end=end, file=sys.stderr, flush=True)
