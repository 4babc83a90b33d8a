"""One frame of an arm's video: camera, goal, imagined and true images, distance, plan.

camera now | goal       | imagined +0.5 s | +1.0 s | +1.5 s
distance to the goal    | truth           |        |
executed and planned actions, by dimension
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wm_nodes.evaluation.evaluate import CLOSE_M
from wm_nodes.robots.robot import Image

SIDE, GAP, BAR, LANE, TITLE = 192, 6, 26, 34, 14  # pixels
IMAGINED = 3  # model steps shown
BEHIND, AHEAD = 30, 20  # agent steps of the actions before and after now
FAR_M = 0.3  # top of the curve
DARK, PANEL, LINE = (24, 24, 24), (38, 38, 38), (70, 70, 70)
TEXT, FAINT = (235, 235, 235), (95, 95, 95)
DONE, PLANNED, GOOD = (110, 180, 255), (230, 150, 60), (120, 230, 120)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Moment:
    """Data of one agent step. Actions are shares of their bounds."""

    episode: int
    row: int  # agent step
    image: Image
    goal: Image | None
    expected: Sequence[Image]  # after each model step of the current plan
    truth: Sequence[Image | None]  # of the camera at that time; None: the episode was over
    step_s: float  # of a model step
    far_m: npt.NDArray[np.float64]  # distances to the goal (n,) so far
    length: int  # agent steps of the episode
    done: Vectors  # (row, A)
    planned: Vectors  # (N, A), from now on


def draw(moment: Moment) -> Image:
    """Return the frame (H, W, 3); sides are even."""
    width = (2 + IMAGINED) * (SIDE + GAP) + GAP
    chart = _action_chart(moment.done, moment.planned, width - 2 * GAP)
    height = 3 * BAR + 2 * SIDE + chart.shape[0] + 3 * GAP
    frame = np.full((height, width, 3), DARK, np.uint8)
    here = float(moment.far_m[-1])
    words = f"goal {moment.episode + 1}   {here * 100:.1f} cm away"
    _write(frame, words, (GAP, 18), GOOD if here < CLOSE_M else TEXT, 0.55)

    top = 2 * BAR
    _panel(frame, 0, top, "camera", moment.image)
    _panel(frame, 1, top, "goal", moment.goal)
    low = top + SIDE + BAR
    for index in range(IMAGINED):
        ahead = f"+{moment.step_s * (index + 1):.1f} s"
        known = index < len(moment.expected)
        expected = moment.expected[index] if known else None
        _panel(frame, 2 + index, top, f"imagined {ahead}", expected)
        truth = moment.truth[index] if known else None
        _panel(frame, 2 + index, low, f"truth {ahead}", truth)

    wide = 2 * SIDE + GAP
    _write(frame, "distance of hand and goal", (GAP, low - 9), TEXT)
    frame[low : low + SIDE, GAP : GAP + wide] = _curve(moment.far_m, moment.length, wide)
    bottom = low + SIDE + GAP
    frame[bottom : bottom + chart.shape[0], GAP : GAP + chart.shape[1]] = chart
    return frame[: height // 2 * 2, : width // 2 * 2]


def _panel(frame: Image, column: int, top: int, name: str, image: Image | None) -> None:
    """Put an image, or an empty panel, into a column below its name."""
    left = GAP + column * (SIDE + GAP)
    _write(frame, name, (left, top - 9), FAINT if image is None else TEXT)
    panel = frame[top : top + SIDE, left : left + SIDE]
    panel[:] = PANEL
    if image is not None:
        panel[:] = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


def _curve(far_m: npt.NDArray[np.float64], length: int, width: int) -> Image:
    """Draw distances (n,) of an episode so far; the line is the distance of a reached goal."""
    panel = np.full((SIDE, width, 3), PANEL, np.uint8)

    def height(metres: float) -> int:
        return round((SIDE - 1) * (1.0 - min(metres / FAR_M, 1.0)))

    cv2.line(panel, (0, height(CLOSE_M)), (width, height(CLOSE_M)), GOOD, 1)
    _write(panel, f"{CLOSE_M * 100:g} cm", (width - 42, height(CLOSE_M) - 5), GOOD, 0.38)
    _write(panel, f"{FAR_M * 100:g} cm", (width - 48, 14), FAINT, 0.38)
    at = [
        (round(width * i / max(length - 1, 1)), height(float(far))) for i, far in enumerate(far_m)
    ]
    cv2.polylines(panel, [np.array(at, np.int32).reshape(-1, 1, 2)], False, TEXT, 2, cv2.LINE_AA)
    return panel


def _action_chart(done: Vectors, planned: Vectors, width: int) -> Image:
    """Draw executed actions before now (blue) and planned ones from now (orange), by dimension."""
    each = width / (BEHIND + AHEAD)
    chart = np.full((TITLE + LANE * done.shape[1], width, 3), PANEL, np.uint8)
    now = round(BEHIND * each)
    for dim in range(done.shape[1]):
        middle = TITLE + LANE * dim + LANE // 2
        cv2.line(chart, (0, middle), (width, middle), LINE, 1)
        for k, value in enumerate(done[-BEHIND:, dim]):
            _bar(chart, now + (k - len(done[-BEHIND:])) * each, each, middle, value, DONE)
        for k, value in enumerate(planned[:AHEAD, dim]):
            _bar(chart, now + k * each, each, middle, value, PLANNED)
        _write(chart, "xyz"[dim] if dim < 3 else str(dim), (4, middle - 5), TEXT, 0.36)
    cv2.line(chart, (now, 0), (now, chart.shape[0]), TEXT, 1)
    _write(chart, "done", (now - 38, 12), DONE, 0.4)
    _write(chart, "planned", (now + 6, 12), PLANNED, 0.4)
    return chart


def _bar(
    chart: Image, left: float, wide: float, middle: int, value: float, colour: tuple[int, int, int]
) -> None:
    tip = middle - round(float(np.clip(value, -1, 1)) * (LANE // 2 - 2))
    corner, other = (round(left) + 1, middle), (round(left + wide) - 2, tip)
    cv2.rectangle(chart, corner, other, colour, -1)


def _write(
    image: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int], size: float = 0.45
) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
