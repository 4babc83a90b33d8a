"""The smallest DreamerV3 with every mechanism, and log rows for it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wm_models.behaviors.dreamer import DreamerConfig, DreamerPreset
from wm_models.behaviors.dreamer_learner import DreamerLearnerConfig
from wm_models.behaviors.dreamer_v3 import v3_behavior, v3_heads, v3_model, v3_optimizers
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Preset, Sampling
from wm_models.nets.kl import EachFreeKL

ACTIONS, PROPRIO, PIXELS = 3, 2, 16
EMBODIMENT = Embodiment(
    (-1.0,) * ACTIONS, (1.0,) * ACTIONS, (0.0,) * ACTIONS, (1.0,) * ACTIONS,
    (0.0,) * PROPRIO, (1.0,) * PROPRIO,
)  # fmt: skip
DISCRETE_EMBODIMENT = replace(
    EMBODIMENT, action_low=(0.0,) * ACTIONS, action_high=(1.0,) * ACTIONS, discrete=True
)
DISCRETE = {"model.actor.kind": "onehot", "learner.behavior.actor_grad": "reinforce"}
SMALL = {"model.observation.cnn.image_size": PIXELS}

TINY = DreamerPreset(
    "tiny",
    "as small as every mechanism allows",
    model=DreamerConfig(
        **v3_model(depth=4, width=12, latents=4, units=10, proprio=v3_heads(10, 2)),
        kl=EachFreeKL(),
    ),
    learner=DreamerLearnerConfig(
        agent_batch=BatchSpec(3, 6),
        **v3_optimizers(1e-3, 1e-3),
        behavior=v3_behavior(horizon=4),
        prefill=0,
        sampling=Sampling(),
    ),
).varied(SMALL)


def embodiment_of(preset: Preset) -> Embodiment:
    """The robot with the kind of actions that a preset is for."""
    return DISCRETE_EMBODIMENT if preset.discrete else EMBODIMENT


def log_rows(batch: int, length: int, seed: int = 0, discrete: bool = False) -> dict[str, Tensor]:
    """Log rows of two episodes in every window; the first one ends for good in one of them."""
    g = torch.Generator().manual_seed(seed)
    shape = (batch, length)
    first, last, terminal = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    first[:, length // 2] = True
    last[:, length // 2 - 1] = True
    terminal[0, length // 2 - 1] = True
    action = torch.rand(*shape, ACTIONS, generator=g) * 2 - 1
    if discrete:
        action = torch.nn.functional.one_hot(action.argmax(-1), ACTIONS).float()
    return {
        "image": torch.randint(0, 256, (*shape, PIXELS, PIXELS, 3), generator=g, dtype=torch.uint8),
        "proprio": torch.randn(*shape, PROPRIO, generator=g) * 3,
        "action": action,
        "reward": torch.randn(shape, generator=g) * 3,
        "is_first": first,
        "is_last": last,
        "is_terminal": terminal,
    }
