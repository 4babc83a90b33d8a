"""Images and proprioception to the tokens that a world model filters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from wm_models.interface.embodiment import IMAGE
from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import MessageError
from wm_nodes.records import Image, Vector

Seen = Image | Mapping[str, Image] | None  # (H, W, 3) uint8, of one camera, or of each by its name


class Encoder:
    """Observations to tokens; without state."""

    @torch.inference_mode()
    def encode(self, weights: Weights, seen: Seen, proprio: Vector | None = None) -> Tensor:
        """Return tokens [1, N, D] of images and proprio (P,), whichever the model uses."""
        return weights.model.encode(observed(weights, seen, proprio)).float()


def observed(weights: Weights, seen: Seen, proprio: Vector | None) -> dict[str, Tensor]:
    """Return the observation {name: [1, ...]} of the keys in the model's spec.

    Without `proprio` it is the images only. MessageError: a wrong shape, or an image is missing.
    """
    spec, device = weights.model.spec, device_of(weights.model)
    observation: dict[str, Tensor] = {}
    for key in spec.image_keys:
        assert spec.image_size is not None
        image, shape = image_of(key, seen), (*spec.image_size, 3)
        if image is None or image.shape != shape:
            got = None if image is None else image.shape
            raise MessageError(
                "image-shape", f"{key}: got {got}, expected {shape} for model {weights.preset}."
            )
        observation[key] = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
    if proprio is not None and weights.wants_proprio:
        if proprio.shape != spec.obs_keys["proprio"]:
            raise MessageError(
                "proprio-shape",
                f"joint_states: got {proprio.size} numbers, expected "
                f"{spec.obs_keys['proprio'][0]} for model {weights.preset}.",
            )
        observation["proprio"] = torch.from_numpy(np.ascontiguousarray(proprio))[None].to(device)
    return observation


def image_of(key: str, seen: Seen) -> Image | None:
    """Return the image of a model's key: "image" is that of the only camera, "image/NAME" that of
    camera NAME; None where it is missing."""
    if not isinstance(seen, Mapping):
        return seen if key == IMAGE else None
    if key == IMAGE:
        return next(iter(seen.values())) if len(seen) == 1 else None
    return seen.get(key.removeprefix(f"{IMAGE}/"))
