"""Images in, features out; decides when a new version of the weights is used."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.weights import VersionSwitch, Weights, check_cameras
from wm_nodes.errors import MessageError, user_errors
from wm_nodes.nodes.goal_topics import GoalService
from wm_nodes.nodes.model_node import ModelNode, ModelNodeParams
from wm_nodes.records import Features
from wm_nodes.robots.cameras.names import required_names
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.observation_input import ObservationInput, Observed
from wm_nodes.ros.parameters import param


@dataclass(frozen=True)
class EncoderParams(ModelNodeParams):
    camera: str = param(
        "corner4",
        "Name of the camera, or several with commas between; images are on <camera>/image.",
    )
    swap: str = param(
        "episode", "When new weights are used: from the next episode on, or now.",
        choices=("episode", "now"),
    )  # fmt: skip

    @property
    def cameras(self) -> tuple[str, ...]:
        """Return the names of the cameras. UserError: an empty or a repeated name, or none."""
        with user_errors(ValueError):
            return required_names(self.camera)


class EncoderNode(ModelNode[EncoderParams]):
    """Encodes the images of its cameras, all of one stamp together; the step of each stamp tells
    where episodes begin."""

    NAME = "encoder"
    NEEDS = ("encode",)

    def configure(self) -> None:
        p = self.params
        self._input = ObservationInput(
            self, topics.IMAGE, p.cameras, topics.frames_qos(p.mode), self._on_observation
        )
        super().configure()
        self._encoder, self._switch = Encoder(), VersionSwitch(p.swap)
        self._goal_service = GoalService(self)
        self._answer: Features | None = None
        self._features = topics.FEATURES.publisher(self)

    def _on_new(self, newest: Weights) -> None:
        super()._on_new(newest)
        check_cameras(newest, self.params.cameras)
        self._input.require(image=newest.wants_image, joints=newest.wants_proprio)

    def _on_observation(self, observed: Observed) -> None:
        stamp_ns = observed.step.stamp_ns
        self._goal_service.update(stamp_ns, observed.image, observed.joints)
        if self._answer is None or self._answer.stamp_ns != stamp_ns:
            self._answer = self._encode(observed)
        if self._answer is not None:
            self._features.publish(messages.features_to_msg(self._answer))

    def _encode(self, observed: Observed) -> Features | None:
        self.poll()
        started, step = time.perf_counter(), observed.step
        weights = self._switch.at(step, self.weight_cache.newest)
        if weights is None:
            return None
        self.weight_cache.keep_only(weights)
        self.diagnostics.weights = weights.version
        try:
            tokens = self._encoder.encode(weights, observed.images, observed.proprio)
        except MessageError as error:
            self.drop(f"image/{error.reason}", str(error))
            return None
        values = tokens[0].cpu().numpy()
        self.diagnostics.record_latency(time.perf_counter() - started)
        return Features(step.stamp_ns, weights.origin(weights.model.spec.encoder_module), values)


def main() -> None:
    spin.main(EncoderNode)


if __name__ == "__main__":
    main()
