"""The smallest APV with every mechanism, and its pre-training."""

from __future__ import annotations

from dataclasses import replace

from wm_models.families.apv.bonus import BonusConfig
from wm_models.families.apv.presets import APV, APV_PRETRAIN, APVPreset
from wm_models.interface.learner import BatchSpec
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.heads import HeadConfig
from wm_models.nets.kl import AveragedFreeKL
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import keras_adam
from wm_models.nets.rssm import RSSMConfig

ACTIONS = 3
OBSERVATION = ObservationConfig(cnn=CNNConfig(depth=2), mlp=HeadConfig(units=8, layers=1))
SIZES = RSSMConfig(12, 10, 3, 4, img_in_act="elu")

TINY = replace(
    APV,
    model=replace(APV.model, observation=OBSERVATION, rssm=SIZES, heads=HeadConfig(units=8)),
    learner=replace(
        APV.learner,
        agent_batch=BatchSpec(2, 7),
        behavior=replace(APV.learner.behavior, horizon=4),
        bonus=BonusConfig(window=3, neighbours=4, queue=14, width=8),
        pretrained_parts=keras_adam(3e-4, decay_all=True, hold=2),
        behavior_init=0,
    ),
)


def with_model(**fields: object) -> APVPreset:
    return replace(TINY, model=replace(TINY.model, **fields))


def with_learner(**fields: object) -> APVPreset:
    return replace(TINY, learner=replace(TINY.learner, **fields))


# as on DeepMind Control: the embedding beside the state, free bits, no holding still
TINY_CONCAT = replace(
    with_model(concat_embed=True, af_kl_scale=0.5, kl=AveragedFreeKL(free=0.1)),
    learner=replace(
        TINY.learner,
        bonus=replace(TINY.learner.bonus, scale=0.1),
        pretrained_parts=keras_adam(3e-4, decay_all=True),
    ),
)
TINY_VIDEO = replace(
    APV_PRETRAIN,
    model=replace(APV_PRETRAIN.model, observation=OBSERVATION, rssm=SIZES),
    learner=replace(APV_PRETRAIN.learner, batch=BatchSpec(2, 6)),
)
