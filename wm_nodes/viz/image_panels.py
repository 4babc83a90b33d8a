"""Images of an episode in RGB: its cameras, and sensors that are images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from wm_datasets import LogReader
from wm_nodes.robots.robot import Image

SAMPLE = 32  # images of an episode that determine the scale

Paint = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Panel:
    """A field of images; `paint` turns rows (n, *shape) into (n, height, width, 3) uint8."""

    field: str
    height: int
    width: int
    paint: Paint


def panels(log: LogReader, start: int, rows: int) -> list[Panel]:
    """Return the panels of the episode of these rows; fields that it lacks have none.

    Depth and other images of one number per pixel go from blue (near) to red (far), scaled to the
    range of the episode; 0 (no measurement) is black. Sensors of 2 or more than 3 channels have no
    panel.
    """
    shown = []
    for name, field in log.spec.fields.items():
        group, shape = name.partition("/")[0], field.shape
        if group not in ("image", "sensor") or log.since(name) > start or len(shape) < 2:
            continue
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
            colours = field.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
            paint: Paint = _unchanged if colours else _scaled(log, name, start, rows)
            shown.append(Panel(name, shape[0], shape[1], paint))
    return shown


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


def _scaled(log: LogReader, name: str, start: int, rows: int) -> Paint:
    """Return a painter with one scale for the whole episode."""
    chosen = np.unique(np.linspace(start, start + rows - 1, min(SAMPLE, rows)).astype(int))
    sample = np.concatenate([log.read(name, row, row + 1).ravel() for row in chosen.tolist()])
    sample = sample[sample != 0]
    low, high = 0.0, 1.0
    if len(sample):
        low, high = (float(q) for q in np.quantile(sample, (0.01, 0.99)))

    def paint(values: np.ndarray) -> np.ndarray:
        share = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-9), 0, 1)
        grey = (share * 255).astype(np.uint8)
        if values.ndim == 4 and values.shape[3] == 3:
            return grey
        flat = grey.reshape(values.shape[:3])
        return np.stack([_coloured(*pair) for pair in zip(flat, values.reshape(flat.shape))])

    return paint


def _coloured(grey: Image, values: np.ndarray) -> Image:
    """Colour one image (H, W); black where it is 0."""
    colours = np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO))[..., ::-1]
    return np.where(values[..., None] == 0, 0, colours).astype(np.uint8)
