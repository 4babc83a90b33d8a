"""Policies of the simulated arm that are not learned: a task's script, and smooth random play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wm_nodes.records import RANDOM, Origin, Vector
from wm_nodes.robots.arm.arm import Arm
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.hold_action import still
from wm_nodes.robots.robot import Observation, RobotError, RobotSpec

if TYPE_CHECKING:
    from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

SCRIPT = Origin("script", "expert")
PULL_PER_S = 2.0  # how fast play goes for its next place
NOISE = 0.35  # of play, as a share of the bound
KEEP = 0.9
ABOUT_M = 0.1  # play about a thing is so far from it at most


class ArmExpert:
    """A task's script, which reads the simulator's state. Actions: velocity of the end effector."""

    origin = SCRIPT

    def __init__(self, spec: RobotSpec, world: ArmWorld) -> None:
        self._names, self._world = spec.action.names, world
        if self._names[:3] != ("x", "y", "z"):
            raise ValueError(
                f"expert: got actions {self._names}, expected the end effector's velocity"
            )
        self._low = np.array(spec.action.low, np.float32)
        self._high = np.array(spec.action.high, np.float32)

    def begin(self) -> None:
        """Scripts have no state."""

    def act(self, observation: Observation) -> Vector:
        target = self._world.task.script(self._world.state())
        velocity, gripper = target[:3], target[3:]
        most = float(np.abs(velocity / self._high[:3]).max())
        both = np.concatenate([velocity / max(most, 1.0), gripper])[: len(self._names)]
        if not gripper.any():  # the gripper is left alone: its speed is zero, its opening is kept
            both[3:] = still(self._names, observation.commanded)[3:]
        return np.clip(both.astype(np.float32), self._low, self._high)


class SmoothPlay:
    """Goes from random place to random place of the workspace with noise that changes slowly.

    Every part of the box is visited, at all speeds, with pauses; no task is known. A share `near`
    of the places is about an object of the scene: the world's `things`.
    """

    origin = RANDOM

    def __init__(
        self,
        arm: Arm,
        seed: int,
        *,
        near: float = 0.0,
        things: Callable[[], Sequence[Floats]] = tuple,
    ) -> None:
        self._arm, self._seed, self._near, self._things = arm, seed, near, things
        spec, limits = arm.spec.action, arm.config.limits
        self._low, self._high = np.array(spec.low), np.array(spec.high)
        self._of_end_effector = spec.names[:3] == ("x", "y", "z")
        if near and not self._of_end_effector:
            raise ValueError(
                f"near: got actions {spec.names}, expected the end effector's velocity"
            )
        self._box = (
            (limits.box_low, limits.box_high)
            if self._of_end_effector
            else (limits.low[: arm.config.arm_joints], limits.high[: arm.config.arm_joints])
        )

    def begin(self, episode: int) -> None:
        self._random = np.random.default_rng((self._seed, episode))
        self._left = 0
        self._push = np.zeros(len(self._low))
        self._grip = 1.0

    def choose(self, observation: Observation) -> tuple[Vector, Vector]:
        place = self._place(observation)
        if self._left <= 0:
            self._left = int(self._random.integers(5, 40))
            self._goal = self._somewhere()
            self._pace = float(self._random.choice([0.0, 0.4, 0.7, 1.0], p=[0.1, 0.2, 0.3, 0.4]))
            self._grip = float(self._random.choice([-1.0, 1.0]))
        self._left -= 1
        count = len(place)
        drive = np.clip(PULL_PER_S * (self._goal - place), self._low[:count], self._high[:count])
        fresh = self._random.normal(0.0, NOISE, len(self._push)) * self._high
        self._push = KEEP * self._push + np.sqrt(1 - KEEP**2) * fresh
        action = self._push.copy()
        action[:count] += self._pace * drive
        action[count:] += self._grip
        done = np.clip(action, self._low, self._high).astype(np.float32)
        return done, done

    def _somewhere(self) -> Floats:
        near = bool(self._near) and self._random.random() < self._near
        things = list(self._things()) if near else []
        if not things:
            return self._random.uniform(*self._box)
        off = self._random.normal(size=3)
        off *= ABOUT_M * self._random.random() ** (1 / 3) / np.linalg.norm(off)
        return np.clip(things[self._random.integers(len(things))] + off, *self._box)

    def _place(self, observation: Observation) -> Floats:
        count = len(self._arm.config.limits.joints)
        end_effector = observation.proprio[count : count + 3]
        part = end_effector if self._of_end_effector else observation.proprio[: len(self._low)]
        return part.astype(np.float64)


def expert_of(robot: SimulatedArm) -> ArmExpert:
    """Return the script of the robot's task."""
    return ArmExpert(robot.spec, robot.world)


def play_of(robot: SimulatedArm, seed: int, near: float) -> SmoothPlay:
    """Return play, a share `near` of it about objects of the scene. RobotError: it has none."""
    if near and not robot.world.things():
        raise RobotError(
            f"--near: got {near:g}, but task {robot.spec.task!r} has no objects. Use 0, or task "
            "reach, push or lift."
        )
    return SmoothPlay(robot, seed, near=near, things=robot.world.things)
