"""Latent in, plan out: by the actor or by a planner; random as long as there are no weights."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from wm_nodes import messages, spin, topics
from wm_nodes.cores.choose import CHOOSERS, chooser
from wm_nodes.cores.join import Join
from wm_nodes.cores.mind import Policy
from wm_nodes.cores.plans import PlanMaker
from wm_nodes.cores.records import RANDOM, Latent, Origin, Plan, Step, Vector
from wm_nodes.nodes.thinker import Thinker, ThinkerParams
from wm_nodes.params import param


@dataclass(frozen=True)
class PolicyParams(ThinkerParams):
    planner: str = param("actor", "What chooses the action.", choices=CHOOSERS)
    budget_s: float = param(0.0, "cem, mppi: seconds for a search; 0: all its iterations.", low=0.0)


class PolicyNode(Thinker):
    """Answers each observation with one plan; a repeated one with the same plan again."""

    NAME = "policy"
    PARAMS = PolicyParams

    def parts(self) -> tuple[str, ...]:
        actor = self.params.planner == "actor"
        return ("actor",) if actor else ("world_model", "actor", "critic")

    def configure(self) -> None:
        super().configure()
        p = self.params
        self._core = Policy(p.seed, self.device, chooser(p.planner, p.budget_s))
        self._maker = PlanMaker()
        self._join = Join(("latent", "step"))
        self._answer: Plan | None = None
        self._plans = topics.PLAN.publisher(self)
        qos = topics.frames_qos(p.mode)
        self.listen(topics.SPEC, messages.spec_from_msg, self._maker.learn, idle=True)
        self.listen(topics.LATENT, messages.latent_from_msg, self._on_latent, qos)
        self.listen(topics.STEPS, messages.step_from_msg, self._on_step)

    def _on_step(self, step: Step) -> None:
        self.poll()
        if step.is_last:
            return
        if self._answer is not None and self._answer.stamp_ns == step.stamp_ns:
            self._plans.publish(messages.plan_to_msg(self._answer))
        elif self.shelf.newest is None:
            started = time.perf_counter()
            actions = self._core.act_blindly(*self._maker.bounds(step), step.stamp_ns)
            self._say(step, RANDOM, actions, started)
        else:
            self._together(self._join.put("step", step.stamp_ns, step))

    def _on_latent(self, latent: Latent) -> None:
        if self._answer is None or self._answer.stamp_ns != latent.stamp_ns:
            self._together(self._join.put("latent", latent.stamp_ns, latent))

    def _together(self, both: dict | None) -> None:
        if both is None:
            return
        started = time.perf_counter()
        latent, step = both["latent"], both["step"]
        weights = self.shelf.get(latent.origin)
        if weights is None:
            self.drop("latent/version", f"latent of {latent.origin}: this version is unknown here")
            return
        if latent.state.size != weights.state:
            self.drop(
                "latent/size",
                f"latent: {latent.state.size} numbers, {latent.origin} has {weights.state}",
            )
            return
        self.shelf.in_use(weights)
        flat = torch.from_numpy(latent.state)[None].to(self.device)
        actions = self._core.act(weights, weights.model.unpack(flat), step)
        self._say(step, weights.origin(self._core.module), actions, started)

    def _say(self, step: Step, origin: Origin, actions: Vector, started: float) -> None:
        self.health.worked(time.perf_counter() - started)
        self._answer = self._maker.plan(step, origin, actions)
        self._plans.publish(messages.plan_to_msg(self._answer))


def main() -> None:
    spin.main(PolicyNode)


if __name__ == "__main__":
    main()
