"""One episode for the rerun viewer: images, depth, proprioception, actions, reward, signals on
one timeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets import LogReader, Source
from wm_nodes.atomic_file import replacing
from wm_nodes.episodes.playback import BLOCK, find_episode
from wm_nodes.errors import UserError

TIME, ROW = "episode_time", "row"  # timelines: seconds since the first observation, row of the log
PER_METRE = {"m": 1.0, "mm": 1000.0}  # of depth
VIEWER = "viewer"  # opens the viewer; anything else is a file to write


def send_episode(log: LogReader, number: int, target: str | Path) -> None:
    """Write an episode as FILE.rrd, complete or not at all; VIEWER opens it in the viewer.

    Entities: image/<camera>, sensor/<name> (images; vectors have one entity for each number),
    proprio/<dim>, action/<dim>/executed and commanded, action/changed (1 where they differ),
    signal/<name> (latency, safety events), reward, return, success, weights, source, gap_ms (to
    the row before). Fields that the episode lacks are left out. Each value is at the row that logs
    it: those of an action at the observation before it.
    """
    rr = _require_rerun()
    start, rows = find_episode(log, number)
    stream = rr.RecordingStream(
        "wm_nodes", recording_id=f"{log.path.resolve()}#{number % len(log.episodes)}"
    )
    stream.send_recording_name(f"{log.spec.robot}, {log.spec.task}, episode {number}")
    with _sink(stream, target):
        _send_images(rr, stream, log, start, rows)
        _send_numbers(rr, stream, log, start, rows)
        stream.flush()
        stream.disconnect()


def numbers(log: LogReader, start: int, rows: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return entity -> (rows of the episode that have a value, (N,) values)."""
    stop = start + rows
    every = np.arange(rows)
    acted = every[~log.read("is_last", start, stop)]
    observed, actions = _observed(log, start, stop), _of_actions(log, start, stop, acted)
    series = {name: (every, values) for name, values in observed.items()}
    series |= {name: (acted, values) for name, values in actions.items()}
    series["gap_ms"] = every[1:], np.diff(log.read("stamp", start, stop)) / 1e6
    return {name: (at, values.astype(np.float64)) for name, (at, values) in series.items()}


def _observed(log: LogReader, start: int, stop: int) -> dict[str, np.ndarray]:
    """Return entity -> values (rows,) of proprioception and of sensors that are vectors."""
    spec, series = log.spec, dict[str, np.ndarray]()
    if spec.proprio is not None:
        values = log.read("proprio", start, stop)
        for at, name in enumerate(spec.proprio.names):
            series[f"proprio/{name}"] = values[:, at]
    for sensor, about in spec.sensors.items():
        field = f"sensor/{sensor}"
        if len(about.shape) > 1 or log.since(field) > start:
            continue
        values = log.read(field, start, stop)
        for at, dimension in enumerate(about.names or range(about.shape[0])):
            series[f"{field}/{dimension}"] = values[:, at]
    return series


def _of_actions(log: LogReader, start: int, stop: int, acted: np.ndarray) -> dict[str, np.ndarray]:
    """Return entity -> values (N,) of signals, actions and their outcomes; `acted`: their rows."""
    spec, series = log.spec, dict[str, np.ndarray]()
    if spec.signals is not None and log.since("signals") <= start:
        values = log.read("signals", start, stop)[acted]
        for at, name in enumerate(spec.signals.names):
            series[f"signal/{name}"] = values[:, at]
    if spec.action is not None:
        executed = log.read("action", start, stop)[acted]
        commanded = log.read("commanded", start, stop)[acted]
        for at, name in enumerate(spec.action.names):
            series[f"action/{name}/executed"] = executed[:, at]
            series[f"action/{name}/commanded"] = commanded[:, at]
        series["action/changed"] = (executed != commanded).any(axis=1)
    if "reward" in spec.fields:
        rewards = log.read("reward", start, stop)[acted]
        series |= {"reward": rewards, "return": np.cumsum(rewards)}
    series |= {name: log.read(name, start, stop)[acted] for name in ("success", "weights")}
    return series


def _send_images(rr: Any, stream: Any, log: LogReader, start: int, rows: int) -> None:
    seconds = _seconds(log, start, rows)
    for name, field in log.spec.fields.items():
        if len(field.shape) < 2 or log.since(name) > start:
            continue
        for first in range(0, rows, BLOCK):
            last = min(first + BLOCK, rows)
            images = log.read(name, start + first, start + last)
            for row, image in zip(range(first, last), images, strict=True):
                stream.set_time(TIME, duration=float(seconds[row]))
                stream.set_time(ROW, sequence=start + row)
                stream.log(name, _archetype(rr, log, name, image))


def _archetype(rr: Any, log: LogReader, name: str, values: np.ndarray) -> Any:
    """Return an image as rerun's type for its kind: colours, depth, or numbers."""
    sensor = log.spec.sensors.get(name.partition("/")[2]) if name.startswith("sensor/") else None
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim > 3 or channels not in (1, 3):
        return rr.Tensor(values)
    if values.dtype == np.uint8 or channels == 3:
        return rr.Image(values)
    per_metre = PER_METRE.get(str(sensor.units)) if sensor else None
    return rr.DepthImage(values.reshape(values.shape[:2]), meter=per_metre)


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
    return np.asarray((stamps - stamps[0]) / 1e9)


@contextmanager
def _sink(stream: Any, target: str | Path) -> Iterator[None]:
    """Connect a stream to the viewer, or to a file that is complete when the block ends."""
    if str(target) == VIEWER:
        try:
            stream.spawn()
        except RuntimeError as error:
            raise UserError(
                f"--rerun: the viewer does not start: {error}. Write a file with --rerun FILE.rrd, "
                "and open it with `rerun FILE.rrd` where there is a display."
            ) from None
        yield
        return
    with ExitStack() as stack:
        try:
            aside = stack.enter_context(replacing(target))
            aside.touch()
            stream.save(str(aside))
        except OSError as error:
            folder = Path(target).parent
            raise UserError(f"--rerun: cannot write to {folder}: {error.strerror}.") from None
        yield


def _require_rerun() -> Any:
    if find_spec("rerun") is None:
        raise UserError("--rerun: rerun is not installed. Install it: pip install 'wm_nodes[viz]'.")
    import rerun

    return rerun
