"""Named settings: the release's sizes, and a small one of our own, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from wm_models.behaviors.actor_critic import BehaviorConfig
from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.behaviors.dreamer_learner import DreamerLearnerConfig
from wm_models.families.dreamer_v3n.model import DreamerV3N, DreamerV3NConfig, layers
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import laprop
from wm_models.nets.pooled_cnn import PooledCNNConfig
from wm_models.registry import SUMMARIES


@dataclass(frozen=True)
class DreamerV3NPreset(DreamerPreset):
    """DreamerV3 (Nature 2025)."""

    model: DreamerV3NConfig = field(default_factory=DreamerV3NConfig)

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> DreamerV3N:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return DreamerV3N(self.model, self.fitted(embodiment))


def sized(deter: int, hidden: int, classes: int, depth: int, units: int) -> DreamerV3NConfig:
    """The model in one of the release's sizes."""
    base = DreamerV3NConfig()
    return replace(
        base,
        observation=ObservationConfig(
            cnn=PooledCNNConfig(depth=depth, units=units), mlp=layers(3, units)
        ),
        rssm=replace(base.rssm, deter=deter, hidden=hidden, classes=classes),
        heads=layers(1, units),
        behavior_heads=layers(3, units),
    )


# One optimiser in the release is three here, with one backward of the sum of the losses: clipping
# is per tensor and LaProp per weight, so that the weights move alike.
PUBLISHED = DreamerLearnerConfig(
    agent_batch=BatchSpec(16, 65),
    joint=True,
    world_model=laprop(),
    actor=laprop(),
    critic=laprop(),
    behavior=BehaviorConfig(
        entropy=3e-4,
        actor_grad="reinforce",
        sample_gradient="exact",
        detach_action=True,
        reward_norm=1.0,
        return_norm=True,
        returns="next",
        bootstrap="online",
        target="ema",
        slow_regularizer=1.0,
        weigh_start=True,
        replay_value=0.3,
    ),
    prefill=1024,  # rows of one batch; the release waits as long, but its own actor acts meanwhile
    train_every=4,  # 1024 rows an update at a train ratio of 256 rows a decision (DMC vision)
    sampling=Sampling(),
)

SIZES = {  # of the release, by its name in the preset's
    "dreamer_v3n_1m": sized(deter=512, hidden=64, classes=4, depth=4, units=64),
    "dreamer_v3n": DreamerV3NConfig(),
    "dreamer_v3n_12m": DreamerV3NConfig(),
    "dreamer_v3n_25m": sized(deter=3072, hidden=384, classes=24, depth=24, units=384),
    "dreamer_v3n_50m": sized(deter=4096, hidden=512, classes=32, depth=32, units=512),
    "dreamer_v3n_200m": sized(deter=8192, hidden=1024, classes=64, depth=64, units=1024),
}
DREAMER_V3N_PUBLISHED = tuple(
    DreamerV3NPreset(name, SUMMARIES[name], model=model, learner=PUBLISHED)
    for name, model in SIZES.items()
)
_BASE = DREAMER_V3N_PUBLISHED[1]
DREAMER_V3N_R2 = replace(
    _BASE,
    name="dreamer_v3n_r2",
    summary=SUMMARIES["dreamer_v3n_r2"],
    model=replace(_BASE.model, representation="r2"),
)

# Where dreamer_v3n_cpu departs from the published settings besides size, and why:
# - Smaller batches of replayed rows and of starts, and shorter imagination: an update has to take
#   a fraction of a second on one core.
# - A learning rate ten times as high after a tenth of the warm-up: there are thousands of updates
#   here, not hundreds of thousands, and the model is small.
DREAMER_V3N_CPU = DreamerV3NPreset(
    "dreamer_v3n_cpu",
    SUMMARIES["dreamer_v3n_cpu"],
    model=replace(
        (_small := sized(deter=512, hidden=128, classes=16, depth=8, units=128)),
        rssm=replace(_small.rssm, stoch=16),
    ),
    learner=replace(
        PUBLISHED,
        agent_batch=BatchSpec(8, 17),
        world_model=laprop(4e-4, warmup=100),
        actor=laprop(4e-4, warmup=100),
        critic=laprop(4e-4, warmup=100),
        behavior=replace(PUBLISHED.behavior, horizon=12, starts=128),
    ),
)

DREAMER_V3N_SMALL = (DREAMER_V3N_CPU,)
PRESETS = (*DREAMER_V3N_PUBLISHED, DREAMER_V3N_R2, *DREAMER_V3N_SMALL)
