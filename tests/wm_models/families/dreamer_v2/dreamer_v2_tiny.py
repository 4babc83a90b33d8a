"""The smallest DreamerV2 with every mechanism."""

from __future__ import annotations

from dataclasses import replace

from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.families.dreamer_v2.presets import DREAMER_V2_ATARI, DREAMER_V2_DMC
from wm_models.interface.learner import BatchSpec
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.heads import HeadConfig
from wm_models.nets.kl import AveragedFreeKL
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.rssm import RSSMConfig

ACTIONS = 3


def small(preset: DreamerPreset, **behavior: object) -> DreamerPreset:
    """A preset with tiny networks, and all that its losses say left as it is."""
    return replace(
        preset,
        model=replace(
            preset.model,
            observation=ObservationConfig(
                cnn=CNNConfig(depth=2), mlp=HeadConfig(units=8, layers=1)
            ),
            rssm=RSSMConfig(12, 10, 3, 4, img_in_act="elu", action_pad=0),
            heads=HeadConfig(units=8),
        ),
        learner=replace(
            preset.learner,
            agent_batch=BatchSpec(2, 6),
            behavior=replace(preset.learner.behavior, horizon=4, **behavior),
            behavior_init=0,
        ),
    )


TINY = small(DREAMER_V2_DMC)
TINY = replace(TINY, model=replace(TINY.model, kl=AveragedFreeKL(free=0.1)))
TINY_ATARI = small(DREAMER_V2_ATARI)


def changed(preset: DreamerPreset, **parts: dict[str, object]) -> DreamerPreset:
    """A preset with fields of its model, learner or behaviour changed."""
    learner = replace(preset.learner, **parts.get("learner", {}))
    behavior = replace(learner.behavior, **parts.get("behavior", {}))
    return replace(
        preset,
        model=replace(preset.model, **parts.get("model", {})),
        learner=replace(learner, behavior=behavior),
    )


TINY_BOTH = changed(TINY, behavior={"actor_grad": "both"})
