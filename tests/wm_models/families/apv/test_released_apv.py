"""Three updates of a small APV, and of its pre-training, against those of the released code, with
equal weights, batches and noise.

The stored numbers were computed with younggyoseo/apv at commit 3efa621 (apv_finetuning and
apv_pretraining), in float32 under TensorFlow 2.15 with Keras' legacy Adam, whose formula is that of
TensorFlow 2.6. Set in it were weights, batches, the projection of the bonus, and samples, which are
drawn from the same uniform numbers as here (one-hot ones by Gumbel noise, actions by the inverse
CDF, with the gradient of samples of the libraries of 2021); windows of its `sliding_window` were
stacked by hand. Constants of normal densities are taken off its losses. Stored are the metrics of
three updates and the gradients of the first, as clipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.wm_models.families.apv.apv_tiny import ACTIONS, TINY, TINY_CONCAT, TINY_VIDEO
from tests.wm_models.families.released import (
    arrived,
    assert_agrees,
    fill,
    fixed_noise,
    three_updates,
)

STORED = Path(__file__).parent / "released.safetensors"
CASES = {
    "apv": TINY,  # encoder and action-free RSSM hold still for two updates
    "concat": TINY_CONCAT,  # with the embedding, free bits, a weak bonus and the first KL term
}


@pytest.mark.parametrize("case", CASES)
def test_three_updates_agree_with_the_release(case: str) -> None:
    preset = CASES[case]
    model = fill(preset.build(ACTIONS))
    learner = preset.build_learner(model)
    learner.behavior.target.load_state_dict(model.critic.state_dict())
    noise = np.random.RandomState(9).standard_normal(learner.bonus.projection.shape)
    learner.bonus.projection.copy_(torch.from_numpy(noise / learner.bonus.config.width))
    with fixed_noise():
        metrics, gradients = three_updates(learner, arrived(ACTIONS))
    assert_agrees(load_file(STORED), case, metrics, gradients)


def test_three_updates_of_pre_training_agree_with_the_release() -> None:
    model = fill(TINY_VIDEO.build(ACTIONS))
    learner, batch = TINY_VIDEO.build_learner(model), {"videos": arrived(ACTIONS)}
    with fixed_noise():
        metrics = [learner.update(batch)]
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        metrics += [learner.update(batch) for _ in range(2)]
    assert_agrees(load_file(STORED), "video", metrics, gradients)
