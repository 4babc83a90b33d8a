"""Wall and PointMaze, the worlds that DINO-WM was tested in: the laws that hold in both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from tests.wm_nodes.robots.sims.reference import assert_reference
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_models.planners import CEM, GoalCost
from wm_nodes.robots.robot import RobotError
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.sims import point_maze, wall
from wm_nodes.robots.sims.point_maze import PointMaze
from wm_nodes.robots.sims.wall import Wall

FRAMESKIP = 5  # robot steps per model step, as in DINO-WM
MAZE_WITHOUT_IMAGES = partial(PointMaze, render="none")
SMALL_WALL = partial(Wall, size=8)

REFERENCE = {
    "wall-any": [
        (-298.586, 1300.0, 37.238, 42.23),
        (-386.63, 2600.0, 59.832, 52.382),
        (-228.179, 3900.0, 48.342, 50.645),
    ],
    "wall-door": [
        (-298.586, 1300.0, 37.238, 42.23),
        (-649.21, 2600.0, 59.832, 52.382),
        (-522.417, 3900.0, 48.342, 50.645),
    ],
    "wall-same": [
        (-176.925, 1300.0, 37.238, 42.23),
        (-386.63, 2600.0, 59.832, 52.382),
        (-228.179, 3900.0, 48.342, 50.645),
    ],
    "maze-u": [
        (-25.075, 650.0, 2.657, 0.425, -0.073, 1.705),
        (-20.259, 1300.0, 3.015, 2.095, 0.603, 0.207),
        (-5.922, 1950.0, 2.5, 1.897, -0.824, 1.471),
    ],
}


@pytest.mark.parametrize(
    ("make_robot", "task", "message"),
    [
        (Wall, "wall-dor", r"task: got 'wall-dor', expected one of wall-same.*'wall-door'"),
        (PointMaze, "maze-l", "task: got 'maze-l', expected one of maze-u"),
    ],
)
def test_another_task_is_refused(make_robot, task, message):
    with pytest.raises(RobotError, match=message):
        make_robot(task)


@pytest.mark.parametrize("task", REFERENCE)
def test_episodes_of_a_seed_are_those_of_earlier_logs(task):
    make_robot = SMALL_WALL if task in wall.TASKS else MAZE_WITHOUT_IMAGES
    with make_robot(task, seed=3, time_limit=12) as robot:
        assert_reference(robot, REFERENCE[task])


@pytest.mark.parametrize(
    ("make_robot", "success"),
    [(partial(SMALL_WALL, "wall-same"), wall.SUCCESS), (MAZE_WITHOUT_IMAGES, point_maze.SUCCESS_M)],
)
def test_no_episode_begins_at_its_goal(make_robot, success):
    """5 of 100 episodes of wall-same began within success distance of the goal: standing still
    'solved' them. Such starts are drawn again."""
    with make_robot() as robot:
        for index in range(100):
            start = robot.reset(episode_seed(0, index, "evaluation")).proprio[:2]
            assert np.linalg.norm(start - robot.goal().proprio[:2]) >= success


class KnownDynamics(WorldModel):
    """The true dynamics behind the contract of models.

    advance: states [N, n] after the actions [N, FRAMESKIP, 2] that are taken in them.
    """

    def __init__(self, advance: Callable, low: tuple, high: tuple, state_dim: int) -> None:
        super().__init__()
        self._advance = advance
        self.spec = ModelSpec(
            low * FRAMESKIP,
            high * FRAMESKIP,
            {"x": (state_dim,)},
            frameskip=FRAMESKIP,
            has_goal=True,
        )

    def step(self, state, action, *, generator=None):
        actions = action.unflatten(-1, (FRAMESKIP, 2)).numpy()
        return {"x": torch.from_numpy(self._advance(state["x"].numpy(), actions)).float()}

    def readout(self, state, want, *, generator=None):
        return {"proprio": state["x"][:, :2]} if "proprio" in want else {}


def known_wall() -> KnownDynamics:
    def advance(positions, actions):
        positions = positions.astype(np.float64)
        for action in actions.swapaxes(0, 1):
            positions = wall.move(positions, action, wall.Layout())
        return positions

    return KnownDynamics(advance, wall.ACTION.low, wall.ACTION.high, 2)


def known_maze() -> KnownDynamics:
    physics = point_maze.Physics()

    def advance(states, actions):
        states_after = []
        for state, forces in zip(states, actions):
            physics.put(state)
            for force in forces:
                physics.step(force)
            states_after.append(physics.state)
        return np.stack(states_after)

    return KnownDynamics(advance, (-1.0,) * 2, (1.0,) * 2, 4)


WIDE = CEM(horizon=5, samples=200, elites=20, iterations=10, sigma0=1.0)
CHEAP = CEM(horizon=4, samples=40, elites=6, iterations=3, sigma0=1.0)  # MuJoCo steps one by one


@pytest.mark.parametrize(
    ("make_robot", "make_dynamics", "search", "episodes", "min_success"),
    [
        pytest.param(partial(SMALL_WALL, "wall-same"), known_wall, WIDE, 8, 1.0, id="wall-same"),
        pytest.param(partial(SMALL_WALL, "wall-door"), known_wall, WIDE, 8, 0.75, id="wall-door"),
        pytest.param(
            partial(MAZE_WITHOUT_IMAGES, time_limit=60), known_maze, CHEAP, 12, 0.75, id="maze-u"
        ),
    ],
)
def test_a_planner_that_knows_the_dynamics_reaches_its_goals(
    make_robot, make_dynamics, search, episodes, min_success
):
    """With a wall in between, the straight distance leads into it, so not every goal is reached.
    As the model is exact, a failure is an error of the planner."""
    model, noise = make_dynamics(), torch.Generator().manual_seed(0)
    with make_robot(seed=5) as world:
        reached = [_reaches(world, model, search, noise) for _ in range(episodes)]
    assert np.mean(reached) >= min_success, reached


def _reaches(world, model, search, noise) -> bool:
    """Whether one episode ends with success; replanned after each model step."""
    observation, warm_start = world.reset(), None
    goal = {"proprio": torch.from_numpy(world.goal().proprio[:2])[None]}
    cost = GoalCost(keys={"proprio": 1.0}, reduce="all")
    while not observation.is_last and not observation.success:
        state = {"x": torch.from_numpy(observation.proprio)[None]}
        plan, warm_start, _ = search.plan(model, state, cost, goal, warm_start, generator=noise)
        warm_start = warm_start.shifted(1)
        for action in plan[0, 0].reshape(FRAMESKIP, 2).numpy():
            observation = world.act(action)
            if observation.is_last or observation.success:
                break
    return observation.success
