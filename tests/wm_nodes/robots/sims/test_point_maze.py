"""PointMaze: it keeps the contracts, the ball stays in, and a planner that knows it wins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.wm_nodes.robots.sims.reference import assert_reference
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_models.planners import CEM, GoalCost
from wm_nodes.robots.robot import RobotError
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.sims.point_maze import (
    PROPRIO,
    SUCCESS_M,
    Physics,
    PointMaze,
    draw_state,
    is_free,
)
from wm_nodes.robots.testing import (
    CalibratedCamerasContract,
    GoalTaskContract,
    SimulatorContract,
)

REFERENCE = [
    (-25.075, 650.0, 2.657, 0.425, -0.073, 1.705),
    (-20.259, 1300.0, 3.015, 2.095, 0.603, 0.207),
    (-5.922, 1950.0, 2.5, 1.897, -0.824, 1.471),
]


class TestPointMaze(SimulatorContract, GoalTaskContract, CalibratedCamerasContract):
    def make_robot(self):
        return PointMaze(size=16, time_limit=5)


class TestPointMazeWithoutImages(SimulatorContract, GoalTaskContract):
    def make_robot(self):
        return PointMaze(render="none", time_limit=5, action_repeat=2)


def test_another_task_is_refused():
    with pytest.raises(RobotError, match="task: got 'maze-l', expected one of maze-u"):
        PointMaze("maze-l")


def test_episodes_of_a_seed_are_those_of_earlier_logs():
    with PointMaze(seed=3, time_limit=12, render="none") as robot:
        assert_reference(robot, REFERENCE)


def test_looking_at_the_goal_moves_nothing():
    with PointMaze(size=16) as maze:
        maze.reset(3)
        before = maze.act([1.0, -1.0])
        maze.goal()
        np.testing.assert_array_equal(maze._physics.state, before.proprio)


def test_the_ball_is_pushed_and_stays_in_the_maze():
    physics = Physics()
    random = np.random.default_rng(0)
    for _ in range(5):
        physics.put(draw_state(random))
        for _ in range(60):
            physics.step(random.uniform(-1, 1, 2))
            place = physics.state[:2]
            assert is_free(place) or is_free(place + 0.06) or is_free(place - 0.06)
    physics.put([0.8, 1.8, 0.0, 0.0])
    physics.step([0.0, 1.0])
    assert physics.state[1] > 1.8 and physics.state[3] > 0.5


class KnowsMaze(WorldModel):
    """MuJoCo itself behind the contract of models."""

    def __init__(self):
        super().__init__()
        self.spec = ModelSpec((-1.0,) * 10, (1.0,) * 10, {"x": (4,)}, frameskip=5, has_goal=True)
        self._physics = Physics()

    def step(self, state, action, *, generator=None):
        after = []
        for now, forces in zip(state["x"].numpy(), action.unflatten(-1, (5, 2)).numpy()):
            self._physics.put(now)
            for force in forces:
                self._physics.step(force)
            after.append(self._physics.state)
        return {"x": torch.from_numpy(np.stack(after))}

    def readout(self, state, want, *, generator=None):
        return {"proprio": state["x"][:, :2]} if "proprio" in want else {}


def test_a_planner_that_knows_the_maze_reaches_its_goals():
    """Most of them: where the U lies between, the straight distance leads into a wall."""
    model, cem = KnowsMaze(), CEM(horizon=4, samples=40, elites=6, iterations=3, sigma0=1.0)
    noise = torch.Generator().manual_seed(0)
    reached = []
    with PointMaze(seed=5, size=8, time_limit=60, render="none") as maze:
        for _ in range(12):
            seen, warm = maze.reset(), None
            goal = {"proprio": torch.from_numpy(maze.goal().proprio[:2])[None]}
            while not seen.is_last and not seen.success:
                state = {"x": torch.from_numpy(seen.proprio)[None]}
                cost = GoalCost(keys={"proprio": 1.0}, reduce="all")
                plan, warm, _ = cem.plan(model, state, cost, goal, warm, generator=noise)
                warm = warm.shifted(1)
                for action in plan[0, 0].reshape(5, 2).numpy():
                    seen = maze.act(action)
                    if seen.is_last or seen.success:
                        break
            reached.append(seen.success)
    assert np.mean(reached) >= 0.75, reached
    assert len(PROPRIO) == 4


def test_no_episode_begins_at_its_goal_and_the_others_are_as_drawn():
    """Starts within success of the goal are drawn again; goals and other starts stay."""
    with PointMaze(render="none") as robot:
        for index in range(100):
            seed = episode_seed(0, index, "evaluation")
            start, goal = robot.reset(seed).proprio[:2], robot.goal().proprio[:2]
            assert np.linalg.norm(start - goal) >= SUCCESS_M
            random = np.random.default_rng(seed)
            drawn, aim = draw_state(random), draw_state(random)
            np.testing.assert_allclose(goal, aim[:2], atol=1e-6)
            if np.linalg.norm((drawn - aim)[:2]) >= SUCCESS_M:
                np.testing.assert_allclose(start, drawn[:2], atol=1e-6)
