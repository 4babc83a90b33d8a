"""Images in, plans out, in one process: camera, encoder, world model and policy."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wm_models.errors import PlanRefused
from wm_models.interface.state import State
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import VersionSwitch, Weights, check_cameras, check_space
from wm_nodes.control.plans import PlanMaker
from wm_nodes.errors import MessageError
from wm_nodes.nodes.camera import PipelineParams
from wm_nodes.nodes.encoder import EncoderParams
from wm_nodes.nodes.goal_topics import GoalListener, GoalService
from wm_nodes.nodes.model_node import ModelNode
from wm_nodes.nodes.policy import LiveSearch, PolicyParams
from wm_nodes.nodes.robot_space import RobotSpace
from wm_nodes.records import RANDOM, Image, Origin, Plan, Step, Vector
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.agent_topics import AgentTopics
from wm_nodes.ros.camera_watch import CameraWatch
from wm_nodes.ros.observation_input import ObservationInput, Observed
from wm_nodes.ros.robot_camera import RobotCamera


@dataclass(frozen=True)
class AgentParams(PolicyParams, EncoderParams, PipelineParams):
    """Parameters of camera, encoder, world_model and policy in one."""


class AgentNode(ModelNode[AgentParams]):
    """Answers each observation in lock-step, the newest one in real time, with one plan.

    The plan is published first; then image, features, latent and imagination, to subscribers.
    """

    NAME = "agent"
    NEEDS = ("encode", "filter", "act", "plan", "decode")

    def configure(self) -> None:
        p = self.params
        self._pipeline = p.pipeline()
        named = len(p.cameras) > 1
        self._watches = {
            camera: CameraWatch(self, camera, p.stale_s, p.frozen_s, named=named)
            for camera in p.cameras
        }
        self._realtime = p.mode == topics.REALTIME
        self._input = ObservationInput(
            self,
            p.images,
            p.cameras,
            topics.frames_qos(p.mode, topics.STREAM),
            self._on_observation,
            prepare=self._prepare,
            on_step=self._on_step,
            newest_only=self._realtime,
        )
        super().configure()
        self._encoder, self._switch = Encoder(), VersionSwitch(p.swap)
        self._filter = StateFilter(p.seed, self.device)
        self._policy = LiveSearch(self).planner
        self._goal, self._goal_service = GoalListener(self, self._policy, p.goal), GoalService(self)
        self._maker = PlanMaker()
        self._answer: Plan | None = None
        self._plans = topics.PLAN.publisher(self)
        self._topics = AgentTopics(self, p.cameras)
        self._space = RobotSpace(self, self._maker)
        self._robot = [RobotCamera(self, camera, p.images) for camera in p.cameras]

    def activate(self) -> None:
        super().activate()
        for watch in self._watches.values() if self._realtime else ():
            watch.start()

    def deactivate(self) -> None:
        for watch in self._watches.values():
            watch.stop()

    def _on_new(self, newest: Weights) -> None:
        super()._on_new(newest)
        check_cameras(newest, self.params.cameras)
        self._input.require(image=newest.wants_image, joints=newest.wants_proprio)

    def _prepare(self, camera: str, stamp_ns: int, raw: Image) -> Image | None:
        """Return the image that the model sees; None: it cannot be used."""
        try:
            image = self._pipeline(raw)
        except MessageError as error:
            self.drop(f"{camera}/image_raw/{error.reason}", str(error))
            return None
        if self._realtime:
            self._watches[camera].check_stamp(stamp_ns)
            self._watches[camera].record(image)
            self._topics.publish_image(camera, image, stamp_ns)
        return image

    def _on_step(self, step: Step) -> None:
        self._filter.record(step)
        self._policy.delay.record(step)

    def _on_observation(self, observed: Observed) -> None:
        """Answer an observation; a repeated one with the same plan again."""
        step = observed.step
        self._goal_service.update(step.stamp_ns, observed.image, observed.joints)
        if self._answer is not None and self._answer.stamp_ns == step.stamp_ns:
            self._plans.publish(messages.plan_to_msg(self._answer))
        else:
            self.poll()
            weights = self._switch.at(step, self.weight_cache.newest)
            if weights is None:
                self._act_at_random(step)
            else:
                self.weight_cache.keep_only(weights)
                self.diagnostics.weights = weights.version
                self._act(weights, observed)
        if not self._realtime:
            self._topics.publish_images(observed.images, step.stamp_ns)

    def _act_at_random(self, step: Step) -> None:
        started = time.perf_counter()
        if not step.is_last and (space := self._space.of(step)) is not None:
            actions = self._policy.random_action(space, step.stamp_ns)
            self.diagnostics.record_latency(time.perf_counter() - started)
            self._publish_plan(step, RANDOM, actions)

    def _act(self, weights: Weights, observed: Observed) -> None:
        started, step = time.perf_counter(), observed.step
        try:
            tokens = self._encoder.encode(weights, observed.images, observed.proprio)
        except MessageError as error:
            self.drop(f"image/{error.reason}", str(error))
            return
        state = self._filter.update(weights, tokens, step)
        if not step.is_last:
            self._plan(weights, state, step, started)
        self._topics.publish_state(weights, tokens, state, observed.images, step.stamp_ns)

    def _plan(self, weights: Weights, state: State, step: Step, started: float) -> None:
        """Publish a plan; without a goal random actions in lock-step, nothing in real time."""
        if not self._policy.can_act(weights):
            self._goal.report_missing()
            if not self._realtime:
                self._act_at_random(step)
            return
        if (space := self._maker.known_space(step)) is not None:
            check_space(weights, space, self.params.planner)
        try:
            actions = self._policy.act(weights, state, step)
        except MessageError as error:
            self.drop(f"goal/{error.reason}", str(error))
            return
        except PlanRefused as error:
            self.report_fault("plan", str(error), error=True)
            return
        self.diagnostics.record_latency(time.perf_counter() - started)
        self.clear_fault("plan", "plans are found again")
        self._publish_plan(step, weights.origin(self._policy.module), actions)
        self.params.measure(self, self._policy, step)

    def _publish_plan(self, step: Step, origin: Origin, actions: Vector) -> None:
        self._answer = self._maker.plan(step, origin, actions)
        self._plans.publish(messages.plan_to_msg(self._answer))


def main() -> None:
    spin.main(AgentNode)


if __name__ == "__main__":
    main()
