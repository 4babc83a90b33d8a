"""Picture in, plan out, in one process: camera, encoder, world model and policy, hand to hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from wm_models.errors import PlanRefused
from wm_models.interface.state import State
from wm_nodes.agent.decoder import beside_truth
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import VersionSwitch, Weights
from wm_nodes.control.plans import PlanMaker
from wm_nodes.errors import MessageError
from wm_nodes.nodes.camera import CHECK_S, PipelineParams
from wm_nodes.nodes.encoder import EncoderParams, observed_parts, proprio_of
from wm_nodes.nodes.goal_topics import GoalListener, GoalSpeaker
from wm_nodes.nodes.model_node import Thinker
from wm_nodes.nodes.policy import LiveSearch, PolicyParams
from wm_nodes.nodes.robot_camera import RobotCamera
from wm_nodes.records import RANDOM, Features, Image, Latent, Origin, Plan, Step, Vector
from wm_nodes.robots.cameras.preprocess import Liveness
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.stamps import StampWatch
from wm_nodes.ros.synchronizer import Join


@dataclass(frozen=True)
class AgentParams(PolicyParams, EncoderParams, PipelineParams):
    """Parameters of camera, encoder, world_model and policy in one."""


class AgentNode(Thinker):
    """Publishes the plan first; then the pictures, features and latents, to subscribers."""

    NAME = "agent"
    PARAMS = AgentParams
    NEEDS = ("encode", "filter", "act", "plan", "decode")

    def configure(self) -> None:
        self._join = Join(("image", "step"))
        super().configure()
        p = self.params
        self._pipeline = p.pipeline()
        self._alive = Liveness(p.stale_s, p.frozen_s)
        self._stamps = StampWatch(self, p.camera)
        self._encoder, self._switch = Encoder(), VersionSwitch(p.swap)
        self._filter = StateFilter(p.seed, self.device)
        self._policy = LiveSearch(self).planner
        self._goal, self._goals = GoalListener(self, self._policy, p.goal), GoalSpeaker(self)
        self._maker = PlanMaker()
        self._answer: Plan | None = None
        self._newest: dict[str, Any] = {}
        self._catching_up = False
        self._make_topics()

    def activate(self) -> None:
        super().activate()
        if self.params.mode == topics.REALTIME:
            self._check = self.create_timer(CHECK_S, self._on_check)

    def deactivate(self) -> None:
        if self.params.mode == topics.REALTIME:
            self.destroy_timer(self._check)

    def _make_topics(self) -> None:
        p = self.params
        self._plans = topics.PLAN.publisher(self)
        self._images = topics.IMAGE.publisher(self, camera=p.camera)
        self._features = topics.FEATURES.publisher(self)
        self._latents = topics.LATENT.publisher(self)
        self._imagined = topics.IMAGINATION.publisher(self)
        qos = topics.frames_qos(p.mode, topics.STREAM)
        self.listen(topics.SPEC, messages.spec_from_msg, self._maker.learn, idle=True)
        self._take_steps = self.listen(topics.STEPS, messages.step_from_msg, self._on_step)
        self._take_images = self.listen(
            p.images, messages.image_from_msg, self._on_image, qos, camera=p.camera
        )
        self._robot = RobotCamera(self, p.camera, p.images)
        self._take_joints = self.listen(
            topics.JOINT_STATES, messages.joints_from_msg, self._on_joints
        )

    def _on_new(self, newest: Weights) -> None:
        super()._on_new(newest)
        self._join.want(observed_parts(newest))

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        self._together(self._join.put("joints", stamp_ns, (names, values)))

    def _on_image(self, stamp_ns: int, raw: Image) -> None:
        try:
            image = self._pipeline(raw)
        except MessageError as error:
            self.drop(f"{self.params.camera}/image_raw/{error.reason}", str(error))
            return
        if self.params.mode == topics.REALTIME:
            self._stamps.report(stamp_ns)
            self._alive.saw(image, time.perf_counter())
            self._show_image(image, stamp_ns)
        self._together(self._join.put("image", stamp_ns, image))

    def _on_step(self, step: Step) -> None:
        self._filter.record(step)
        self._policy.delay.record(step)
        self._together(self._join.put("step", step.stamp_ns, step))

    def _together(self, both: dict[str, Any] | None) -> None:
        """Think of every observation in lock-step, of the newest that has come in real time."""
        if both is None:
            return
        self._newest = both
        if self.params.mode == topics.LOCKSTEP:
            self._think()
        elif not self._catching_up:
            self._catching_up = True
            self._take_images()
            self._take_steps()
            self._take_joints()
            self._catching_up = False
            self._think()

    def _think(self) -> None:
        """Answer the observation in the mailbox; one that was answered before, as before."""
        image, step = self._newest.get("image"), self._newest["step"]
        self._goals.saw(step.stamp_ns, image, self._newest.get("joints"))
        if self._answer is not None and self._answer.stamp_ns == step.stamp_ns:
            self._plans.publish(messages.plan_to_msg(self._answer))
        else:
            self.poll()
            weights = self._switch.at(step, self.weight_cache.newest)
            if weights is None:
                self._decide_blindly(step)
            else:
                self.weight_cache.keep_only(weights)
                self.health.weights = weights.version
                self._decide(weights, image, proprio_of(self._newest), step)
        if self.params.mode == topics.LOCKSTEP:
            self._show_image(image, step.stamp_ns)

    def _decide_blindly(self, step: Step) -> None:
        started = time.perf_counter()
        if not step.is_last:
            actions = self._policy.random_action(*self._maker.bounds(step), step.stamp_ns)
            self.health.worked(time.perf_counter() - started)
            self._say(step, RANDOM, actions)

    def _decide(
        self, weights: Weights, image: Image | None, proprio: Vector | None, step: Step
    ) -> None:
        started = time.perf_counter()
        try:
            tokens = self._encoder.encode(weights, image, proprio)
        except MessageError as error:
            self.drop(f"image/{error.reason}", str(error))
            return
        state = self._filter.update(weights, tokens, step)
        if not step.is_last:
            self._act(weights, state, step, started)
        self._show(weights, tokens, state, step)
        self._show_imagination(weights, state, image, step)

    def _act(self, weights: Weights, state: State, step: Step, started: float) -> None:
        """Answer; without anything to act for at random in lock-step, in real time not at all."""
        if not self._policy.can_act(weights):
            self._goal.missing()
            if self.params.mode == topics.LOCKSTEP:
                self._decide_blindly(step)
            return
        try:
            actions = self._policy.act(weights, state, step)
        except MessageError as error:
            self.drop(f"goal/{error.reason}", str(error))
            return
        except PlanRefused as error:
            self.fault("plan", str(error), error=True)
            return
        self.health.worked(time.perf_counter() - started)
        self.well("plan", "plans are found again")
        self._say(step, weights.origin(self._policy.module), actions)
        self.params.measure(self, self._policy, step)

    def _say(self, step: Step, origin: Origin, actions: Vector) -> None:
        self._answer = self._maker.plan(step, origin, actions)
        self._plans.publish(messages.plan_to_msg(self._answer))

    def _show_image(self, image: Image | None, stamp_ns: int) -> None:
        if image is not None and self._images.get_subscription_count():
            frame = messages.optical_frame(self.params.camera)
            self._images.publish(messages.image_to_msg(image, stamp_ns, frame))

    def _show(self, weights: Weights, tokens: Tensor, state: State, step: Step) -> None:
        stamp = step.stamp_ns
        if self._features.get_subscription_count():
            origin = weights.origin("autoencoder")
            features = Features(stamp, origin, tokens[0].cpu().numpy())
            self._features.publish(messages.features_to_msg(features))
        if self._latents.get_subscription_count():
            flat = weights.model.pack(state)[0].float().cpu().numpy()
            latent = Latent(stamp, weights.origin("world_model"), flat)
            self._latents.publish(messages.latent_to_msg(latent))

    def _show_imagination(
        self, weights: Weights, state: State, image: Image | None, step: Step
    ) -> None:
        """Publish image, features and latent, if there are subscribers."""
        if image is None or not weights.model.spec.has_decoder:
            return
        if self._imagined.get_subscription_count():
            both = beside_truth(weights, state, image)
            self._imagined.publish(messages.image_to_msg(both, step.stamp_ns, self.params.camera))

    def _on_check(self) -> None:
        fault = self._alive.fault(time.perf_counter())
        if fault:
            self.fault("camera", fault, error=True)
        else:
            self.well("camera", "pictures are back")


def main() -> None:
    spin.main(AgentNode)


if __name__ == "__main__":
    main()
