"""Frozen modules: gradients pass, weights get none, and what was frozen before stays so."""

from __future__ import annotations

import torch
from torch import nn

from wm_models.nets.freezing import frozen


def test_gradients_pass_through_a_frozen_module() -> None:
    inner, outer = nn.Linear(2, 2), nn.Linear(2, 2)
    inner.bias.requires_grad_(False)
    with frozen(outer):
        outer(inner(torch.ones(1, 2))).sum().backward()
    assert inner.weight.grad is not None and outer.weight.grad is None
    assert outer.weight.requires_grad and not inner.bias.requires_grad


def test_weights_thaw_after_an_error() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    try:
        with frozen(module):
            raise RuntimeError
    except RuntimeError:
        pass
    assert module.weight.requires_grad and not module.bias.requires_grad
