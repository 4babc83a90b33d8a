"""One episode for the rerun viewer: pictures, proprioception, actions, reward on one timeline."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets import LogReader, Source
from wm_nodes.cores.replay import BLOCK, find_episode
from wm_nodes.errors import UserError

TIME, ROW = "episode_time", "row"  # timelines: seconds since the first observation, row of the log
VIEWER = "viewer"  # opens the viewer; anything else is a file to write


def send_episode(log: LogReader, number: int, target: str | Path) -> None:
    """Write an episode as FILE.rrd, whole or not at all; VIEWER opens it in the viewer.

    Entities: image/<camera>, proprio/<dim>, action/<dim>/executed and commanded, action/changed
    (1 where they differ), reward, return, success, weights, source, gap_ms (to the row before).
    Values stand at the row that logs them: those of an action at the observation it was taken from.
    """
    rr = _require_rerun()
    start, rows = find_episode(log, number)
    stream = rr.RecordingStream(
        "wm_nodes", recording_id=f"{log.path.resolve()}#{number % len(log.episodes)}"
    )
    aside: Path | None = None
    if str(target) == VIEWER:
        try:
            stream.spawn()
        except RuntimeError as error:
            raise UserError(
                f"--rerun: the viewer does not start: {error}. Right: --rerun FILE.rrd writes a "
                "file, which `rerun FILE.rrd` opens where there is a display."
            ) from None
    else:
        target = Path(target)
        aside = target.with_name(f".{target.name}.part")
        _save(stream, aside)
    stream.send_recording_name(f"{log.spec.robot}, {log.spec.task}, episode {number}")
    _send_pictures(rr, stream, log, start, rows)
    _send_numbers(rr, stream, log, start, rows)
    stream.flush()
    stream.disconnect()
    if aside is not None:
        aside.replace(target)


def numbers(log: LogReader, start: int, rows: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return entity -> (rows of the episode that have a value, (N,) values)."""
    stop, spec = start + rows, log.spec
    every = np.arange(rows)
    acted = every[~log.read("is_last", start, stop)]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if spec.proprio is not None:
        values = log.read("proprio", start, stop)
        for at, name in enumerate(spec.proprio.names):
            found[f"proprio/{name}"] = every, values[:, at]
    if spec.action is not None:
        executed = log.read("action", start, stop)[acted]
        commanded = log.read("commanded", start, stop)[acted]
        for at, name in enumerate(spec.action.names):
            found[f"action/{name}/executed"] = acted, executed[:, at]
            found[f"action/{name}/commanded"] = acted, commanded[:, at]
        found["action/changed"] = acted, (executed != commanded).any(axis=1)
    if "reward" in spec.fields:
        rewards = log.read("reward", start, stop)[acted]
        found["reward"] = acted, rewards
        found["return"] = acted, np.cumsum(rewards)
    for name in ("success", "weights"):
        found[name] = acted, log.read(name, start, stop)[acted]
    gaps = np.diff(log.read("stamp", start, stop)) / 1e6
    found["gap_ms"] = every[1:], gaps
    return {name: (at, values.astype(np.float64)) for name, (at, values) in found.items()}


def _send_pictures(rr: Any, stream: Any, log: LogReader, start: int, rows: int) -> None:
    seconds = _seconds(log, start, rows)
    for camera in log.spec.cameras:
        for first in range(0, rows, BLOCK):
            last = min(first + BLOCK, rows)
            images = log.read(f"image/{camera}", start + first, start + last)
            for row, image in zip(range(first, last), images, strict=True):
                stream.set_time(TIME, duration=float(seconds[row]))
                stream.set_time(ROW, sequence=start + row)
                stream.log(f"image/{camera}", rr.Image(image))


def _send_numbers(rr: Any, stream: Any, log: LogReader, start: int, rows: int) -> None:
    seconds = _seconds(log, start, rows)

    def index(at: np.ndarray) -> list[Any]:
        times = rr.TimeColumn(TIME, duration=seconds[at])
        return [times, rr.TimeColumn(ROW, sequence=start + at)]

    for name, (at, values) in numbers(log, start, rows).items():
        if len(at):
            stream.send_columns(name, index(at), rr.Scalars.columns(scalars=values))
    sources = log.read("source", start, start + rows)
    at = np.flatnonzero(np.concatenate([[True], sources[1:] != sources[:-1]]))
    words = [Source(int(code)).name.lower() for code in sources[at]]
    stream.send_columns("source", index(at), rr.TextLog.columns(text=words))


def _seconds(log: LogReader, start: int, rows: int) -> np.ndarray:
    stamps = log.read("stamp", start, start + rows)
    return (stamps - stamps[0]) / 1e9


def _save(stream: Any, path: Path) -> None:
    try:
        path.touch()
        stream.save(str(path))
    except OSError as error:
        raise UserError(f"--rerun: {path.parent} cannot be written: {error.strerror}") from None


def _require_rerun() -> Any:
    if find_spec("rerun") is None:
        raise UserError("--rerun: rerun is not installed. Right: pip install 'wm_nodes[viz]'")
    import rerun

    return rerun
