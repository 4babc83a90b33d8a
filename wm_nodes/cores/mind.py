"""The three thinking parts, on tensors: picture -> tokens -> state -> action.

The split nodes carry the results as messages; the agent hands them on. Same objects, same numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_models.interface import State
from wm_nodes.cores.choose import Chooser
from wm_nodes.cores.noise import numpy_noise, torch_noise
from wm_nodes.cores.records import Image, Step, Vector
from wm_nodes.cores.weights import Weights, device_of
from wm_nodes.errors import MessageError, UserError


class Encoder:
    """Pictures to tokens; remembers nothing."""

    @torch.inference_mode()
    def encode(self, weights: Weights, image: Image) -> Tensor:
        """Return tokens [1, N, D] of image (H, W, 3)."""
        _, height, width = weights.model.spec.obs_keys["image"]
        if image.shape != (height, width, 3):
            raise MessageError(
                "image-shape",
                f"image: {image.shape}, model {weights.preset} sees {height, width, 3}",
            )
        batch = torch.from_numpy(np.ascontiguousarray(image))[None]
        return weights.model.encode({"image": batch.to(device_of(weights.model))}).float()


class Filter:
    """The state of one robot, moved on by each observation."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._noise = seed, torch.Generator(device)
        self._weights: Weights | None = None
        self._state: State | None = None
        self._stamp_ns = self._start_ns = -1

    def heard(self, step: Step) -> None:
        """Take note of every step: in real time an episode's first picture may be passed over."""
        if step.is_first:
            self._start_ns = step.stamp_ns

    @torch.inference_mode()
    def update(self, weights: Weights, tokens: Tensor, step: Step) -> State:
        """Return the state after tokens [1, N, D] of the step's observation.

        It begins anew where an episode does, where nothing came before, and with other weights.
        """
        model = weights.model
        check_action(weights, step)
        device = device_of(model)
        fresh = self._state is None or weights is not self._weights
        fresh |= self._stamp_ns < self._start_ns <= step.stamp_ns
        first = torch.tensor([step.is_first or fresh], device=device)
        state = model.initial(1, device) if fresh else self._state
        action = torch.from_numpy(step.executed)[None].to(device)
        noise = torch_noise(self._noise, self._seed, "world_model", step.stamp_ns)
        state = model.filter(state, action, tokens.to(device), first, generator=noise)
        self._state, self._weights, self._stamp_ns = state, weights, step.stamp_ns
        return state


class Policy:
    """State to actions, or random ones as long as there are no weights."""

    def __init__(self, seed: int, device: torch.device, chooser: Chooser) -> None:
        self._seed, self._noise = seed, torch.Generator(device)
        self._chooser = chooser
        self.module = chooser.name

    @torch.inference_mode()
    def act(self, weights: Weights, state: State, step: Step) -> Vector:
        """Return actions (N, A), the first to be done now. Explores in training episodes only."""
        check_action(weights, step)
        noise = torch_noise(self._noise, self._seed, "policy", step.stamp_ns)
        actions = self._chooser.choose(weights.model, state, step, noise)
        return actions.float().cpu().numpy().reshape(-1, len(step.names))

    def act_blindly(self, low: Vector, high: Vector, stamp_ns: int) -> Vector:
        """Return one uniform action (1, A)."""
        noise = numpy_noise(self._seed, "random", stamp_ns)
        return noise.uniform(low, high).astype(np.float32)[None]


@torch.inference_mode()
def decode(weights: Weights, state: State) -> Image:
    """Return the picture (H, W, 3) that a state stands for."""
    picture = weights.model.decode(state)["image"][0].clamp(0.0, 1.0)  # (3, H, W)
    return (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def check_action(weights: Weights, step: Step) -> None:
    """Refuse a robot with another number of action dimensions than the weights were made for."""
    if weights.model.spec.action_dim != len(step.names):
        raise UserError(
            f"weights: version {weights.version} of {weights.preset} acts in "
            f"{weights.model.spec.action_dim} dimensions, this robot in {len(step.names)}: "
            f"{', '.join(step.names)}"
        )
