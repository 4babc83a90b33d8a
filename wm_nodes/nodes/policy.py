"""Latents in, plans out, by the actor or a planner; random actions while there are no weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from wm_models.errors import ModelError, PlanRefused
from wm_nodes.agent.action_selection import (
    ACTION_SELECTORS,
    OBJECTIVES,
    SearchSettings,
    action_selector,
)
from wm_nodes.agent.delay_compensation import DelayCompensator
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.weights import check_space
from wm_nodes.control.plans import PlanMaker
from wm_nodes.errors import MessageError, user_errors
from wm_nodes.nodes.goal_topics import GoalListener
from wm_nodes.nodes.model_node import ModelNode, ModelNodeParams
from wm_nodes.nodes.robot_space import RobotSpace
from wm_nodes.records import RANDOM, Latent, Origin, Plan, Step, Vector
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.parameters import param
from wm_nodes.ros.synchronizer import Synchronizer

LATE_S = 5.0  # a longer time means that the clocks differ


@dataclass(frozen=True)
class PolicyParams(ModelNodeParams):
    planner: str = param(
        "actor", "Method that selects the action: the actor or a planner.", choices=ACTION_SELECTORS
    )
    budget_s: float = param(
        0.0, "Longest time of a search [s]; 0: run all its iterations.", low=0.0
    )
    horizon: int = param(
        0, "Horizon of a search in model steps; 0: the model's default. Live.", low=0, live=True
    )
    samples: int = param(
        0,
        "Candidates per iteration of a search (gd: starts); 0: the model's default. Live.",
        low=0,
        live=True,
    )
    iterations: int = param(
        0, "Iterations of a search (gd: steps); 0: the model's default. Live.", low=0, live=True
    )
    temperature: float = param(
        0.0,
        "mppi: how strongly candidates of low cost are preferred; 0: the model's default. Live.",
        low=0.0,
        live=True,
    )
    execute: int = param(
        0, "Actions of a plan to execute before the next search; 0: the model's default.", low=0
    )
    goal: str = param("", "File of the first goal image; empty: none.")
    goal_visual: float = param(1.0, "Weight of a goal's image. Live.", low=0.0, live=True)
    goal_proprio: float = param(
        1.0, "Weight of a goal's joint states beside its image. Live.", low=0.0, live=True
    )
    objective: str = param(
        "",
        "Steps of a plan to compare with a goal: last, all; empty: the model's default. Live.",
        choices=OBJECTIVES,
        live=True,
    )
    delay_s: float = param(
        0.0, "Additional delay of commands compared with training [s].", low=0.0, high=2.0
    )
    compensate: bool = param(
        True, "Real time: plan from the state expected when the plan takes effect."
    )

    def search_settings(self) -> SearchSettings:
        """Return the settings of a search. ModelError: one is out of range."""
        names = [spec.name for spec in fields(SearchSettings)]
        return SearchSettings(**{name: getattr(self, name) for name in names})

    def core(self, device: torch.device, seed: int | None = None) -> ActionPlanner:
        """Return the action planner that these parameters describe, with their seed or another.
        UserError."""
        with user_errors(ModelError):
            selector = action_selector(self.planner, self.search_settings())
        own = self.seed if seed is None else seed
        return ActionPlanner(own, device, selector, DelayCompensator(self.delay_s))

    def measure(self, node: ModelNode[Any], policy: ActionPlanner, step: Step) -> None:
        """Real time: record the time from an observation to its plan, and report a cut search."""
        if policy.planned_ns != step.stamp_ns or self.mode != topics.REALTIME:
            return
        took_s = (node.get_clock().now().nanoseconds - step.stamp_ns) / 1e9
        if self.compensate and 0.0 <= took_s < LATE_S:
            policy.delay.record_planning_time(took_s)
        node.diagnostics.facts["planned_ms"] = f"{took_s * 1e3:.0f}"
        done, total = policy.rounds
        node.diagnostics.facts["rounds"] = f"{done} of {total}"
        if 2 * done < total:
            node.report_fault(
                "search",
                f"only {done} of {total} rounds fit in budget_s {self.budget_s:g} (one round takes "
                f"{policy.floor_s:.3g} s): plans are poor. "
                "Use fewer samples, a shorter horizon, or a faster computer",
            )
        elif done == total:
            node.clear_fault("search", "all rounds of the search fit in budget_s")


LIVE = tuple(spec.name for spec in fields(PolicyParams) if spec.metadata["live"])


class LiveSearch:
    """The action planners of a node, whose search settings `ros2 param set` changes at run time.

    A change is used from the next search on. A wrong value is refused with the reason, and the old
    value stays.
    """

    def __init__(self, node: ModelNode[Any], seeds: Sequence[int] = ()) -> None:
        """seeds: of one planner each; empty: one planner with the node's seed."""
        current = {name: node.get_parameter(name).value for name in LIVE}
        node.params = replace(node.params, **current)  # set before the node was configured
        self.planners: list[ActionPlanner] = [
            node.params.core(node.device, seed) for seed in seeds or (node.params.seed,)
        ]
        self._node = node
        node.add_on_set_parameters_callback(self._on_parameters)

    @property
    def planner(self) -> ActionPlanner:
        """The only planner, or the first one."""
        return self.planners[0]

    def _on_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {each.name: each.value for each in parameters if each.name in LIVE}
        params = replace(self._node.params, **changes)
        try:
            if changes:
                for planner in self.planners:
                    planner.configure(params.search_settings())
        except ModelError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._node.params = params
        return SetParametersResult(successful=True)


