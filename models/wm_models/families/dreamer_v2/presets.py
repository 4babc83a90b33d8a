"""Named settings of DreamerV2: as published, as a baseline of later papers, and a small one."""

from __future__ import annotations

from dataclasses import replace

from wm_models.behaviors.actor_critic import BehaviorConfig
from wm_models.behaviors.dreamer import DreamerConfig, DreamerPreset
from wm_models.behaviors.dreamer_learner import DreamerLearnerConfig
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.heads import ActorConfig, HeadConfig
from wm_models.nets.kl import AveragedFreeKL
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import keras_adam
from wm_models.nets.rssm import RSSMConfig
from wm_models.registry import SUMMARIES

# Where papers and release differ, these presets do as the release: the gradient of samples, Adam's
# epsilon, and a decay of all weights that the learning rate does not scale.
_BEHAVIOR = BehaviorConfig(reward_norm=1.0)
_LEARNER = DreamerLearnerConfig(
    world_model=keras_adam(3e-4, decay_all=True),
    actor=keras_adam(8e-5, decay_all=True),
    critic=keras_adam(8e-5, decay_all=True),
    behavior=_BEHAVIOR,
)
_META_WORLD = replace(_LEARNER, sampling=Sampling(per_episode=True, ends=50))

# The baseline of MWM: its parameter count tells that its heads are as wide as MWM's.
DREAMER_V2 = DreamerPreset(
    "dreamer_v2",
    SUMMARIES["dreamer_v2"],
    model=DreamerConfig(heads=HeadConfig(units=512)),
    learner=_META_WORLD,
)

# The baseline of APV, which also begins with 100 updates in a row.
DREAMER_V2_LARGE = DreamerPreset(
    "dreamer_v2_large",
    SUMMARIES["dreamer_v2_large"],
    learner=replace(_META_WORLD, behavior_init=100),
)

DREAMER_V2_DMC = DreamerPreset(
    "dreamer_v2_dmc",
    SUMMARIES["dreamer_v2_dmc"],
    model=DreamerConfig(
        rssm=RSSMConfig(deter=200, hidden=200, img_in_act="elu", action_pad=0),
        kl=AveragedFreeKL(free=1.0),
    ),
    learner=replace(_LEARNER, agent_batch=BatchSpec(16, 51), behavior_init=100, prefill=1000),
)

# Images stay in colour; the paper's are grey.
DREAMER_V2_ATARI = DreamerPreset(
    "dreamer_v2_atari",
    SUMMARIES["dreamer_v2_atari"],
    model=DreamerConfig(
        rssm=RSSMConfig(deter=600, hidden=600, img_in_act="elu", action_pad=0),
        actor=ActorConfig("onehot", output_scale=1.0),
        kl=AveragedFreeKL(scale=0.1),
        squash_reward=True,
        discount=True,
        discount_scale=5.0,
        gamma=0.999,
    ),
    learner=replace(
        _LEARNER,
        agent_batch=BatchSpec(16, 51),
        world_model=keras_adam(2e-4, decay_all=True),
        actor=keras_adam(4e-5, decay_all=True),
        critic=keras_adam(1e-4, decay_all=True),
        behavior=replace(_BEHAVIOR, actor_grad="reinforce", detach_action=True, entropy=1e-3),
        behavior_init=1,
        prefill=50_000,
        train_every=16,
        sampling=Sampling(per_episode=True, ends=50),
    ),
)

# Where dreamer_v2_cpu departs from the DeepMind Control column besides size, and why:
# - Higher learning rates: a model this small bears them, and updates are few on one core.
# - Imagination starts from 128 of the replayed states and goes on for 12 steps: behaviour is the
#   larger part of the cost.
# - Behaviour starts after 200 updates of the world model: an actor that is trained in a bad model
#   saturates on its errors and does not come back (measured with mwm_cpu).
# - Returns are divided by their percentile range (DreamerV3), so that one entropy weight fits the
#   first reward as well as the last.
# - Windows begin at any row alike: of the few episodes that there are, first and last rows are
#   seen as often as the others.
DREAMER_V2_CPU = DreamerPreset(
    "dreamer_v2_cpu",
    SUMMARIES["dreamer_v2_cpu"],
    model=DreamerConfig(
        observation=ObservationConfig(cnn=CNNConfig(depth=12), mlp=HeadConfig(units=128, layers=2)),
        rssm=RSSMConfig(
            deter=256, hidden=256, stoch=16, classes=16, img_in_act="elu", action_pad=0
        ),
        heads=HeadConfig(units=192, layers=2),
        kl=AveragedFreeKL(free=1.0),
    ),
    learner=replace(
        _LEARNER,
        agent_batch=BatchSpec(8, 33),
        world_model=keras_adam(6e-4, decay_all=True),
        actor=keras_adam(1e-4, decay_all=True),
        critic=keras_adam(3e-4, decay_all=True),
        behavior=replace(_BEHAVIOR, horizon=12, starts=128, return_norm=True, entropy=1e-3),
        world_model_init=200,
        prefill=1000,
        sampling=Sampling(),
    ),
)

PRESETS = (
    DREAMER_V2,
    DREAMER_V2_LARGE,
    DREAMER_V2_DMC,
    DREAMER_V2_ATARI,
    DREAMER_V2_CPU,
)
