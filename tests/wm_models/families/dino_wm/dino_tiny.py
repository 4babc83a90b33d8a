"""The smallest DINO-WM with every mechanism, a robot for it, and batches of log rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wm_models.encoders.conv import ConvConfig
from wm_models.families.dino_wm.decoder import DecoderConfig
from wm_models.families.dino_wm.learner import DinoLearnerConfig
from wm_models.families.dino_wm.model import DinoConfig, DinoWorldModel
from wm_models.families.dino_wm.predictor import PredictorConfig
from wm_models.families.dino_wm.presets import DinoPreset
from wm_models.families.dino_wm.probe import ProbeConfig
from wm_models.families.dino_wm.tokens import EmbeddingConfig, TokenConfig
from wm_models.interface.embodiment import Embodiment
from wm_models.nets.optimizer import OptimizerConfig

SIZE = 16
EMBODIMENT = Embodiment(
    action_low=(-1.0, -0.5),
    action_high=(1.0, 1.5),
    action_mean=(0.1, 0.2),
    action_std=(0.5, 0.6),
    proprio_mean=(1.0, 2.0, 3.0),
    proprio_std=(0.5, 1.0, 2.0),
    period_s=0.1,
)

TINY = DinoPreset(
    "dino_tiny",
    "as small as every mechanism allows",
    model=DinoConfig(
        encoder=ConvConfig(image_size=SIZE, channels=(4, 8, 8), width=12),
        tokens=TokenConfig(
            proprio=EmbeddingConfig(width=4, fixed=True), action=EmbeddingConfig(width=5)
        ),
        predictor=PredictorConfig(depth=2, heads=2, head_width=8, hidden=24, dropout=0.1),
        decoder=DecoderConfig(channels=8, blocks=1, narrow=4),
        probe=ProbeConfig(channels=(3, 4), units=8),
        num_hist=3,
        frameskip=2,
        context=3,
        standardise=True,
    ),
    learner=DinoLearnerConfig(
        batch=4,
        predictor=OptimizerConfig(lr=3e-3, clip=1.0),
        encoder_batch=6,
        encoder_updates=2,
        measure_updates=1,
        decoder_every=2,
        prefill=0,
    ),
)


def build(seed: int = 0, embodiment: Embodiment = EMBODIMENT, **changes: object) -> DinoWorldModel:
    """TINY's model with some fields of its configuration changed."""
    model = replace(TINY.model, **changes)  # type: ignore[arg-type]
    return replace(TINY, model=model).build(embodiment, seed)


def rows(batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Log rows, actions in the model's units per robot step."""
    g = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (batch, length, SIZE, SIZE, 3), generator=g).byte(),
        "action": torch.randn(batch, length, 2, generator=g),
        "proprio": torch.randn(batch, length, 3, generator=g),
    }
