"""Features in, latents out: the state filter, one step per observation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from wm_models.interface.state import State
from wm_nodes.agent.decoder import beside_truth
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import Weights
from wm_nodes.errors import user_errors
from wm_nodes.nodes.model_node import ModelNode, ModelNodeParams
from wm_nodes.records import Features, Image, Latent, Step
from wm_nodes.robots.cameras.names import required_names
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.observation_input import image_part
from wm_nodes.ros.parameters import param
from wm_nodes.ros.synchronizer import Synchronizer


@dataclass(frozen=True)
class WorldModelParams(ModelNodeParams):
    camera: str = param(
        "corner4",
        "Camera, or several with commas between, whose images are shown beside the imagined ones "
        "on imagination/image.",
    )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Return the names of the cameras. UserError: an empty or a repeated name, or none."""
        with user_errors(ValueError):
            return required_names(self.camera)


class WorldModelNode(ModelNode[WorldModelParams]):
    """Uses the encoder's version of the weights; a repeated stamp does not change the state."""

    NAME = "world_model"
    NEEDS = ("filter", "decode")

    def configure(self) -> None:
        super().configure()
        self._core = StateFilter(self.params.seed, self.device)
        self._synchronizer = Synchronizer(("features", "step"))
        self._answer: Latent | None = None
        self._out = topics.LATENT.publisher(self)
        self._imagined = topics.IMAGINATION.publisher(self)
        self._shown = Synchronizer(("state", *map(image_part, self.params.cameras)))
        self._has_images = False
        qos = topics.frames_qos(self.params.mode)
        self.listen(topics.FEATURES, messages.features_from_msg, self._on_features, qos)
        self.listen(topics.STEPS, messages.step_from_msg, self._on_step)

    def _on_features(self, features: Features) -> None:
        self._together(self._synchronizer.put("features", features.stamp_ns, features))

    def _on_step(self, step: Step) -> None:
        self._core.record(step)
        self._together(self._synchronizer.put("step", step.stamp_ns, step))

    def _together(self, both: dict[str, Any] | None) -> None:
        if both is None:
            return
        step: Step = both["step"]
        if self._answer is None or self._answer.stamp_ns != step.stamp_ns:
            answer = self._filter(both["features"], step)
            if answer is None:
                return
            self._answer = answer
        self._out.publish(messages.latent_to_msg(self._answer))

    def _filter(self, features: Features, step: Step) -> Latent | None:
        self.poll()
        started = time.perf_counter()
        weights = self.weight_cache.get(features.origin)
        if weights is None:
            self.drop(
                "features/version", f"features of {features.origin}: this version is unknown here"
            )
            return None
        if features.tokens.shape != weights.tokens:
            self.drop(
                "features/shape",
                f"features: {features.tokens.shape}, {features.origin} has {weights.tokens}",
            )
            return None
        self.weight_cache.keep_only(weights)
        self.diagnostics.weights = weights.version
        state = self._core.update(weights, torch.from_numpy(features.tokens)[None], step)
        flat = weights.model.pack(state)[0].float().cpu().numpy()
        self.diagnostics.record_latency(time.perf_counter() - started)
        self._show_imagination(weights, state, step)
        return Latent(step.stamp_ns, weights.origin(weights.model.spec.state_module), flat)

    def _show_imagination(self, weights: Weights, state: State, step: Step) -> None:
        """Publish the decoded state beside its image, if there is a subscriber."""
        if not (self._imagined.get_subscription_count() and weights.model.spec.has_decoder):
            return
        if not self._has_images:  # images are needed for this only
            self._has_images = True
            qos = topics.frames_qos(self.params.mode)
            for camera in self.params.cameras:
                take = partial(self._on_image, camera)
                self.listen(topics.IMAGE, messages.image_from_msg, take, qos, camera=camera)
        self._publish_beside(
            step.stamp_ns, self._shown.put("state", step.stamp_ns, (weights, state))
        )

    def _on_image(self, camera: str, stamp_ns: int, image: Image) -> None:
        if self._imagined.get_subscription_count():
            self._publish_beside(stamp_ns, self._shown.put(image_part(camera), stamp_ns, image))

    def _publish_beside(self, stamp_ns: int, parts: dict[str, Any] | None) -> None:
        if parts is not None:
            weights, state = parts["state"]
            images = {camera: parts[image_part(camera)] for camera in self.params.cameras}
            image = beside_truth(weights, state, images)
            self._imagined.publish(messages.image_to_msg(image, stamp_ns, self.params.cameras[0]))


def main() -> None:
    spin.main(WorldModelNode)


if __name__ == "__main__":
    main()
