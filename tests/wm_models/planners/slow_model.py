"""A model whose rollouts take time on a simulated clock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from wm_models.testing.linear_model import LinearModel

ROLLOUT_S = 0.02


class SlowModel(LinearModel):
    """now_s: the simulated clock; it advances by ROLLOUT_S at each rollout, and only then."""

    now_s = 0.0

    def rollout(self, *args: Any, **kwargs: Any) -> Any:
        self.now_s += ROLLOUT_S
        return super().rollout(*args, **kwargs)


def slowed(model: LinearModel, monkeypatch: pytest.MonkeyPatch) -> SlowModel:
    """Return a slow copy of the model, whose clock replaces `time.perf_counter`."""
    slow = SlowModel(model.f, model.g, model.aim)
    monkeypatch.setattr(time, "perf_counter", lambda: slow.now_s)
    return slow
