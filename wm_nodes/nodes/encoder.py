"""Picture in, features out; decides when a new version of the weights comes into use."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.weights import VersionSwitch, Weights
from wm_nodes.errors import MessageError
from wm_nodes.nodes.goal_topics import GoalSpeaker
from wm_nodes.nodes.model_node import Thinker, ThinkerParams
from wm_nodes.records import Features, Image, Step, Vector
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.parameters import param
from wm_nodes.ros.synchronizer import Join


@dataclass(frozen=True)
class EncoderParams(ThinkerParams):
    camera: str = param("corner4", "Camera: its pictures are on <camera>/image.")
    swap: str = param(
        "episode", "When new weights come into use: at an episode's start, or now.",
        choices=("episode", "now"),
    )  # fmt: skip


def observed_parts(weights: Weights) -> tuple[str, ...]:
    """What must have come of an observation before a model can look at it."""
    image = ("image",) if weights.wants_image else ()
    return (*image, "step", "joints") if weights.wants_proprio else (*image, "step")


def proprio_of(both: dict) -> Vector | None:
    """The proprioception of an observation that has come, if it belongs to it."""
    return both["joints"][1] if "joints" in both else None


class EncoderNode(Thinker):
    """One camera's pictures, joined with `step` to know where episodes begin."""

    NAME = "encoder"
    PARAMS = EncoderParams
    NEEDS = ("encode",)

    def configure(self) -> None:
        self._join = Join(("image", "step"))
        super().configure()
        p = self.params
        self._core, self._switch = Encoder(), VersionSwitch(p.swap)
        self._goals = GoalSpeaker(self)
        self._answer: Features | None = None
        self._out = topics.FEATURES.publisher(self)
        qos = topics.frames_qos(p.mode)
        self.listen(topics.IMAGE, messages.image_from_msg, self._on_image, qos, camera=p.camera)
        self.listen(topics.STEPS, messages.step_from_msg, self._on_step)
        self.listen(topics.JOINT_STATES, messages.joints_from_msg, self._on_joints)

    def _on_new(self, newest: Weights) -> None:
        super()._on_new(newest)
        self._join.want(observed_parts(newest))

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        self._together(self._join.put("joints", stamp_ns, (names, values)))

    def _on_image(self, stamp_ns: int, image: Image) -> None:
        self._together(self._join.put("image", stamp_ns, image))

    def _on_step(self, step: Step) -> None:
        self._together(self._join.put("step", step.stamp_ns, step))

    def _together(self, both: dict | None) -> None:
        if both is None:
            return
        step: Step = both["step"]
        self._goals.saw(step.stamp_ns, both.get("image"), both.get("joints"))
        if self._answer is None or self._answer.stamp_ns != step.stamp_ns:
            self._answer = self._encode(both, step)
        if self._answer is not None:
            self._out.publish(messages.features_to_msg(self._answer))

    def _encode(self, both: dict, step: Step) -> Features | None:
        self.poll()
        started = time.perf_counter()
        weights = self._switch.at(step, self.weight_cache.newest)
        if weights is None:
            return None
        self.weight_cache.keep_only(weights)
        self.health.weights = weights.version
        try:
            tokens = self._core.encode(weights, both.get("image"), proprio_of(both))
        except MessageError as error:
            self.drop(f"image/{error.reason}", str(error))
            return None
        numbers = tokens[0].cpu().numpy()
        self.health.worked(time.perf_counter() - started)
        return Features(step.stamp_ns, weights.origin("autoencoder"), numbers)


def main() -> None:
    spin.main(EncoderNode)


if __name__ == "__main__":
    main()
