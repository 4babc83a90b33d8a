"""What was computed with the public PyTorch port, and the inputs of it.

NM512/dreamerv3-torch, commit 6ef8646d807cd10ce0c88e10a7e943211e7fc44c. ``port.safetensors`` holds
numbers alone: random weights of our model, which were copied into theirs, then losses, targets and
gradients of theirs. Its samplers took the noise that ours draw from a generator of seed ``SEED``,
and the mode of its first latent passed no gradient, as in the original code. ``imag_horizon`` was
one more than our ``horizon``: it counts the first state too.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import TINY, log_rows
from wm_models.interface.learner import arrival

STORED = Path(__file__).parent / "port.safetensors"
SEED, BATCH, LENGTH = 5, 3, 5

PORTED = TINY.varied(
    {
        "model.observation.inputs": "both",
        "model.rssm.hidden": 10,
        "model.rssm.stoch": 3,
        "learner.behavior.horizon": 4,
    }
)


def port_batch(kind: str) -> dict[str, Tensor]:
    """A batch in arrival form with actions of an actor's kind."""
    batch = arrival(log_rows(BATCH, LENGTH, seed=11, discrete=kind == "onehot"))
    batch["reward_known"][:] = True
    return batch
