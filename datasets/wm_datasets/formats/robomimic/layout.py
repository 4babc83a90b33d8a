"""What a robomimic file may hold, checked where it is read: vectors, images, numbers per step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_datasets.spec import LogSpec, VectorSpec

BROKEN = (OSError, KeyError, ValueError, RuntimeError, TypeError, IndexError)


def own_spec(text: Any) -> LogSpec:
    """Return the spec that the attribute wm_log holds as JSON."""
    try:
        return LogSpec.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"attribute wm_log of 'data' is not a spec: {error!r}") from error


def is_numbers(dataset: Any) -> bool:
    """Is it a dataset, not a group, of numbers or flags with one entry per row?"""
    kind = getattr(getattr(dataset, "dtype", None), "kind", "")
    return kind in tuple("fiub") and getattr(dataset, "ndim", 0) > 0


def is_image(dataset: Any) -> bool:
    return (
        is_numbers(dataset)
        and dataset.ndim == 4
        and dataset.shape[-1] == 3
        and dataset.dtype == np.uint8
    )


def is_vector(dataset: Any) -> bool:
    return is_numbers(dataset) and dataset.ndim <= 2 and math.prod(dataset.shape[1:]) > 0


def is_empty(demo: Any) -> bool:
    """Is it a demo whose actions are there, and none?"""
    actions: Any = demo.get("actions") if hasattr(demo, "get") else None
    return is_numbers(actions) and len(actions) == 0


def read_actions(demo: Any) -> np.ndarray:
    """Return the actions (T, A) of a demo; (T,) in the file is one dimension."""
    actions = demo["actions"]
    if not is_numbers(actions) or actions.ndim > 2 or 0 in actions.shape:
        stored = f"{actions.dtype} {actions.shape}" if hasattr(actions, "dtype") else "a group"
        raise ValueError(f"actions: got {stored}, expected numbers (T, A)")
    values: np.ndarray = actions[()]
    return values.reshape(len(values), -1)


def has_per_step(demo: Any, name: str) -> bool:
    """Does it hold one number for each action, (T,) or (T, 1)?"""
    values = demo.get(name)
    return is_numbers(values) and math.prod(values.shape) == len(values) == len(demo["actions"])


def read_per_step(demo: Any, name: str) -> np.ndarray:
    """Return one number for each action, (T,)."""
    if not has_per_step(demo, name):
        stored = getattr(demo.get(name), "shape", "no array")
        raise ValueError(
            f"{name}: got {stored}, expected one number for each of {len(demo['actions'])} actions"
        )
    values: np.ndarray = demo[name][()]
    return values.reshape(-1)


def words(value: Any) -> list[str]:
    """Return a word, or a list of words; nothing where it is neither."""
    words = value if isinstance(value, list) else [value]
    return words if all(isinstance(word, str) for word in words) else []


def vector_spec(
    parts: dict[str, int], bounds: Sequence[float] | np.ndarray | None = None
) -> VectorSpec:
    """Names key[0], key[1] ... of joined vectors; robomimic declares neither units nor bounds."""
    names = tuple(f"{k}[{i}]" if n > 1 else k for k, n in parts.items() for i in range(n))
    high = np.full(len(names), math.inf) if bounds is None else np.asarray(bounds)
    return VectorSpec(names, ("",) * len(names), tuple(-high), tuple(high))


def read_observation(demo: Any, name: str, whole: bool) -> np.ndarray:
    """Return obs/<name> and, of a whole demo, the last of next_obs/<name> behind it."""
    value = demo["obs"][name][()]
    return np.concatenate([value, demo["next_obs"][name][-1:]]) if whole else value


def padded(value: np.ndarray, rows: int) -> np.ndarray:
    """Return float32 with a row of zeros behind, up to that many rows."""
    return float32(np.concatenate([value, np.zeros_like(value[:1])])[:rows])


def float32(value: np.ndarray) -> np.ndarray:
    """As float32; what is too large becomes infinite, which the log refuses."""
    with np.errstate(over="ignore"):
        return value.astype(np.float32)
