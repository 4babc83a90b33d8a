"""PointMaze: it keeps the contracts, and the ball stays in."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.sims.point_maze import (
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


class TestPointMaze(SimulatorContract, GoalTaskContract, CalibratedCamerasContract):
    def make_robot(self):
        return PointMaze(size=16, time_limit=5)


class TestPointMazeWithoutImages(SimulatorContract, GoalTaskContract):
    def make_robot(self):
        return PointMaze(render="none", time_limit=5, action_repeat=2)


def test_rendering_the_goal_does_not_change_the_state():
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
            position = physics.state[:2]
            assert is_free(position) or is_free(position + 0.06) or is_free(position - 0.06)
    physics.put([0.8, 1.8, 0.0, 0.0])
    physics.step([0.0, 1.0])
    assert physics.state[1] > 1.8 and physics.state[3] > 0.5


def test_starts_and_goals_are_as_drawn_unless_the_start_is_at_the_goal():
    """Starts within success of the goal are drawn again; goals and other starts stay."""
    with PointMaze(render="none") as robot:
        for index in range(100):
            seed = episode_seed(0, index, "evaluation")
            start, goal = robot.reset(seed).proprio[:2], robot.goal().proprio[:2]
            random = np.random.default_rng(seed)
            drawn_start, drawn_goal = draw_state(random), draw_state(random)
            np.testing.assert_allclose(goal, drawn_goal[:2], atol=1e-6)
            if np.linalg.norm((drawn_start - drawn_goal)[:2]) >= SUCCESS_M:
                np.testing.assert_allclose(start, drawn_start[:2], atol=1e-6)
