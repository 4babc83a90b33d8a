"""The agent of several environments in one process: images in, plans out, in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from wm_nodes.agent.batched_agent import BatchedAgent, Decision, Observation
from wm_nodes.agent.weights import Weights, check_cameras, check_space
from wm_nodes.control.plans import PlanMaker
from wm_nodes.errors import MessageError, UserError
from wm_nodes.nodes.agent import AgentParams
from wm_nodes.nodes.goal_topics import GoalListener, GoalService
from wm_nodes.nodes.model_node import ModelNode
from wm_nodes.nodes.policy import LiveSearch
from wm_nodes.nodes.robot_space import RobotSpace
from wm_nodes.records import RANDOM, Image, Origin, Plan, Step, Vector
from wm_nodes.robots.environments import environment_seed, namespace
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.agent_topics import AgentTopics
from wm_nodes.ros.observation_input import ObservationInput, Observed
from wm_nodes.ros.parameters import param
from wm_nodes.ros.robot_camera import RobotCamera


@dataclass(frozen=True)
class BatchedAgentParams(AgentParams):
    envs: int = param(
        2, "Number of environments; their topics are in env_0, env_1, ...", low=2, high=64
    )


class EnvironmentLink:
    """Topics of one environment, and its observations that wait for an answer, oldest first."""

    def __init__(self, node: BatchedAgentNode, number: int) -> None:
        p, place = node.params, namespace(number, node.params.envs)
        self.waiting: deque[Observed] = deque()
        self.answer: Plan | None = None
        self.maker = PlanMaker()
        self.input = ObservationInput(
            node,
            p.images,
            p.cameras,
            topics.frames_qos(p.mode),
            partial(node.on_observation, number),
            prepare=node.prepare,
            place=place,
        )
        self.plans = topics.PLAN.below(place).publisher(node)
        self.topics = AgentTopics(node, p.cameras, place)
        self.cameras = [RobotCamera(node, camera, p.images, place) for camera in p.cameras]
        self.space = RobotSpace(node, self.maker, place)

    def wait(self, observed: Observed) -> None:
        """Keep an observation until it is answered; a repeated one replaces the first."""
        if self.waiting and self.waiting[-1].step.stamp_ns == observed.step.stamp_ns:
            self.waiting.pop()
        self.waiting.append(observed)


class BatchedAgentNode(ModelNode[BatchedAgentParams]):
    """Answers the observations of several environments in lock-step, those that are ready together.

    Plans are published first; then image, features, latent and imagination of each environment, to
    subscribers. While a batch is computed, other environments make their steps: theirs are the next
    batch.
    """

    NAME = "agent"
    NEEDS = ("encode", "filter", "act", "plan", "decode")

    def configure(self) -> None:
        p = self.params
        if p.mode != topics.LOCKSTEP:
            raise UserError(
                f"mode: got {p.mode}, expected lockstep: only there several environments have one "
                "agent. Set mode:=lockstep."
            )
        self._pipeline = p.pipeline()
        self._links = [EnvironmentLink(self, number) for number in range(p.envs)]
        super().configure()
        seeds = [environment_seed(p.seed, number) for number in range(p.envs)]
        planners = LiveSearch(self, seeds).planners
        self._agent = BatchedAgent(seeds, self.device, planners, p.swap)
        self._goal, self._goal_service = GoalListener(self, self._agent, p.goal), GoalService(self)
        self._batches = self._answered = 0

    def activate(self) -> None:
        self._bell = self.create_guard_condition(self._answer_ready)
        super().activate()

    def deactivate(self) -> None:
        self.destroy_guard_condition(self._bell)

    def _on_new(self, newest: Weights) -> None:
        super()._on_new(newest)
        check_cameras(newest, self.params.cameras)
        for link in self._links:
            link.input.require(image=newest.wants_image, joints=newest.wants_proprio)

    def prepare(self, camera: str, stamp_ns: int, raw: Image) -> Image | None:
        """Return the image that the model sees; None: it cannot be used."""
        try:
            return self._pipeline(raw)
        except MessageError as error:
            self.drop(f"{camera}/image_raw/{error.reason}", str(error))
            return None

    def on_observation(self, number: int, observed: Observed) -> None:
        """Answer a repeated observation with the same plan; others wait for the next batch."""
        link, step = self._links[number], observed.step
        if number == 0:
            self._goal_service.update(step.stamp_ns, observed.image, observed.joints)
        if link.answer is not None and link.answer.stamp_ns == step.stamp_ns:
            link.plans.publish(messages.plan_to_msg(link.answer))
            link.topics.publish_images(observed.images, step.stamp_ns)
            return
        link.wait(observed)
        self._bell.trigger()

    def _answer_ready(self) -> None:
        """Answer the oldest observation of each environment that has one, in one batch."""
        if not self.active:
            return
        for link in self._links:
            link.input.drain()
        ready = {n: link.waiting.popleft() for n, link in enumerate(self._links) if link.waiting}
        if ready:
            self.poll()
            self._answer(ready)
        if any(link.waiting for link in self._links):
            self._bell.trigger()

    def _answer(self, ready: Mapping[int, Observed]) -> None:
        started, newest = time.perf_counter(), self.weight_cache.newest
        if newest is not None:
            self._check_spaces(newest, ready)
        observations = {
            number: Observation(each.step, each.images, each.proprio)
            for number, each in ready.items()
        }
        decisions = self._agent.act(observations, newest)
        for number, decision in decisions.items():
            self._publish_decision(number, ready[number].step, decision)
        self._count(len(ready), time.perf_counter() - started)
        for number, decision in decisions.items():
            self._publish_topics(number, ready[number], decision)

    def _check_spaces(self, weights: Weights, ready: Mapping[int, Observed]) -> None:
        self.weight_cache.keep_only(weights)
        for number, observed in ready.items():
            space = self._links[number].maker.known_space(observed.step)
            if space is not None:
                check_space(weights, space, self.params.planner)

    def _publish_decision(self, number: int, step: Step, decision: Decision) -> None:
        """Publish a plan; random actions without weights, or without a goal to plan for."""
        if decision.error is not None:
            self._report(number, decision.error)
        elif decision.actions is not None and decision.weights is not None:
            self.clear_fault("plan", "plans are found again")
            self.diagnostics.weights = decision.weights.version
            planner = self._agent.environments[number].planner
            self._publish_plan(
                number, step, decision.weights.origin(planner.module), decision.actions
            )
        elif not step.is_last:
            if decision.goal_missing:
                self._goal.report_missing()
            self._act_at_random(number, step)

    def _act_at_random(self, number: int, step: Step) -> None:
        if (space := self._links[number].space.of(step)) is not None:
            planner = self._agent.environments[number].planner
            self._publish_plan(number, step, RANDOM, planner.random_action(space, step.stamp_ns))

    def _report(self, number: int, error: Exception) -> None:
        if isinstance(error, MessageError):
            self.drop(f"env_{number}/{error.reason}", str(error))
        else:
            self.report_fault("plan", str(error), error=True)

    def _publish_plan(self, number: int, step: Step, origin: Origin, actions: Vector) -> None:
        link = self._links[number]
        link.answer = link.maker.plan(step, origin, actions)
        link.plans.publish(messages.plan_to_msg(link.answer))

    def _publish_topics(self, number: int, observed: Observed, decision: Decision) -> None:
        out, stamp_ns = self._links[number].topics, observed.step.stamp_ns
        if decision.weights is not None and decision.tokens is not None:
            out.publish_state(
                decision.weights, decision.tokens, decision.state, observed.images, stamp_ns
            )
        out.publish_images(observed.images, stamp_ns)

    def _count(self, batch: int, seconds: float) -> None:
        self.diagnostics.record_latency(seconds)
        self._batches, self._answered = self._batches + 1, self._answered + batch
        self.diagnostics.facts["batch_mean"] = f"{self._answered / self._batches:.2f}"


def main() -> None:
    spin.main(BatchedAgentNode)


if __name__ == "__main__":
    main()
