"""Comparison of named tensors, such as state dicts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def assert_same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """The same names, at least one, and equal values, bit for bit."""
    assert ours and ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different
