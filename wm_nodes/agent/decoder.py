"""A state as an image, for inspection."""

from __future__ import annotations

import numpy as np
import torch

from wm_models.interface.state import State
from wm_nodes.agent.weights import Weights
from wm_nodes.records import Image


@torch.inference_mode()
def decode(weights: Weights, state: State) -> Image:
    """Return the reconstruction (H, W, 3) uint8 of a state."""
    image = weights.model.decode(state)["image"][0].clamp(0.0, 1.0)  # (3, H, W)
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def beside_truth(weights: Weights, state: State, image: Image) -> Image:
    """Return the camera image (H, W, 3) with the model's reconstruction at its right."""
    return np.concatenate([image, decode(weights, state)], axis=1)
