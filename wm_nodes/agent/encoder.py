"""Image and proprioception to the features that a world model filters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import MessageError
from wm_nodes.records import Image, Vector


class Encoder:
    """Observations to tokens; remembers nothing."""

    @torch.inference_mode()
    def encode(
        self, weights: Weights, image: Image | None, proprio: Vector | None = None
    ) -> Tensor:
        """Return tokens [1, N, D] of image (H, W, 3) and proprio (P,), as far as it sees them."""
        return weights.model.encode(observed(weights, image, proprio)).float()


def observed(weights: Weights, image: Image | None, proprio: Vector | None) -> dict[str, Tensor]:
    """Return an observation as the model takes it, batch 1; MessageError if it does not fit.

    It holds no more than the model sees; without `proprio` the image alone.
    """
    spec, device = weights.model.spec, device_of(weights.model)
    found: dict[str, Tensor] = {}
    if spec.image_size is not None:
        shape = (*spec.image_size, 3)
        if image is None or image.shape != shape:
            given = None if image is None else image.shape
            raise MessageError(
                "image-shape", f"image: {given}, model {weights.preset} sees {shape}"
            )
        found["image"] = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
    if proprio is not None and weights.wants_proprio:
        if proprio.shape != spec.obs_keys["proprio"]:
            raise MessageError(
                "proprio-shape",
                f"joint_states: {proprio.size} numbers, model {weights.preset} sees "
                f"{spec.obs_keys['proprio'][0]}",
            )
        found["proprio"] = torch.from_numpy(np.ascontiguousarray(proprio))[None].to(device)
    return found
