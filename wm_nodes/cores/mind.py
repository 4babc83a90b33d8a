"""The three thinking parts, on tensors: picture -> tokens -> state -> action.

The split nodes carry the results as messages; the agent hands them on. Same objects, same numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm_models.interface import PlanRefused, State
from wm_nodes.cores.choose import Chooser
from wm_nodes.cores.delay import Delay
from wm_nodes.cores.goal import Goal
from wm_nodes.cores.images import ImagePipeline
from wm_nodes.cores.noise import numpy_noise, torch_noise
from wm_nodes.cores.records import Image, Step, Vector
from wm_nodes.cores.weights import Weights, device_of
from wm_nodes.errors import MessageError, UserError


class Encoder:
    """Observations to tokens; remembers nothing."""

    @torch.inference_mode()
    def encode(
        self, weights: Weights, image: Image | None, proprio: Vector | None = None
    ) -> Tensor:
        """Return tokens [1, N, D] of image (H, W, 3) and proprio (P,), as far as it sees them."""
        return weights.model.encode(observed(weights, image, proprio)).float()


def observed(weights: Weights, image: Image | None, proprio: Vector | None) -> dict[str, Tensor]:
    """Return an observation as the model takes it, batch 1; MessageError if it does not fit.

    It holds no more than the model sees; without `proprio` the image alone.
    """
    spec, device = weights.model.spec, device_of(weights.model)
    found: dict[str, Tensor] = {}
    if spec.image_size is not None:
        shape = (*spec.image_size, 3)
        if image is None or image.shape != shape:
            given = None if image is None else image.shape
            raise MessageError(
                "image-shape", f"image: {given}, model {weights.preset} sees {shape}"
            )
        found["image"] = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
    if proprio is not None and weights.wants_proprio:
        if proprio.shape != spec.obs_keys["proprio"]:
            raise MessageError(
                "proprio-shape",
                f"joint_states: {proprio.size} numbers, model {weights.preset} sees "
                f"{spec.obs_keys['proprio'][0]}",
            )
        found["proprio"] = torch.from_numpy(np.ascontiguousarray(proprio))[None].to(device)
    return found


class Filter:
    """The state of one robot, moved on by each observation."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._noise = seed, torch.Generator(device)
        self._weights: Weights | None = None
        self._state: State | None = None
        self._stamp_ns = self._start_ns = self._heard_ns = -1
        self._done: list[Vector] = []  # actions executed since the last frame

    def heard(self, step: Step) -> None:
        """Take note of every step: in real time an episode's first picture may be passed over."""
        if step.is_first:
            self._start_ns = step.stamp_ns
            self._done.clear()
        elif step.stamp_ns > self._heard_ns:
            self._done.append(step.executed)
        self._heard_ns = step.stamp_ns

    @torch.inference_mode()
    def update(self, weights: Weights, tokens: Tensor, step: Step) -> State:
        """Return the state after tokens [1, N, D] of the step's observation.

        It begins anew where an episode does, where nothing came before, and with other weights. A
        model with a frameskip takes an observation every so many steps, and begins anew where more
        have passed; in between its state stays. Where it looks at one frame only, every observation
        is one.
        """
        model, spec = weights.model, weights.model.spec
        check_action(weights, step)
        device = device_of(model)
        if step.stamp_ns != self._heard_ns:
            self.heard(step)
        fresh = self._state is None or weights is not self._weights
        fresh |= self._stamp_ns < self._start_ns <= step.stamp_ns
        first = fresh or step.is_first
        if spec.frameskip > 1 and not first:
            if spec.context > 1 and len(self._done) < spec.frameskip:
                return self._state
            first = spec.context == 1 or len(self._done) > spec.frameskip
        action = self._action(weights, step, first).to(device)
        noise = torch_noise(self._noise, self._seed, "world_model", step.stamp_ns)
        state = model.initial(1, device) if fresh else self._state
        begins = torch.tensor([first], device=device)
        state = model.filter(state, action, tokens.to(device), begins, generator=noise)
        self._state, self._weights, self._stamp_ns = state, weights, step.stamp_ns
        self._done.clear()
        return state

    def _action(self, weights: Weights, step: Step, first: bool) -> Tensor:
        """The model's action [1, f A] that led to the step's observation."""
        skip = weights.model.spec.frameskip
        if skip == 1:
            return weights.actions.from_robot(torch.from_numpy(step.executed)[None, None])
        if first:
            return torch.zeros(1, weights.model.spec.action_dim)
        return weights.actions.from_robot(torch.from_numpy(np.stack(self._done))[None])


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


@torch.inference_mode()
def decode(weights: Weights, state: State) -> Image:
    """Return the picture (H, W, 3) that a state stands for."""
    picture = weights.model.decode(state)["image"][0].clamp(0.0, 1.0)  # (3, H, W)
    return (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def beside_truth(weights: Weights, state: State, image: Image) -> Image:
    """Return the picture (H, W, 3) and, at its right, what the model believes it to be."""
    return np.concatenate([image, decode(weights, state)], axis=1)


def check_action(weights: Weights, step: Step) -> None:
    """Refuse a robot with another number of action dimensions than the weights were made for."""
    size = len(weights.actions.robot_low)
    if size != len(step.names):
        raise UserError(
            f"weights: version {weights.version} of {weights.preset} acts in "
            f"{size} dimensions, this robot in {len(step.names)}: "
            f"{', '.join(step.names)}"
        )
