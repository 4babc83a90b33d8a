"""One episode as a video: cameras and depth side by side, above curves of actions, reward and
signals over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wm_datasets import LogReader, Source
from wm_nodes.episodes.playback import BLOCK, find_episode
from wm_nodes.robots.robot import Image
from wm_nodes.viz.image_panels import Panel, panels
from wm_nodes.viz.video import BAR, SIDE

WIDE = 480  # smallest width, pixels: the curves need it
LANE, NAME = 26, 92  # height of a curve and width of its name, pixels
CURVES = 12  # most action dimensions, and most signals, that are drawn
DARK, TEXT, FAINT = (24, 24, 24), (235, 235, 235), (95, 95, 95)
EXECUTED, COMMANDED, REWARD, GOOD = (110, 180, 255), (230, 150, 60), (240, 220, 90), (120, 230, 120)
SIGNAL = (230, 120, 200)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A lane below the cameras: values over time, drawn between low and high."""

    name: str
    values: Values  # (rows,), nan where there is none
    low: float
    high: float
    colour: tuple[int, int, int]
    behind: Values | None = None  # drawn below `values`, in COMMANDED


def show_frames(log: LogReader, number: int) -> Iterator[Image]:
    """Yield one frame (H, W, 3) of even sides for each observation of an episode."""
    start, rows = find_episode(log, number)
    shown = panels(log, start, rows)
    sizes = _sizes(shown)
    width = max(WIDE, sum(wide for _, wide in sizes))
    chart = draw_chart(curves(log, start, rows), width)
    captions = _captions(log, number % len(log.episodes), start, rows)
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        painted = [
            panel.paint(log.read(panel.field, start + first, start + first + count))
            for panel in shown
        ]
        for index in range(count):
            image = _side_by_side([images[index] for images in painted], sizes, width)
            yield _frame(image, captions[first + index], _marked(chart, first + index, rows))


def curves(log: LogReader, start: int, rows: int) -> list[Curve]:
    """Return the lanes: every action dimension, executed over commanded; reward; signals."""
    spec, stop, lanes = log.spec, start + rows, list[Curve]()
    acted = ~log.read("is_last", start, stop)
    if spec.action is not None:
        executed = _where(acted, log.read("action", start, stop))
        commanded = _where(acted, log.read("commanded", start, stop))
        parts = zip(spec.action.names, spec.action.low, spec.action.high, strict=True)
        for at, (name, *bounds) in enumerate(list(parts)[:CURVES]):
            values, behind = executed[:, at], commanded[:, at]
            low, high = _limits(bounds, np.concatenate([values, behind]))
            lanes.append(Curve(name, values, low, high, EXECUTED, behind))
    if "reward" in spec.fields:
        values = _where(acted, log.read("reward", start, stop)[:, None])[:, 0]
        lanes.append(Curve("reward", values, *_limits((-np.inf, np.inf), values), REWARD))
    if spec.signals is not None and log.since("signals") <= start:
        signals = _where(acted, log.read("signals", start, stop))
        for name, values in list(zip(spec.signals.names, signals.T, strict=True))[:CURVES]:
            lanes.append(Curve(name, values, *_limits((0.0, np.inf), values), SIGNAL))
    return lanes


def draw_chart(lanes: Sequence[Curve], width: int) -> Image:
    """Return (lanes * LANE, width, 3): time is to the right, each lane has its name and range."""
    chart = np.full((len(lanes) * LANE, width, 3), DARK, np.uint8)
    for index, lane in enumerate(lanes):
        top = index * LANE
        cv2.line(chart, (NAME, top), (width, top), FAINT, 1)
        _write(chart, lane.name[:14], (4, top + 11), TEXT, 0.34)
        _write(chart, f"{lane.low:.3g} .. {lane.high:.3g}", (4, top + 22), FAINT, 0.3)
        if lane.behind is not None:
            _draw(chart, lane, lane.behind, top, COMMANDED)
        _draw(chart, lane, lane.values, top, lane.colour)
    return chart


def _draw(
    chart: Image, lane: Curve, values: Values, top: int, colour: tuple[int, int, int]
) -> None:
    shown = np.isfinite(values)
    share = np.clip((values[shown] - lane.low) / max(lane.high - lane.low, 1e-12), 0, 1)
    x = _columns(len(values), chart.shape[1])[shown]
    y = top + 3 + (1 - share) * (LANE - 6)
    points = np.stack([x, y], axis=1).round().astype(np.int32)
    cv2.polylines(chart, [points[:, None]], False, colour, 1, cv2.LINE_AA)


