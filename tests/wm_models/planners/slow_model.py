"""A model whose rollouts take time on a simulated clock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from wm_models.testing.linear_model import LinearModel

ROLLOUT_S = 0.02


def slowed(model: LinearModel, monkeypatch: pytest.MonkeyPatch) -> LinearModel:
    """Return the model with a clock that advances by ROLLOUT_S at each rollout, and only then."""
    now_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)

    class SlowModel(LinearModel):
        def rollout(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal now_s
            now_s += ROLLOUT_S
            return super().rollout(*args, **kwargs)

    return SlowModel(model.f, model.g, model.aim)
