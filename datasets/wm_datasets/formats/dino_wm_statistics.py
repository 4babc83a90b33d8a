"""Statistics of DINO-WM's datasets, as its own loaders compute them.

Its models see z-scores, and its checkpoints do not hold the means and deviations behind these. They
are those of all valid steps, before the split into training and validation (n - 1 in the variance).
Exceptions, each as in its loader: PushT has constants in the code; the deformable objects have no
proprioception but a zero, and 1e-6 on top of every deviation.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_datasets.formats.base import CorruptInputError, FormatError
from wm_datasets.formats.dino_wm_deformable import is_deformable
from wm_datasets.formats.torch_file import load_tensor

Numbers = tuple[float, ...]
_LEAST = 1e-6
_PUSHT_PIXELS = 100.0
# datasets/pusht_dset.py: actions / 100; agent x, y and velocities.
_PUSHT = (
    (-0.0087, 0.0068),
    (0.2019, 0.2002),
    (236.6155, 264.5674, -2.93032027, 2.54307914),
    (101.1202, 87.0112, 74.84556075, 74.14009094),
)


@dataclass(frozen=True)
class Statistics:
    """Of actions [A] and proprioception [P], in the units of the loaders; low and high are the
    smallest and largest actions."""

    action_low: Numbers
    action_high: Numbers
    action_mean: Numbers
    action_std: Numbers
    proprio_mean: Numbers
    proprio_std: Numbers


def pusht_statistics(velocity: bool = True, normalised: bool = True) -> Statistics:
    """PushT's constants; actions lie within 100 pixels here, as no data is looked at."""
    kept = 4 if velocity else 2
    a_mean, a_std, p_mean, p_std = _PUSHT
    statistics = Statistics((-1.0,) * 2, (1.0,) * 2, a_mean, a_std, p_mean[:kept], p_std[:kept])
    return statistics if normalised else _plain(statistics)


def statistics(folder: Path, episodes: int | None = None, *, normalised: bool = True) -> Statistics:
    """The statistics of a dataset's folder (the one with states.pth, or with train/states.pth).

    `episodes`: of the first so many only (`n_rollout` there). `normalised` false: means 0 and
    deviations 1. FormatError, CorruptInputError.
    """
    place = next((p for p in (folder, folder / "train") if (p / "states.pth").exists()), None)
    if place is None:
        raise FormatError(f"{folder}: no states.pth, so it is not DINO-WM's layout.")
    if (place / "rel_actions.pth").exists():
        actions = _tensor(place / "rel_actions.pth")[:episodes] / _PUSHT_PIXELS
        statistics = pusht_statistics((place / "velocities.pth").exists())
        low, high = _box([actions.reshape(-1, actions.shape[-1])])
        statistics = Statistics(low, high, *_moments(statistics))
    else:
        actions = _tensor(place / "actions.pth")[:episodes].astype(np.float64)
        if is_deformable(place):
            steps = [actions.reshape(-1, actions.shape[-1])]
            mean, std = _spread(steps)
            std = tuple(x + _LEAST for x in std)
            statistics = Statistics(*_box(steps), mean, std, (0.0,), (_LEAST,))
        else:
            states = _tensor(place / "states.pth")[:episodes].astype(np.float64)
            lengths = _lengths(place, *states.shape[:2])
            steps = [episode[:n] for episode, n in zip(actions, lengths)]
            used = [episode[:n] for episode, n in zip(states, lengths)]
            statistics = Statistics(*_box(steps), *_spread(steps), *_spread(used))
    return statistics if normalised else _plain(statistics)


def _moments(s: Statistics) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    return s.action_mean, s.action_std, s.proprio_mean, s.proprio_std


def _plain(s: Statistics) -> Statistics:
    a, p = len(s.action_mean), len(s.proprio_mean)
    return Statistics(s.action_low, s.action_high, (0.0,) * a, (1.0,) * a, (0.0,) * p, (1.0,) * p)


def _box(steps: list[np.ndarray]) -> tuple[Numbers, Numbers]:
    every = np.concatenate(steps)
    low, high = every.min(0), every.max(0)
    return _numbers(low), _numbers(np.where(high > low, high, low + 1.0))


def _spread(steps: list[np.ndarray]) -> tuple[Numbers, Numbers]:
    every = np.concatenate(steps)
    if len(every) < 2:
        raise FormatError(
            f"statistics: got {len(every)} steps, expected 2 or more for a deviation."
        )
    return _numbers(every.mean(0)), _numbers(every.std(0, ddof=1))


def _numbers(values: Iterable[float]) -> Numbers:
    return tuple(float(x) for x in values)


def _lengths(place: Path, episodes: int, steps: int) -> list[int]:
    """PointMaze's episodes differ in length; Wall's are all as long as the arrays."""
    path = place / "seq_lengths.pth"
    if not path.exists():
        return [steps] * episodes
    lengths = [int(x) for x in _tensor(path).reshape(-1)[:episodes]]
    if len(lengths) != episodes or not all(0 < n <= steps for n in lengths):
        raise CorruptInputError(
            path,
            f"got {len(lengths)} lengths from {min(lengths, default=0)} to "
            f"{max(lengths, default=0)}, expected {episodes} from 1 to {steps}.",
        )
    return lengths


def _tensor(path: Path) -> np.ndarray:
    try:
        return load_tensor(path)
    except FileNotFoundError:
        raise FormatError(
            f"{path.parent}: no {path.name}, so it is not DINO-WM's layout."
        ) from None
    except (OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CorruptInputError(path, error) from error
