"""What an agent publishes beside its plans: image, features, latent, imagination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wm_models.interface.state import State
from wm_nodes.agent.decoder import beside_truth
from wm_nodes.agent.weights import Weights
from wm_nodes.records import Features, Image, Latent
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode


class AgentTopics:
    """Nothing is computed for a topic without a subscriber."""

    def __init__(self, node: ManagedNode[Any], cameras: Sequence[str], place: str = "") -> None:
        """place: namespace of the topics, below the node's own."""
        image = topics.IMAGE.below(place)
        self._frame = cameras[0]  # of imagined images
        self._images = {name: image.publisher(node, camera=name) for name in cameras}
        self._features = topics.FEATURES.below(place).publisher(node)
        self._latents = topics.LATENT.below(place).publisher(node)
        self._imagination = topics.IMAGINATION.below(place).publisher(node)

    def publish_image(self, camera: str, image: Image, stamp_ns: int) -> None:
        """Publish a camera's image (H, W, 3) of the model's size."""
        if self._images[camera].get_subscription_count():
            frame = messages.optical_frame(camera)
            self._images[camera].publish(messages.image_to_msg(image, stamp_ns, frame))

    def publish_images(self, images: Mapping[str, Image], stamp_ns: int) -> None:
        """Publish the image of each camera."""
        for camera, image in images.items():
            self.publish_image(camera, image, stamp_ns)

    def publish_state(
        self,
        weights: Weights,
        tokens: Tensor,
        state: State,
        images: Mapping[str, Image],
        stamp_ns: int,
    ) -> None:
        """Publish tokens [1, N, D], a state of batch size 1, and its decoding beside `images`."""
        spec = weights.model.spec
        if self._features.get_subscription_count():
            origin = weights.origin(spec.encoder_module)
            features = Features(stamp_ns, origin, tokens[0].cpu().numpy())
            self._features.publish(messages.features_to_msg(features))
        if self._latents.get_subscription_count():
            flat = weights.model.pack(state)[0].float().cpu().numpy()
            latent = Latent(stamp_ns, weights.origin(spec.state_module), flat)
            self._latents.publish(messages.latent_to_msg(latent))
        if not images or not spec.has_decoder:
            return
        if self._imagination.get_subscription_count():
            both = beside_truth(weights, state, images)
            self._imagination.publish(messages.image_to_msg(both, stamp_ns, self._frame))
