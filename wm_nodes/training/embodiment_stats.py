"""Measure a robot on its logs: bounds and statistics, which a model's weights keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_datasets.errors import LogEmptyError
from wm_datasets.log.reader import LogReader
from wm_models.interface.embodiment import Embodiment

STILL = 1e-6  # a dimension that varies less is not scaled
HELD = 0.01  # half the width of the box of an action that has no bounds and never moved
# Least deviation of proprioception, as a share of its range: without it the noise of a joint that
# did not move in the logs would be scaled to hundreds of deviations.
LEAST = 0.01


def measure_embodiment(readers: Sequence[LogReader]) -> Embodiment:
    """Return the embodiment of the robot that these logs are of.

    The box of actions is the first log's specification; where that is infinite, what was done, or
    HELD about the one value of a dimension that never moved.
    Mean and deviation are over all rows but those of evaluation episodes, actions without the zeros
    of an episode's last row.
    """
    spec = readers[0].spec
    assert spec.action is not None
    actions = np.concatenate([_actions(reader) for reader in readers])
    if not len(actions):
        raise LogEmptyError(
            f"{readers[0].path}: got no actions, expected an episode. Record one first."
        )
    low, high = np.asarray(spec.action.low), np.asarray(spec.action.high)
    least, most = actions.min(0), actions.max(0)
    low, high = np.where(np.isfinite(low), low, least), np.where(np.isfinite(high), high, most)
    held = high <= low  # no bounds, and it never moved: nothing else is known to be safe
    low, high = np.where(held, low - HELD, low), np.where(held, low + HELD, high)
    mean, std = _statistics(actions)
    proprio_mean, proprio_std = np.zeros(0), np.zeros(0)
    if spec.proprio is not None:
        proprio = [
            reader.read("proprio", reader.first, reader.length)[~reader.evaluation_rows()]
            for reader in readers
        ]
        proprio_mean, proprio_std = _statistics(np.concatenate(proprio))
        wide = np.asarray(spec.proprio.high) - np.asarray(spec.proprio.low)
        proprio_std = np.maximum(proprio_std, np.where(np.isfinite(wide), LEAST * wide, 0.0))
    return Embodiment(
        action_low=tuple(low.tolist()),
        action_high=tuple(high.tolist()),
        action_mean=tuple(mean.tolist()),
        action_std=tuple(std.tolist()),
        proprio_mean=tuple(proprio_mean.tolist()),
        proprio_std=tuple(proprio_std.tolist()),
        period_s=spec.control_period_s,
        discrete=spec.action.discrete,
    )


def _actions(reader: LogReader) -> np.ndarray:
    rows = slice(reader.first, reader.length)
    last = reader.read("is_last", rows.start, rows.stop)
    actions: np.ndarray = reader.read("action", rows.start, rows.stop)
    chosen: np.ndarray = actions[~last & ~reader.evaluation_rows()]
    return chosen


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of (n, D); 1 for dimensions that do not vary."""
    wide = values.astype(np.float64)
    std = wide.std(0)
    return wide.mean(0), np.where(std > STILL, std, 1.0)
