"""A state as an image, for inspection; of several cameras one below the other."""

from __future__ import annotations

import numpy as np
import torch

from wm_models.interface.state import State
from wm_nodes.agent.encoder import Seen, image_of
from wm_nodes.agent.weights import Weights
from wm_nodes.records import Image


@torch.inference_mode()
def decode(weights: Weights, state: State) -> Image:
    """Return the reconstruction (n H, W, 3) uint8 of a state, of n cameras in their order."""
    decoded = weights.model.decode(state)
    image = torch.cat([decoded[key][0] for key in weights.model.spec.image_keys], 1)  # (3, n H, W)
    return (image.clamp(0.0, 1.0) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def beside_truth(weights: Weights, state: State, seen: Seen) -> Image:
    """Return the cameras' images (n H, W, 3) with the model's reconstructions at their right."""
    images = [image_of(key, seen) for key in weights.model.spec.image_keys]
    truth = np.concatenate([image for image in images if image is not None])
    return np.concatenate([truth, decode(weights, state)], axis=1)
