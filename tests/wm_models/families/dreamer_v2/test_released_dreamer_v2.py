"""Three updates of a small DreamerV2 against those of the released code, with equal weights,
batches and noise.

The stored numbers were computed with danijar/dreamerv2 at commit 07d906e, in float32 under
TensorFlow 2.15 with Keras' legacy Adam, whose formula is that of TensorFlow 2.6. Three things were
set in it: weights, batches, and samples, which are drawn from the same uniform numbers as here
(one-hot ones by Gumbel noise, actions by the inverse CDF, with the gradient of samples of the
libraries of 2021). Constants of normal densities are taken off its losses. Stored are the metrics
of three updates, which the optimisers, the slow critic and the order of updates all decide, and the
gradients of the first update, as clipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.wm_models.families.dreamer_v2.dreamer_v2_tiny import (
    ACTIONS,
    TINY,
    TINY_ATARI,
    TINY_BOTH,
)
from tests.wm_models.families.released import (
    arrived,
    assert_agrees,
    fill,
    fixed_noise,
    three_updates,
)

STORED = Path(__file__).parent / "released.safetensors"
CASES = {
    "dmc": TINY,  # gradients through the dynamics, free bits
    "atari": TINY_ATARI,  # discrete actions, reinforce, discount head, tanh of rewards
    "both": TINY_BOTH,  # both gradients of the actor
}


@pytest.mark.parametrize("case", CASES)
def test_three_updates_agree_with_the_release(case: str) -> None:
    preset = CASES[case]
    model = fill(preset.build(ACTIONS))
    learner = preset.build_learner(model)
    learner.behavior.target.load_state_dict(model.critic.state_dict())
    with fixed_noise():
        metrics, gradients = three_updates(learner, arrived(ACTIONS, discrete=case == "atari"))
    assert_agrees(load_file(STORED), case, metrics, gradients)
    assert torch.isfinite(torch.tensor(list(metrics[-1].values()))).all()
