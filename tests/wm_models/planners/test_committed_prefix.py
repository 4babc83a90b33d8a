"""Committed values are imagined as the start of every candidate; the others are free."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from wm_models.planners.committed_prefix import with_committed_prefix, with_prefix
from wm_models.testing.contracts import seeded
from wm_models.testing.linear_model import LinearModel


@given(st.integers(0, 3), st.integers(1, 9))
def test_the_prefix_is_imagined_and_the_rest_is_free(size: int, seed: int) -> None:
    actions = torch.randn(2, 4, 3, 3, generator=seeded(seed))
    prefix = torch.arange(float(size))
    complete = with_prefix(actions, prefix)
    assert (complete[..., 0, :size] == prefix).all()
    assert torch.equal(complete[..., 0, size:], actions[..., 0, size:])
    assert torch.equal(complete[..., 1:, :], actions[..., 1:, :])
    model = LinearModel(torch.eye(3), 0.3 * torch.eye(3), torch.zeros(3))
    want, start = frozenset({"x"}), model.initial(2)
    rollout = with_committed_prefix(model, prefix).rollout(start, actions, want=want)
    expected = model.rollout(start, complete, want=want)
    assert torch.equal(rollout.feat["x"], expected.feat["x"])


def test_without_a_prefix_the_model_is_used_as_it_is() -> None:
    model = LinearModel(torch.eye(3), torch.eye(3), torch.zeros(3))
    assert with_committed_prefix(model, torch.zeros(0)) is model
