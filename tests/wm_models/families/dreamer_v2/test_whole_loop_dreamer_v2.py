"""DreamerV2 and APV on the smallest world: which way to push is written in the picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.wm_models.families.mwm.test_whole_loop import LENGTH, SIZE, log_rows, mean_reward
from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.families.apv.bonus import BonusConfig
from wm_models.families.apv.presets import APV_CPU
from wm_models.families.dreamer_v2.presets import DREAMER_V2_CPU
from wm_models.interface.learner import BatchSpec
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.heads import HeadConfig
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import keras_adam
from wm_models.planners import ActorPlanner


def smallest(preset: DreamerPreset) -> DreamerPreset:
    sizes = replace(preset.model.rssm, deter=24, hidden=24, stoch=4, classes=4)
    return replace(
        preset,
        model=replace(
            preset.model,
            observation=ObservationConfig(cnn=CNNConfig(SIZE, 4, "same")),
            rssm=sizes,
            heads=HeadConfig(units=24, layers=2),
        ),
        learner=replace(
            preset.learner,
            agent_batch=BatchSpec(8, LENGTH),
            world_model=keras_adam(3e-3),
            actor=keras_adam(1e-3),
            critic=keras_adam(1e-3),
            behavior=replace(preset.learner.behavior, horizon=4, starts=64),
            world_model_init=60,
        ),
    )


APV_SMALLEST = smallest(APV_CPU)
APV_SMALLEST = replace(
    APV_SMALLEST,
    learner=replace(
        APV_SMALLEST.learner, bonus=BonusConfig(scale=0.1), pretrained_parts=keras_adam(3e-3)
    ),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("preset", [smallest(DREAMER_V2_CPU), APV_SMALLEST], ids=["dv2", "apv"])
def test_it_learns_to_push_towards_the_light(preset: DreamerPreset) -> None:
    model = preset.build(1, seed=0)
    learner = preset.build_learner(model)
    g, acted = torch.Generator().manual_seed(0), 0.0
    while acted < 0.5 and learner.updates < 500:  # random play gets 0, the best 1
        for _ in range(20 if learner.updates else 90):
            specs = learner.batch_specs.items()
            learner.update({name: log_rows(spec.batch, spec.length, g) for name, spec in specs})
        acted = mean_reward(model, ActorPlanner())
    assert acted >= 0.5
    assert abs(mean_reward(preset.build(1, seed=5), ActorPlanner())) < 0.4  # so it was learned
