"""Named settings of MuDreamer: the paper's, and a small one of our own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.behaviors.dreamer_v3 import (
    v3_behavior,
    v3_discrete,
    v3_heads,
    v3_model,
    v3_optimizers,
)
from wm_models.families.mudreamer.learner import MuDreamerLearner, MuDreamerLearnerConfig
from wm_models.families.mudreamer.model import MuDreamer, MuDreamerConfig
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling
from wm_models.interface.world_model import WorldModel
from wm_models.nets.kl import EachFreeKL
from wm_models.registry import SUMMARIES


@dataclass(frozen=True)
class MuDreamerPreset(DreamerPreset):
    """MuDreamer and how it is trained."""

    model: MuDreamerConfig = field(default_factory=MuDreamerConfig)
    learner: MuDreamerLearnerConfig = field(default_factory=MuDreamerLearnerConfig)

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> MuDreamer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MuDreamer(self.model, self.fitted(embodiment))

    def build_learner(
        self, model: WorldModel, seed: int = 0, device: str | torch.device = "cpu"
    ) -> MuDreamerLearner:
        assert isinstance(model, MuDreamer)
        return MuDreamerLearner(model, self.learner, seed=seed, device=device)


def _model(settings: dict[str, Any]) -> MuDreamerConfig:
    """DreamerV3's settings with MuDreamer's norm and KL weights."""
    config = MuDreamerConfig(**settings, kl=EachFreeKL(dyn=0.95, rep=0.05))
    return replace(config, rssm=replace(config.rssm, posterior_norm="batch"))


# The DeepMind Control column: an update per 2 steps, as DreamerV3.
MUDREAMER = MuDreamerPreset(
    "mudreamer",
    SUMMARIES["mudreamer"],
    model=_model(v3_model()),
    learner=MuDreamerLearnerConfig(
        agent_batch=BatchSpec(16, 65),
        **v3_optimizers(),
        behavior=v3_behavior(),
        world_model_init=100,
        prefill=2500,
        train_every=2,
        sampling=Sampling(),
    ),
)

# Natural backgrounds: the reward, all that tells the task from the video, weighs 100 times as much.
MUDREAMER_BACKGROUNDS = replace(
    MUDREAMER,
    name="mudreamer_backgrounds",
    summary=SUMMARIES["mudreamer_backgrounds"],
    model=replace(MUDREAMER.model, reward_scale=100.0),
)

# Atari 100k: discrete actions, an update per step.
MUDREAMER_ATARI = replace(
    MUDREAMER,
    name="mudreamer_atari",
    summary=SUMMARIES["mudreamer_atari"],
    model=_model(v3_discrete(v3_model())),
    learner=replace(MUDREAMER.learner, behavior=v3_behavior(actor_grad="reinforce"), train_every=1),
)

# Where mudreamer_cpu departs from mudreamer besides size: as dreamer_v3_cpu from dreamer_v3, for
# the same reasons. Its windows are half as long as those of dreamer_v3_cpu, its imagination two
# steps shorter: without a decoder most of an update is behaviour. BatchNorm sees 8 rows per time
# step instead of 16.
MUDREAMER_CPU = MuDreamerPreset(
    "mudreamer_cpu",
    SUMMARIES["mudreamer_cpu"],
    model=_model(v3_model(depth=12, width=256, latents=16, units=128, proprio=v3_heads(128, 2))),
    learner=MuDreamerLearnerConfig(
        agent_batch=BatchSpec(8, 17),
        **v3_optimizers(4e-4, 1e-4),
        behavior=v3_behavior(starts=128, horizon=10),
        world_model_init=200,
        prefill=1000,
        train_every=4,
        sampling=Sampling(),
    ),
)

PRESETS = (MUDREAMER, MUDREAMER_BACKGROUNDS, MUDREAMER_ATARI, MUDREAMER_CPU)
