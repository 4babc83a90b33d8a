"""Statistics as LeRobot keeps them: of each feature of an episode, and of all episodes together."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SAMPLES = 100  # frames of an episode whose images the statistics are computed from
Stats = dict[str, Any]  # min, max, mean, std, count, and in v3 the quantiles


def of_values(values: np.ndarray, *, quantiles: bool) -> Stats:
    """Statistics over axis 0 of (n, d)."""
    wide = values.astype(np.float64)
    stats = {
        "min": values.min(0).tolist(),
        "max": values.max(0).tolist(),
        "mean": wide.mean(0).tolist(),
        "std": wide.std(0).tolist(),
        "count": [len(values)],
    }
    if quantiles:
        levels = np.quantile(wide, list(QUANTILES.values()), axis=0)
        stats |= {name: value.tolist() for name, value in zip(QUANTILES, levels)}
    return stats


def of_frames(frames: list[np.ndarray], *, quantiles: bool) -> Stats:
    """Statistics of each colour in [0, 1], in the shape (3, 1, 1); frames are (H, W, 3) uint8."""
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames]) / 255
    stats = of_values(pixels, quantiles=quantiles)
    return {
        name: [[[x]] for x in value] if name != "count" else [len(frames)]
        for name, value in stats.items()
    }


def together(parts: list[Stats]) -> Stats:
    """Statistics of several episodes; quantiles are the mean of theirs, as LeRobot has it."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = counts / counts.sum()

    def mean(name: str) -> np.ndarray:
        return np.tensordot(weights, np.array([part[name] for part in parts], np.float64), 1)

    spread = np.array([part["std"] for part in parts]) ** 2
    squares = spread + np.array([part["mean"] for part in parts]) ** 2
    variance = np.tensordot(weights, squares, 1) - mean("mean") ** 2
    combined = {
        "min": np.array([part["min"] for part in parts]).min(0).tolist(),
        "max": np.array([part["max"] for part in parts]).max(0).tolist(),
        "mean": mean("mean").tolist(),
        "std": np.sqrt(np.maximum(variance, 0)).tolist(),
        "count": [int(counts.sum())],
    }
    return combined | {name: mean(name).tolist() for name in QUANTILES if name in parts[0]}
