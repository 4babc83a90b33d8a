"""The three thinking parts, on tensors: picture -> tokens -> state -> action.

The split nodes carry the results as messages; the agent hands them on. Same objects, same numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_models.errors import PlanRefused
from wm_models.interface.state import State
from wm_nodes.agent.action_selection import Chooser
from wm_nodes.agent.delay_compensation import Delay
from wm_nodes.agent.encoder import observed
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.noise import numpy_noise, torch_noise
from wm_nodes.agent.state_filter import check_action
from wm_nodes.agent.weights import Weights, device_of
from wm_nodes.errors import UserError
from wm_nodes.records import Step, Vector
from wm_nodes.robots.cameras.preprocess import ImagePipeline


class Aim:
    """A goal in the terms of whichever weights are in use."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self._seen: tuple[Weights, dict[str, Tensor]] | None = None

    @torch.inference_mode()
    def features(self, weights: Weights) -> dict[str, Tensor] | None:
        """Return the goal as the model imagines it, None where the model takes none."""
        spec = weights.model.spec
        if not spec.has_goal:
            return None
        if self._seen is None or self._seen[0] is not weights:
            size = spec.image_size
            image = ImagePipeline(*size)(self.goal.image) if size else None
            found = weights.model.encode_goal(observed(weights, image, self.goal.proprio))
            self._seen = weights, found
        return self._seen[1]


class Policy:
    """State to actions, or random ones as long as there are no weights.

    What acts before a plan can (Delay) is imagined first: a plan begins where the robot will be. A
    plan is carried out for as many actions as the chooser says, and only then made anew.
    """

    def __init__(
        self, seed: int, device: torch.device, chooser: Chooser, delay: Delay | None = None
    ) -> None:
        self._seed, self._noise = seed, torch.Generator(device)
        self._chooser, self.delay = chooser, delay or Delay()
        self._aim: Aim | None = None
        self._made: tuple[Weights, int, Vector] | None = None  # by what, when, actions
        self._sent: tuple[int, Vector] | None = None  # what the robot goes by: when, actions
        self.module = chooser.name

    @property
    def goal(self) -> Goal | None:
        """What is to be brought about; None: whatever brings reward."""
        return self._aim.goal if self._aim else None

    @goal.setter
    def goal(self, goal: Goal | None) -> None:
        self._aim = Aim(goal) if goal is not None else None
        self._made = None
        self._chooser.forget()

    @property
    def planned_ns(self) -> int:
        """Stamp of the observation that the plan in hand answers; -1: there is none."""
        return self._made[1] if self._made else -1

    @property
    def rounds(self) -> tuple[int, int]:
        """Rounds of the newest search: made before its budget was spent, and wanted."""
        return self._chooser.rounds

    @property
    def floor_s(self) -> float:
        """Seconds that the newest search takes at least, whatever its budget is."""
        return self._chooser.floor_s

    def can_act(self, weights: Weights) -> bool:
        """Whether there is something to act for: a goal, rewards, or an actor."""
        return self._chooser.can_choose(weights, self._aim is not None)

    def act(self, weights: Weights, state: State, step: Step) -> Vector:
        """Return actions (N, A) in the robot's units, the first to be done now. Explores in
        training episodes only. MessageError where the goal does not fit the model; PlanRefused
        where there is no plan: the robot must stop."""
        check_action(weights, step)
        self.delay.heard(step)
        left = self._left(weights, step)
        if left is not None:
            return left
        noise = torch_noise(self._noise, self._seed, "policy", step.stamp_ns)
        goal = self._aim.features(weights) if self._aim else None
        underway, before = self._underway(weights, step)
        state, settled = foreseen(weights, state, underway, noise)
        first = settled.flatten()
        try:
            chosen = self._chooser.choose(weights, state, step, noise, goal, first).detach()
        except PlanRefused:
            self._made = None
            raise
        robot = weights.actions.to_robot(chosen.float()).flatten(0, 1)  # (H f, A)
        free: Vector = robot.cpu().numpy()[len(settled) :]
        actions = np.concatenate([underway[before:], free])
        self._made = (weights, step.stamp_ns, actions)
        self._sent = (step.stamp_ns, actions)
        return actions

    def _underway(self, weights: Weights, step: Step) -> tuple[Vector, int]:
        """What acts before a plan can, and how much of it was commanded before now."""
        spec = weights.model.spec
        period_s = spec.model_dt / spec.frameskip
        rest = np.zeros((0, len(step.names)), np.float32)
        if self._sent is not None and not step.is_first and period_s:
            passed = round((step.stamp_ns - self._sent[0]) / 1e9 / period_s)
            rest = self._sent[1][max(passed, 0) :]
        return self.delay.underway(rest, period_s)

    def _left(self, weights: Weights, step: Step) -> Vector | None:
        """What is left of the plan in hand; None where a new one is due."""
        spec = weights.model.spec
        execute = self._chooser.executes(weights)
        if spec.context > 1 and execute % spec.frameskip:
            raise UserError(
                f"execute: {execute}, but model {weights.preset} looks back at its last frames, "
                f"one every {spec.frameskip} actions. Right: 0, or a multiple of {spec.frameskip}."
            )
        if self._made is None or execute == 1 or step.is_first:
            return None
        by, stamp_ns, actions = self._made
        period_ns = spec.model_dt / spec.frameskip * 1e9
        if by is not weights or not period_ns:
            return None
        passed = round((step.stamp_ns - stamp_ns) / period_ns)
        return actions[passed:] if 0 < passed < min(execute, len(actions)) else None

    def act_blindly(self, low: Vector, high: Vector, stamp_ns: int) -> Vector:
        """Return one uniform action (1, A)."""
        noise = numpy_noise(self._seed, "random", stamp_ns)
        return noise.uniform(low, high).astype(np.float32)[None]


@torch.inference_mode()
def foreseen(
    weights: Weights, state: State, actions: Vector, noise: torch.Generator
) -> tuple[State, Tensor]:
    """Return the state after as many of the robot's actions (n, A) as make whole model steps, and
    the others (r, A) in the model's units."""
    model, skip = weights.model, weights.model.spec.frameskip
    scaled = weights.actions.scale(torch.from_numpy(actions).to(device_of(model)))
    whole = len(scaled) // skip * skip
    for block in scaled[:whole].unflatten(0, (-1, skip)) if whole else ():
        state = model.step(state, block.reshape(1, -1), generator=noise)
    return state, scaled[whole:]
