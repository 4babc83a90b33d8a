"""The action that moves nothing: zero in dimensions of velocity, the last value in positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wm_nodes.records import Vector

POSITION = "_position"  # a dimension of an action whose name ends so is a position


def still(names: Sequence[str], last: npt.ArrayLike) -> Vector:
    """Return the action (A,) that keeps the state which the action `last` (A,) commands."""
    kept = [name.endswith(POSITION) for name in names]
    return np.where(kept, np.asarray(last, np.float32), 0.0).astype(np.float32)
