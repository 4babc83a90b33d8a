"""`wm log show LOG` and `wm log stats LOG`: an episode as a video or in rerun; numbers of a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from wm_datasets import LogError, LogReader
from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.paths import find_log
from wm_nodes.errors import UserError, user_errors

VIEWER = "viewer"


@dataclass(frozen=True)
class Show:
    """Write an episode as a video: the cameras above curves of actions and reward.

    With --rerun it opens in the rerun viewer instead (--rerun FILE.rrd writes a file for it):
    images, proprioception, actions commanded and executed, reward, success, weights, gaps between
    observations on one timeline."""

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run; it may be in use."""
    episode: int = -1
    """Episode to show, from 0; -1: the newest."""
    out: Path | None = None
    """Video to write (MP4); without --rerun the default is TASK-episode-N.mp4 here."""
    rate: float = 1.0
    """Speed relative to the recording."""
    rerun: Annotated[str, tyro.conf.arg(metavar="[FILE.rrd]")] = ""
    """Open the rerun viewer, or write FILE.rrd for it."""


@dataclass(frozen=True)
class Stats:
    """Show statistics of a log: ranges of dimensions, rates, lengths, success by source and
    weights."""

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run; it may be in use."""
    json: bool = False
    """Print JSON instead of a table."""
    figure: Path | None = None
    """Also plot them to this file (PNG, PDF or SVG)."""


def run_show(words: Sequence[str]) -> int:
    """Run `wm log show WORDS`."""
    options = parse(Show, "log show", _with_viewer(words))
    require("rate", options.rate, 0.01, 1000.0)
    with user_errors(LogError), LogReader(find_log(options.log)) as log:
        if options.rerun:
            from wm_nodes.viz.rerun import send_episode

            send_episode(log, options.episode, options.rerun)
            if options.rerun != VIEWER:
                print(f"recording: {options.rerun} (rerun {options.rerun} opens it)")
        if options.out is not None or not options.rerun:
            _video(log, options)
    return 0


def run_stats(words: Sequence[str]) -> int:
    """Run `wm log stats WORDS`."""
    options = parse(Stats, "log stats", words)
    from wm_datasets.log.statistics import measure
    from wm_nodes.viz.log_figures import as_text, draw

    with user_errors(LogError):
        stats = measure(find_log(options.log))
    if options.figure is not None:  # first: `| head` may end the printing
        draw(stats, options.figure)
    print(json.dumps(stats.to_json(), indent=2) if options.json else as_text(stats))
    return 0


def _with_viewer(words: Sequence[str]) -> list[str]:
    """Give `--rerun` a value where it stands alone."""
    out: list[str] = []
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        out.append(word)
        if word == "--rerun" and not after.endswith(".rrd"):
            out.append(VIEWER)
    return out


def _video(log: LogReader, options: Show) -> None:
    if find_spec("av") is None:
        raise UserError("show: PyAV is not installed. Install it: pip install 'wm_nodes[viz]'.")
    from wm_nodes.episodes.playback import find_episode
    from wm_nodes.viz.episode_video import show_frames
    from wm_nodes.viz.video import write_video

    _, rows = find_episode(log, options.episode)
    number = options.episode % len(log.episodes)
    out = options.out or Path(f"{log.spec.task}-episode-{number}.mp4")
    rate_hz = min(max(options.rate / log.spec.control_period_s, 1.0), 240.0)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        codec = write_video(out, show_frames(log, options.episode), rate_hz)
    except OSError as error:
        raise UserError(f"--out: cannot write {out}: {error}.") from None
    print(f"video: {out} ({rows} frames, {rate_hz:.0f} a second, {codec})")
