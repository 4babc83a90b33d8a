"""`wm log import FORMAT SRC LOG`, `wm log export FORMAT LOG DST`: other people's formats."""

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

    Stopped or killed, the same command goes on behind the last whole episode.
    """

    format: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMAT")]
    """Name of the format (docs/formats.md): robomimic, video, ..."""
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """File or folder to read."""
    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log."""
    yes: bool = False
    """Go on without asking when something cannot be kept."""
    skip_corrupt: bool = False
    """Leave out episodes whose files are broken, instead of stopping there."""
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
    """Write a replay log in another format; the destination appears when it is whole."""

    format: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMAT")]
    """Name of the format (docs/formats.md): robomimic, video, ..."""
    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run."""
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """File or folder to make."""
    yes: bool = False
    """Go on without asking when something cannot be kept."""
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
    wanted = parse(Import, "log import", words)
    _check_format(wanted.format)
    options = Options(
        robot=wanted.robot, task=wanted.task, period_s=wanted.period, camera=wanted.camera,
        flip=wanted.flip, crop=wanted.crop, size=wanted.size, topics=wanted.topics,
    )  # fmt: skip
    if not wanted.source.exists():
        raise UserError(f"there is no {wanted.source}")
    with user_errors(LogError), open_source(wanted.format, wanted.source, options) as source:
        print(f"{wanted.source}: {len(source.keys)} episodes")
        for note in source.notes:
            print(f"note: {note}")
        if source.upside_down:
            print(f"note: {source.upside_down}: its images may be upside down; --flip turns them.")
        _agree(source.losses, wanted.yes)
        name = f"{wanted.format}:{wanted.source.resolve()}"
        done = import_into(
            source, name, wanted.log, skip_corrupt=wanted.skip_corrupt, progress=_progress
        )
    for key, what in done.skipped.items():
        print(f"skipped {key}: {what}")
    before = f" ({done.resumed} were there)" if done.resumed else ""
    print(f"{wanted.log}: {done.episodes} episodes{before}, {done.rows} new rows")
    return 0


def run_export(words: Sequence[str]) -> int:
    """Run `wm log export WORDS`."""
    from wm_nodes.cli.paths import find_log

    wanted = parse(Export, "log export", words)
    _check_format(wanted.format)
    options = Options(
        lossy=wanted.lossy, layout=wanted.layout, version=wanted.version, topics=wanted.topics
    )
    with user_errors(LogError), LogReader(find_log(wanted.log)) as reader:
        exporter = open_exporter(wanted.format, reader, options)
        _agree(exporter.losses, wanted.yes)
        count = export_from(reader, exporter, wanted.destination, progress=_progress)
    print(f"{wanted.destination}: {count} episodes")
    return 0


def _check_format(name: str) -> None:
    if name not in FORMATS:
        raise UserError(unknown("format", name, list(FORMATS)))


def _agree(losses: list[str], yes: bool) -> None:
    """Say what cannot be kept, and go on only when the person agrees."""
    if not losses:
        return
    print("will not be kept:")
    for line in losses:
        print(f"  - {line}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("not written, because something would be lost. Right: --yes to go on.")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was written")


def _progress(done: int, total: int, what: str) -> None:
    """One line that is written over, for a person; nothing for a file."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{done}/{total} {what}", end=end, file=sys.stderr, flush=True)
