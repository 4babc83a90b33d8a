"""The smallest DreamerV3 of 2025 with every mechanism, and log rows for it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wm_models.families.dreamer_v3n.model import DreamerV3NConfig, layers
from wm_models.families.dreamer_v3n.presets import PUBLISHED, DreamerV3NPreset
from wm_models.interface.learner import BatchSpec
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import laprop
from wm_models.nets.pooled_cnn import PooledCNNConfig

ACTIONS = 3
_BASE = DreamerV3NConfig()

TINY = DreamerV3NPreset(
    "tiny",
    "as small as every mechanism allows",
    model=replace(
        _BASE,
        observation=ObservationConfig(
            cnn=PooledCNNConfig(image_size=16, depth=2, mults=(2, 4, 4), units=8, blocks=4),
            mlp=layers(3, 8),
        ),
        rssm=replace(_BASE.rssm, deter=16, hidden=8, stoch=4, classes=4, blocks=4),
        heads=layers(1, 8),
        behavior_heads=layers(3, 8),
    ),
    learner=replace(
        PUBLISHED,
        agent_batch=BatchSpec(2, 5),
        world_model=laprop(1e-3, warmup=0),
        actor=laprop(1e-3, warmup=0),
        critic=laprop(1e-3, warmup=0),
        behavior=replace(PUBLISHED.behavior, horizon=5),
        prefill=0,
    ),
)


def log_rows(
    batch: int,
    length: int,
    seed: int = 0,
    discrete: bool = False,
    proprio: int = 0,
    images: tuple[str, ...] = ("image",),
) -> dict[str, Tensor]:
    """Log rows of two episodes in every window."""
    g = torch.Generator().manual_seed(seed)
    shape, half = (batch, length), length // 2
    first, last = torch.zeros(shape).bool(), torch.zeros(shape).bool()
    first[:, half] = True
    last[:, half - 1] = True
    action = torch.rand(*shape, ACTIONS, generator=g) * 2 - 1
    if discrete:
        action = torch.nn.functional.one_hot(action.argmax(-1), ACTIONS).float()
    rows = {
        **{
            name: torch.randint(0, 256, (*shape, 16, 16, 3), generator=g, dtype=torch.uint8)
            for name in images
        },
        "action": action,
        "reward": torch.rand(shape, generator=g) * 10,
        "is_first": first,
        "is_last": last,
        "is_terminal": torch.zeros(shape).bool(),
    }
    if proprio:
        rows["proprio"] = torch.randn(*shape, proprio, generator=g)
    return rows