def _columns(rows: int, width: int) -> Values:
    """Return the column of each row of an episode in the chart, in pixels."""
    return np.linspace(NAME + 4, width - 6, max(rows, 2))[:rows]


def _marked(chart: Image, row: int, rows: int) -> Image:
    """Return the chart with a line at the present row."""
    marked = chart.copy()
    x = round(float(_columns(rows, chart.shape[1])[row]))
    cv2.line(marked, (x, 0), (x, chart.shape[0]), TEXT, 1)
    return marked


def _captions(log: LogReader, number: int, start: int, rows: int) -> list[tuple[str, str, bool]]:
    """Return two lines for each row, and whether the task is solved by then."""
    stop = start + rows
    seconds = (log.read("stamp", start, stop) - log.read("stamp", start, start + 1)) / 1e9
    success = _at_outcome(log.read("success", start, stop))
    done = np.logical_or.accumulate(success)
    sources, weights = log.read("source", start, stop), log.read("weights", start, stop)
    known = "reward" in log.spec.fields
    rewards = _at_outcome(log.read("reward", start, stop)) if known else np.zeros(rows)
    total = np.cumsum(rewards)
    captions = []
    for row in range(rows):
        source = Source(int(sources[row])).name.lower()
        by = source if weights[row] < 0 else f"{source}, weights {weights[row]}"
        first = f"{log.spec.task}   episode {number}   {seconds[row]:.2f} s   row {row}/{rows - 1}"
        second = f"reward {rewards[row]:.2f}   return {total[row]:.1f}   " if known else ""
        label = "   success" if done[row] else ""
        captions.append((first, f"{second}{by}{label}", bool(done[row])))
    return captions


def _at_outcome(values: np.ndarray) -> np.ndarray:
    """Move the values of each action to the observation that it led to."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


def _where(acted: np.ndarray, values: np.ndarray) -> Values:
    """Return values (rows, A) with nan in rows without an action."""
    return np.where(acted[:, None], values.astype(np.float64), np.nan)


def _limits(bounds: Sequence[float], values: Values) -> tuple[float, float]:
    """Return finite ends of a lane: the declared bounds, else the range of the values."""
    finite = values[np.isfinite(values)]
    low = bounds[0] if np.isfinite(bounds[0]) else float(finite.min(initial=0.0))
    high = bounds[1] if np.isfinite(bounds[1]) else float(finite.max(initial=0.0))
    return float(low), float(high)


# Images --------------------------------------------------------------------------------------


def _sizes(shown: Sequence[Panel]) -> list[tuple[int, int]]:
    """Return (height, width) of each panel as shown: equal heights, none below SIDE."""
    height = max([SIDE, *(panel.height for panel in shown)])
    return [(height, round(panel.width * height / panel.height)) for panel in shown]


def _side_by_side(images: Sequence[Image], sizes: Sequence[tuple[int, int]], width: int) -> Image:
    if not images:
        return np.zeros((0, width, 3), np.uint8)
    shown = [
        cv2.resize(image, (wide, high), interpolation=cv2.INTER_NEAREST)
        for image, (high, wide) in zip(images, sizes, strict=True)
    ]
    row = np.concatenate([np.asarray(image) for image in shown], axis=1)
    left = (width - row.shape[1]) // 2
    right = width - row.shape[1] - left
    return np.pad(row, ((0, 0), (left, right), (0, 0)), constant_values=DARK[0])


def _frame(image: Image, caption: tuple[str, str, bool], chart: Image) -> Image:
    first, second, good = caption
    bar = np.full((BAR, image.shape[1], 3), DARK, np.uint8)
    _write(bar, first, (6, 17), TEXT, 0.42)
    _write(bar, second, (6, 36), GOOD if good else TEXT, 0.42)
    frame = np.concatenate([bar, image, chart])
    odd = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
    return np.pad(frame, odd, constant_values=DARK[0])


def _write(
    image: Image, text: str, where: tuple[int, int], colour: tuple[int, int, int], size: float
) -> None:
    cv2.putText(image, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
