"""The smallest MWM with every mechanism, and log rows for it."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_models.behaviors.actor_critic import BehaviorConfig
from wm_models.families.mwm.autoencoder import AutoencoderConfig
from wm_models.families.mwm.learner import LearnerConfig
from wm_models.families.mwm.model import MWMConfig, TokenViTConfig
from wm_models.families.mwm.presets import MWMPreset
from wm_models.interface.learner import BatchSpec
from wm_models.nets.heads import HeadConfig
from wm_models.nets.optimizer import OptimizerConfig
from wm_models.nets.rssm import RSSMConfig

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


def log_rows(batch: int, length: int, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Log rows of two episodes in every window."""
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
