"""Tasks of the simulated arm: scene, distance to success, and a script that solves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.safety.limits import Floats

AWAY = (0.0, 0.0, -1.0)
REACH_M = 0.05
PUSH_M = 0.05
LIFT_M = 0.08
CUBE_M = 0.025  # half its side
ABOVE = np.array([0.0, 0.0, 0.1])
CLOSED = 0.61  # opening of the gripper with the cube in it, a little more
STEEP = 5.0  # of the reward, per metre
SPEED_PER_S = 3.0  # how fast a script goes for a place


@dataclass(frozen=True)
class Scene:
    """Places [m] of one episode, in the arm's base frame; `goal` is also what a marker shows."""

    cube: tuple[float, ...] = AWAY
    goal: tuple[float, ...] = AWAY
    disc: tuple[float, ...] = AWAY
    marker: tuple[float, ...] = AWAY


@dataclass(frozen=True)
class State:
    """State of the scene for scripts. Places (3,) [m], opening of the gripper from 0 to 1."""

    end_effector: Floats
    cube: Floats
    goal: Floats
    opening: float


@dataclass(frozen=True)
class Task:
    """`distance` [m] falls to zero as it gets done; success below `enough`."""

    name: str
    about: str
    scene: Callable[[np.random.Generator], Scene]
    distance: Callable[[State], float]
    enough: float
    script: Callable[[State], Floats]

    def reward(self, state: State) -> float:
        """Return 0 (far) to 1 (there)."""
        return float(1.0 - np.tanh(STEEP * self.distance(state)))


def distance_of(reward: npt.ArrayLike) -> Floats:
    """Return the distances [m] that rewards (n,) stand for: the inverse of Task.reward."""
    kept = np.clip(np.asarray(reward, np.float64), 1e-6, 1.0)
    return np.asarray(np.arctanh(1.0 - kept) / STEEP)


def _free(random: np.random.Generator) -> tuple[float, ...]:
    """Return a place within the end effector's box, a little inside."""
    low, high = (0.29, -0.24, 0.06), (0.51, 0.24, 0.31)
    return tuple(float(value) for value in random.uniform(low, high))


def _on_table(random: np.random.Generator, reach: float = 0.18) -> tuple[float, float]:
    return float(random.uniform(0.33, 0.47)), float(random.uniform(-reach, reach))


def _reach_scene(random: np.random.Generator) -> Scene:
    """A ball in the air, as large as what counts as reached and so clear that an
    end effector inside is visible; the disc on the table below it shows one camera how far away it
    is."""
    goal = _free(random)
    return Scene(goal=goal, marker=goal, disc=(*goal[:2], 0.001))


def _goal_scene(random: np.random.Generator) -> Scene:
    return Scene(goal=_free(random))


def _push_scene(random: np.random.Generator) -> Scene:
    cube = _on_table(random, 0.12)
    while True:
        goal = _on_table(random)
        if 0.1 < np.hypot(goal[0] - cube[0], goal[1] - cube[1]) < 0.2:
            return Scene((*cube, CUBE_M), (*goal, CUBE_M), disc=(*goal, 0.001))


def _lift_scene(random: np.random.Generator) -> Scene:
    cube = _on_table(random)
    return Scene((*cube, CUBE_M), (*cube, CUBE_M + 0.15))


def _to_goal(state: State) -> float:
    return float(np.linalg.norm(state.end_effector - state.goal))


def _cube_to_disc(state: State) -> float:
    return float(np.linalg.norm((state.cube - state.goal)[:2]))


def _cube_below(state: State) -> float:
    return float(max(state.goal[2] - state.cube[2], 0.0))


def _go(state: State, place: Floats, grip: float) -> Floats:
    return np.array([*(SPEED_PER_S * (place - state.end_effector)), grip])


def _reach_script(state: State) -> Floats:
    return _go(state, state.goal, 0.0)


def _push_script(state: State) -> Floats:
    """Go over the far side of the cube, down, and through it towards the disc."""
    way = (state.goal - state.cube)[:2]
    far = float(np.hypot(*way))
    way = way / max(far, 1e-6)
    behind = state.cube[:2] - 0.055 * way
    off = state.end_effector[:2] - behind
    side = abs(float(off @ np.array([-way[1], way[0]])))
    along = float(off @ way)
    low = state.end_effector[2] < 0.05
    if far < 0.012:
        return np.zeros(4)
    if low and side < 0.02 and along > -0.05:
        ahead = (
            state.end_effector[:2]
            + 0.05 * way
            - 0.6 * side * np.sign(off @ [-way[1], way[0]]) * (np.array([-way[1], way[0]]))
        )
        return np.array(
            [*(1.6 * (ahead - state.end_effector[:2])), 3.0 * (0.035 - state.end_effector[2]), -1.0]
        )
    if np.hypot(*off) < 0.015:
        return _go(state, np.array([*behind, 0.03]), -1.0)
    height = 0.12 if np.hypot(*off) > 0.015 else 0.03
    level = state.end_effector[2] > 0.085
    place = np.array([*(behind if level else state.end_effector[:2]), height])
    return _go(state, place, -1.0)


def _lift_script(state: State) -> Floats:
    """Go over the cube with open fingers, down, close, up."""
    off = float(np.hypot(*(state.cube - state.end_effector)[:2]))
    deep = state.end_effector[2] - state.cube[2]
    if off > 0.012 and deep < 0.07:
        return _go(state, np.array([*state.end_effector[:2], state.cube[2] + 0.1]), 1.0)
    if off > 0.012 or (deep > 0.02 and state.opening < 0.9):
        return _go(state, state.cube + ABOVE, 1.0)
    if deep > 0.008 and state.opening > CLOSED:
        return _go(state, state.cube, 1.0)
    if state.opening > CLOSED:
        return np.array([0.0, 0.0, 0.0, -1.0])
    return _go(state, np.array([*state.end_effector[:2], state.goal[2] + 0.04]), -1.0)


TASKS = {
    task.name: task
    for task in (
        Task("reach", "bring the end effector to the green ball", _reach_scene, _to_goal, REACH_M,
             _reach_script),
        Task("goal", "bring the end effector to a place that only a goal image shows", _goal_scene,
             _to_goal, REACH_M, _reach_script),
        Task("push", "push the cube onto the disc", _push_scene, _cube_to_disc, PUSH_M,
             _push_script),
        Task("lift", "lift the cube", _lift_scene, _cube_below, 0.15 - LIFT_M, _lift_script),
    )
}  # fmt: skip