class PolicyNode(ModelNode[PolicyParams]):
    """Answers each observation with one plan, a repeated observation with the same plan."""

    NAME = "policy"

    def needs(self) -> tuple[str, ...]:
        return ("act",) if self.params.planner == "actor" else ("plan",)

    def configure(self) -> None:
        super().configure()
        self._core = LiveSearch(self).planner
        p = self.params
        self._goals = GoalListener(self, self._core, p.goal)
        self._maker = PlanMaker()
        self._synchronizer = Synchronizer(("latent", "step"))
        self._answer: Plan | None = None
        self._plans = topics.PLAN.publisher(self)
        qos = topics.frames_qos(p.mode)
        self._space = RobotSpace(self, self._maker)
        self.listen(topics.LATENT, messages.latent_from_msg, self._on_latent, qos)
        self.listen(topics.STEPS, messages.step_from_msg, self._on_step)

    def _on_step(self, step: Step) -> None:
        self._core.delay.record(step)
        self.poll()
        if step.is_last:
            return
        if self._answer is not None and self._answer.stamp_ns == step.stamp_ns:
            self._plans.publish(messages.plan_to_msg(self._answer))
        elif self.weight_cache.newest is None:
            self._act_at_random(step)
        else:
            self._together(self._synchronizer.put("step", step.stamp_ns, step))

    def _on_latent(self, latent: Latent) -> None:
        if self._answer is None or self._answer.stamp_ns != latent.stamp_ns:
            self._together(self._synchronizer.put("latent", latent.stamp_ns, latent))

    def _together(self, both: dict[str, Any] | None) -> None:
        if both is None:
            return
        started = time.perf_counter()
        latent, step = both["latent"], both["step"]
        weights = self.weight_cache.get(latent.origin)
        if weights is None:
            self.drop("latent/version", f"latent of {latent.origin}: this version is unknown here")
            return
        if latent.state.size != weights.state:
            self.drop(
                "latent/size",
                f"latent: {latent.state.size} numbers, {latent.origin} has {weights.state}",
            )
            return
        self.weight_cache.keep_only(weights)
        if not self._core.can_act(weights):
            self._goals.report_missing()
            if self.params.mode == topics.LOCKSTEP:
                self._act_at_random(step)
            return
        if (space := self._maker.known_space(step)) is not None:
            check_space(weights, space, self.params.planner)
        flat = torch.from_numpy(latent.state)[None].to(self.device)
        try:
            actions = self._core.act(weights, weights.model.unpack(flat), step)
        except MessageError as error:
            self.drop(f"goal/{error.reason}", str(error))
            return
        except PlanRefused as error:
            self.report_fault("plan", str(error), error=True)
            return
        self.clear_fault("plan", "plans are found again")
        self._publish_plan(step, weights.origin(self._core.module), actions, started)
        self.params.measure(self, self._core, step)

    def _act_at_random(self, step: Step) -> None:
        started = time.perf_counter()
        if (space := self._space.of(step)) is not None:
            actions = self._core.random_action(space, step.stamp_ns)
            self._publish_plan(step, RANDOM, actions, started)

    def _publish_plan(self, step: Step, origin: Origin, actions: Vector, started: float) -> None:
        self.diagnostics.record_latency(time.perf_counter() - started)
        self._answer = self._maker.plan(step, origin, actions)
        self._plans.publish(messages.plan_to_msg(self._answer))


def main() -> None:
    spin.main(PolicyNode)


if __name__ == "__main__":
    main()
