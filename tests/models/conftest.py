"""Small models and batches that every test here shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wm_models.autoencoder import AutoencoderConfig
from wm_models.behavior import BehaviorConfig
from wm_models.heads import HeadConfig
from wm_models.interface import BatchSpec
from wm_models.learner import LearnerConfig
from wm_models.mwm import MaskedWorldModel, MWMConfig, TokenViTConfig
from wm_models.optim import OptimizerConfig
from wm_models.presets import PRESETS, MWMPreset
from wm_models.rssm import RSSMConfig

torch.set_num_threads(1)

ACTIONS = 3

TINY = MWMPreset(
    "tiny",
    "as small as every mechanism allows",
    model=MWMConfig(
        autoencoder=AutoencoderConfig(
            image_size=32,
            channels=(4, 4, 8),
            width=16,
            encoder_layers=1,
            decoder_width=16,
            decoder_layers=1,
            heads=2,
        ),
        vit=TokenViTConfig(width=16, encoder_layers=1, decoder_layers=1, heads=2),
        rssm=RSSMConfig(deter=24, hidden=20, stoch=4, classes=5, action_pad=6),
        heads=HeadConfig(units=16, layers=2),
    ),
    learner=LearnerConfig(
        autoencoder_batch=BatchSpec(4, 3),
        agent_batch=BatchSpec(2, 5),
        autoencoder=OptimizerConfig(lr=1e-3, decay_all=True),
        world_model=OptimizerConfig(lr=1e-3),
        behavior=BehaviorConfig(horizon=4),
        autoencoder_init=0,
        prefill=0,
    ),
)


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

    def make(batch: int, length: int, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        shape = (batch, length)
        first = torch.zeros(shape, dtype=torch.bool)
        first[:, length // 2] = True
        last = torch.zeros(shape, dtype=torch.bool)
        last[:, length // 2 - 1] = True
        return {
            "image": torch.randint(0, 256, (*shape, size, size, 3), generator=g, dtype=torch.uint8),
            "action": torch.rand(*shape, ACTIONS, generator=g) * 2 - 1,
            "reward": torch.rand(shape, generator=g) * 10,
            "is_first": first,
            "is_last": last,
            "is_terminal": torch.zeros(shape, dtype=torch.bool),
        }

    return make


@pytest.fixture
def batches(rows: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, dict[str, Tensor]]]:
    """What a learner asks for next: batches(learner, seed)."""

    def make(learner: object, seed: int = 0) -> dict[str, dict[str, Tensor]]:
        size = learner.model.config.autoencoder.image_size
        return {
            name: rows(spec.batch, spec.length, size, seed)
            for name, spec in learner.batch_specs.items()
        }

    return make
