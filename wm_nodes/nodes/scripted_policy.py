"""Plans without a model: a task's script (simulated arm), random motion, or holding still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState

from wm_nodes.control.plans import PlanMaker
from wm_nodes.namespaces import beside
from wm_nodes.records import RANDOM, Origin, Step, Vector
from wm_nodes.robots.arm.sim.tasks import TASKS, State
from wm_nodes.robots.hold_action import still
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param

SCRIPT = Origin("script", "expert")
STILL = Origin("script", "hold")
KEEP = 0.95
OLD_S = 0.5
SCORE = "arm_sim/score"


@dataclass(frozen=True)
class ScriptedPolicyParams(NodeParams):
    policy: str = param(
        "expert",
        "expert: the task's script (simulated arm); random: smooth random motion; hold: no motion.",
        choices=("expert", "random", "hold"),
    )
    task: str = param("reach", "Task of the script.", choices=tuple(TASKS))
    score: str = param(
        "",
        "Topic of the simulator's state for scripts; empty: `arm_sim/score` beside the node's "
        "namespace.",
    )
    seed: int = param(0, "Seed of random motion.", low=0, high=2**31 - 1)
    points: int = param(3, "Number of (equal) actions in a plan.", low=1, high=100)


class ScriptedPolicyNode(ManagedNode[ScriptedPolicyParams]):
    """Answers each step with one plan."""

    NAME = "scripted_policy"

    def configure(self) -> None:
        self._maker = PlanMaker()
        self._random = np.random.default_rng(self.params.seed)
        self._drift: Vector | None = None
        self._state: State | None = None
        self._state_s = 0.0
        self._score = self.params.score or beside(self.get_namespace(), SCORE)
        self._plans = topics.PLAN.publisher(self)
        self.listen(topics.SPEC, messages.spec_from_msg, self._maker.learn, idle=True)
        self.listen(topics.STEPS, messages.step_from_msg, self._on_step)
        if self.params.policy == "expert":
            self.create_subscription(JointState, self._score, self._on_score, topics.SENSOR)

    def activate(self) -> None:
        self.diagnostics.ready = True

    def _on_score(self, msg: JointState) -> None:
        facts = dict(zip(msg.name, msg.position))
        try:
            places = {
                what: np.array([facts[f"{what}_{axis}"] for axis in "xyz"])
                for what in ("hand", "cube", "goal")
            }
            self._state = State(
                places["hand"], places["cube"], places["goal"], opening=facts["opening"]
            )
            self._state_s = time.monotonic()
        except KeyError as error:
            self.drop(
                "score/names",
                f"score: got no {error}, expected the simulated arm's names. Check the topic",
            )

    def _on_step(self, step: Step) -> None:
        if step.is_last:
            return
        started = time.perf_counter()
        space = self._maker.space(step)
        choice = self._choose(step, np.array(space.high, np.float32))
        if choice is None:
            return
        origin, action = choice
        actions = np.repeat(space.nearest(action)[None], self.params.points, axis=0)
        self._plans.publish(messages.plan_to_msg(self._maker.plan(step, origin, actions)))
        self.diagnostics.record_latency(time.perf_counter() - started)

    def _choose(self, step: Step, high: Vector) -> tuple[Origin, Any] | None:
        zeros = np.zeros(len(high), np.float32)
        if self.params.policy == "hold":
            return STILL, still(step.names, step.commanded)
        if self.params.policy == "random":
            if self._drift is None or step.is_first or len(self._drift) != len(high):
                self._drift = zeros
            fresh = self._random.normal(0.0, 0.5, len(high)) * high
            self._drift = (KEEP * self._drift + np.sqrt(1 - KEEP**2) * fresh).astype(np.float32)
            return RANDOM, self._drift
        if self._state is None or time.monotonic() - self._state_s > OLD_S:
            self.report_fault("score", f"nothing received on {self._score}: the script cannot plan")
            return None
        self.clear_fault("score", "the script plans again")
        target = TASKS[self.params.task].script(self._state)
        most = float(np.abs(target[:3] / high[:3]).max())
        action = np.concatenate([target[:3] / max(most, 1.0), target[3:]])[: len(high)]
        if not target[3:].any():  # the gripper is left alone
            action[3:] = still(step.names, step.commanded)[3:]
        return SCRIPT, action


def main() -> None:
    spin.main(ScriptedPolicyNode)


if __name__ == "__main__":
    main()
