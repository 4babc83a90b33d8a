"""Named settings of DreamerV3 (2023): the paper's, and small ones of our own."""

from __future__ import annotations

from dataclasses import replace

from wm_models.behaviors.dreamer import DreamerConfig, DreamerPreset
from wm_models.behaviors.dreamer_learner import DreamerLearnerConfig
from wm_models.behaviors.dreamer_v3 import (
    v3_behavior,
    v3_discrete,
    v3_heads,
    v3_model,
    v3_optimizers,
)
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling
from wm_models.nets.kl import EachFreeKL
from wm_models.registry import SUMMARIES

# Size S and the settings of the paper's DeepMind Control column (images, action repeat 2). A
# training ratio of 512 is an update per 16 * 64 / 512 = 2 steps. The PyTorch port that was compared
# with makes 100 whole updates before it goes on; here they are of the world model alone.
DREAMER_V3 = DreamerPreset(
    "dreamer_v3",
    SUMMARIES["dreamer_v3"],
    model=DreamerConfig(**v3_model(), kl=EachFreeKL()),
    learner=DreamerLearnerConfig(
        agent_batch=BatchSpec(16, 65),
        **v3_optimizers(),
        behavior=v3_behavior(),
        world_model_init=100,
        prefill=2500,
        train_every=2,
        sampling=Sampling(),
    ),
)

# The Atari 100k column: discrete actions, whose gradient is that of REINFORCE; ratio 1024.
DREAMER_V3_ATARI = DreamerPreset(
    "dreamer_v3_atari",
    SUMMARIES["dreamer_v3_atari"],
    model=DreamerConfig(**v3_discrete(v3_model()), kl=EachFreeKL()),
    learner=DreamerLearnerConfig(
        agent_batch=BatchSpec(16, 65),
        **v3_optimizers(),
        behavior=v3_behavior(actor_grad="reinforce"),
        world_model_init=100,
        prefill=2500,
        train_every=1,
        sampling=Sampling(),
    ),
)

# Where dreamer_v3_cpu departs from dreamer_v3 besides size, and why:
# - Imagination starts from 128 of the replayed states, drawn anew at each update, and is 12 steps
#   long: from all 256 over 15 steps it would take most of an update's time.
# - Learning rates are four and three times as high: a model of a sixth of the parameters takes
#   larger steps, and there are fewer updates.
# - An update per 5 steps and fewer rows in each: what one CPU core does while a simulator goes on.
# - Proprioception, where it is asked for, goes through 2 layers of 192 instead of 5 of 1024.
# - The world model learns alone for 200 updates: an actor trained in an untrained one saturates.
DREAMER_V3_CPU = DreamerPreset(
    "dreamer_v3_cpu",
    SUMMARIES["dreamer_v3_cpu"],
    model=DreamerConfig(
        **v3_model(depth=12, width=256, latents=16, units=192, proprio=v3_heads(192, 2)),
        kl=EachFreeKL(),
    ),
    learner=DreamerLearnerConfig(
        agent_batch=BatchSpec(8, 33),
        **v3_optimizers(4e-4, 1e-4),
        behavior=v3_behavior(starts=128, horizon=12),
        world_model_init=200,
        prefill=1000,
        train_every=5,
        sampling=Sampling(),
    ),
)

DREAMER_V3_CPU_DISCRETE = replace(
    DREAMER_V3_CPU,
    name="dreamer_v3_cpu_discrete",
    summary=SUMMARIES["dreamer_v3_cpu_discrete"],
    model=replace(DREAMER_V3_CPU.model, actor=DREAMER_V3_ATARI.model.actor),
    learner=replace(
        DREAMER_V3_CPU.learner,
        behavior=replace(DREAMER_V3_CPU.learner.behavior, actor_grad="reinforce"),
    ),
)

# dreamer_v3_cpu_xs is dreamer_v3_cpu with less of everything: an update takes about a third of the
# time, and sees half as many rows.
DREAMER_V3_CPU_XS = DreamerPreset(
    "dreamer_v3_cpu_xs",
    SUMMARIES["dreamer_v3_cpu_xs"],
    model=DreamerConfig(
        **v3_model(depth=8, width=256, latents=16, units=128, proprio=v3_heads(128, 2)),
        kl=EachFreeKL(),
    ),
    learner=DreamerLearnerConfig(
        agent_batch=BatchSpec(8, 17),
        **v3_optimizers(4e-4, 1e-4),
        behavior=v3_behavior(starts=64, horizon=8),
        world_model_init=200,
        prefill=1000,
        train_every=4,
        sampling=Sampling(),
    ),
)

PRESETS = (
    DREAMER_V3,
    DREAMER_V3_ATARI,
    DREAMER_V3_CPU,
    DREAMER_V3_CPU_DISCRETE,
    DREAMER_V3_CPU_XS,
)
