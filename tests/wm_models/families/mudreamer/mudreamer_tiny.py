"""The smallest MuDreamer with every mechanism."""

from __future__ import annotations

from dataclasses import replace

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import SMALL, embodiment_of, log_rows
from wm_models.behaviors.dreamer_v3 import v3_behavior, v3_heads, v3_model, v3_optimizers
from wm_models.families.mudreamer.learner import MuDreamerLearner, MuDreamerLearnerConfig
from wm_models.families.mudreamer.model import MuDreamerConfig
from wm_models.families.mudreamer.presets import MUDREAMER, MuDreamerPreset
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling

_MODEL = MuDreamerConfig(
    **v3_model(depth=4, width=12, latents=4, units=10, proprio=v3_heads(10, 2)),
    kl=MUDREAMER.model.kl,
)
TINY = MuDreamerPreset(
    "tiny",
    "as small as every mechanism allows",
    model=replace(_MODEL, rssm=replace(_MODEL.rssm, posterior_norm="batch")),
    learner=MuDreamerLearnerConfig(
        agent_batch=BatchSpec(4, 7),
        **v3_optimizers(1e-3, 1e-3),
        behavior=v3_behavior(horizon=3),
        prefill=0,
        sampling=Sampling(),
    ),
).varied(SMALL)


def learner_of(
    settings: dict[str, object] | None = None, seed: int = 1, cameras: tuple[str, ...] = ()
) -> MuDreamerLearner:
    preset = TINY.varied(settings or {})
    embodiment = replace(embodiment_of(preset), cameras=cameras)
    return preset.build_learner(preset.build(embodiment, seed=seed), seed=seed)


def batch_for(learner: MuDreamerLearner, seed: int = 0) -> dict[str, dict]:
    spec, discrete = learner.config.agent_batch, learner.model.actor.config.discrete
    rows = log_rows(spec.batch, spec.length, seed, discrete)
    for shift, key in enumerate(learner.model.spec.image_keys):  # each camera another image
        rows[key] = rows["image"].roll(shift, -2)
    return {"agent": rows}
