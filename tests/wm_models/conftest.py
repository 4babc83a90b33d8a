"""Small models and batches for all tests of wm_models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.wm_models.families.mwm.mwm_tiny import ACTIONS, TINY, log_rows
from wm_models.families.mwm.model import MaskedWorldModel
from wm_models.families.mwm.presets import MWMPreset
from wm_models.registry import PRESETS

torch.set_num_threads(1)


@pytest.fixture
def tiny() -> MWMPreset:
    return TINY


@pytest.fixture
def model() -> MaskedWorldModel:
    return TINY.build(ACTIONS, seed=1)


@pytest.fixture(scope="session")
def paper() -> MaskedWorldModel:
    """The model as published, for a 4-dimensional action; do not train it."""
    return PRESETS["mwm"].build(4).requires_grad_(False)


@pytest.fixture
def changed() -> Callable[..., MWMPreset]:
    """TINY with some fields of its parts changed: changed(autoencoder={...}, behavior={...})."""

    def make(**parts: dict[str, object]) -> MWMPreset:
        model, learner = TINY.model, TINY.learner
        for part, fields in parts.items():
            if part == "behavior":
                learner = replace(learner, behavior=replace(learner.behavior, **fields))
            elif part == "learner":
                learner = replace(learner, **fields)
            elif part == "model":
                model = replace(model, **fields)
            else:
                model = replace(model, **{part: replace(getattr(model, part), **fields)})
        return replace(TINY, model=model, learner=learner)

    return make


@pytest.fixture
def rows() -> Callable[..., dict[str, Tensor]]:
    """Log rows: rows(batch, length, size=32, seed=0), two episodes in every window."""
    return log_rows


@pytest.fixture
def batches(rows: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, dict[str, Tensor]]]:
    """The batches that a learner needs: batches(learner, seed)."""

    def make(learner: object, seed: int = 0) -> dict[str, dict[str, Tensor]]:
        size = learner.model.config.autoencoder.image_size
        return {
            name: rows(spec.batch, spec.length, size, seed)
            for name, spec in learner.batch_specs.items()
        }

    return make
