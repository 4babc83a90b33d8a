"""Image and proprioception to the tokens that a world model filters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import MessageError
from wm_nodes.records import Image, Vector


class Encoder:
    """Observations to tokens; without state."""

    @torch.inference_mode()
    def encode(
        self, weights: Weights, image: Image | None, proprio: Vector | None = None
    ) -> Tensor:
        """Return tokens [1, N, D] of image (H, W, 3) uint8 and proprio (P,), whichever it uses."""
        return weights.model.encode(observed(weights, image, proprio)).float()


def observed(weights: Weights, image: Image | None, proprio: Vector | None) -> dict[str, Tensor]:
    """Return the observation {name: [1, ...]} of the keys in the model's spec.

    Without `proprio` it is the image only. MessageError: a wrong shape.
    """
    spec, device = weights.model.spec, device_of(weights.model)
    observation: dict[str, Tensor] = {}
    if spec.image_size is not None:
        shape = (*spec.image_size, 3)
        if image is None or image.shape != shape:
            got = None if image is None else image.shape
            raise MessageError(
                "image-shape", f"image: got {got}, expected {shape} for model {weights.preset}."
            )
        observation["image"] = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
    if proprio is not None and weights.wants_proprio:
        if proprio.shape != spec.obs_keys["proprio"]:
            raise MessageError(
                "proprio-shape",
                f"joint_states: got {proprio.size} numbers, expected "
                f"{spec.obs_keys['proprio'][0]} for model {weights.preset}.",
            )
        observation["proprio"] = torch.from_numpy(np.ascontiguousarray(proprio))[None].to(device)
    return observation
