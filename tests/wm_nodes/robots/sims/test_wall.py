"""Wall: it keeps the contracts, walls hold, and a script reaches its goals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_nodes.agent.goals import Goal
from wm_nodes.agent.in_process import goal_of
from wm_nodes.evaluation.baselines import Hold
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.sims.wall import ACTION, GAIN, HIGH, LOW, SUCCESS, TASKS, Layout, Wall, move
from wm_nodes.robots.testing import GoalTaskContract, SimulatorContract

LAYOUT = Layout()


def action_toward(position, goal, layout):
    """Return the action of a script that walks to the goal, through the door where it must."""
    target = np.asarray(goal, np.float64)
    if (position[0] - layout.x) * (goal[0] - layout.x) < 0:
        near, far = layout.x - 5.0, layout.x + 5.0  # before and behind the door
        near, far = (near, far) if position[0] < layout.x else (far, near)
        in_door = abs(position[1] - layout.door) < 2.0 and abs(position[0] - layout.x) < 6.0
        target = np.array([far if in_door else near, layout.door])
    return np.clip((target - position) / GAIN, ACTION.low, ACTION.high).astype(np.float32)


class TestWall(SimulatorContract, GoalTaskContract):
    def make_robot(self):
        return Wall(size=16, time_limit=5)


def in_wall(position):
    x, y = position[..., 0], position[..., 1]
    beside = np.abs(x - LAYOUT.x) < LAYOUT.width / 2 - 1e-6
    return beside & (np.abs(y - LAYOUT.door) > LAYOUT.half + 1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_dot_passes_a_wall(seed):
    random = np.random.default_rng(seed)
    position = np.stack([[10.0, 50.0]] * 64)
    for _ in range(40):
        before = position
        position = move(position, random.uniform(-1.8, 1.8, (64, 2)), LAYOUT)
        assert ((position >= LOW) & (position <= HIGH)).all() and not in_wall(position).any()
        crossed = (before[:, 0] - LAYOUT.x) * (position[:, 0] - LAYOUT.x) < 0
        in_door = np.abs(position[:, 1] - LAYOUT.door) < LAYOUT.half + 4.0
        assert (in_door | ~crossed).all()


def test_free_motion_is_twice_the_action_and_walls_push_back():
    position = np.array([15.0, 20.0])
    np.testing.assert_allclose(move(position, [1.0, -0.5], LAYOUT), [17.0, 19.0])
    np.testing.assert_allclose(move(np.array([7.0, 20.0]), [-1.8, 0.0], LAYOUT), [5.5, 20.0])
    np.testing.assert_allclose(move(np.array([27.0, 20.0]), [1.8, 0.0], LAYOUT), [28.5, 20.0])
    np.testing.assert_allclose(move(np.array([27.0, 30.0]), [1.8, 0.0], LAYOUT), [30.6, 30.0])
    np.testing.assert_allclose(move(position, [0.0, 0.0], LAYOUT), position)


def test_many_dots_move_as_single_ones():
    random = np.random.default_rng(1)
    positions = random.uniform(LOW + 1, HIGH - 1, (50, 2))
    positions = positions[np.abs(positions[:, 0] - LAYOUT.x) > 4]
    actions = random.uniform(-1.8, 1.8, positions.shape)
    together = move(positions, actions, LAYOUT)
    single = [move(p, a, LAYOUT) for p, a in zip(positions, actions)]
    np.testing.assert_array_equal(together, single)


@pytest.mark.parametrize("task", TASKS)
def test_a_script_reaches_goals_of_the_task(task):
    crossings = 0
    with Wall(task, seed=2, size=16) as world:
        for _ in range(10):
            observation = world.reset()
            goal = world.goal()
            crossings += (observation.proprio[0] < 32) != (goal.proprio[0] < 32)
            while not observation.is_last and not observation.success:
                observation = world.act(
                    action_toward(observation.proprio, goal.proprio, world.layout)
                )
            assert observation.success and -observation.reward < SUCCESS
    assert crossings == {"wall-same": 0, "wall-door": 10}.get(task, crossings)


def test_the_dot_is_rendered_at_its_proprioception():
    with Wall(size=64) as world:
        observation = world.reset(3)
        red = observation.images["top"].astype(int)
        row, column = np.unravel_index((red[..., 0] - red[..., 1]).argmax(), (64, 64))
        np.testing.assert_allclose(
            [(column + 0.5) * 65 / 64, (row + 0.5) * 65 / 64], observation.proprio, atol=0.8
        )
        goal = goal_of(world, "top")()
        assert isinstance(goal, Goal) and goal.image.shape == (64, 64, 3)
        assert goal.proprio is None  # the image is the only observation of the goal
        with_joints = goal_of(world, "top", joints=True)()
        assert (
            with_joints is not None
            and with_joints.proprio is not None
            and len(with_joints.proprio) == 2
        )


def test_standing_still_solves_no_episode_of_wall():
    with Wall("wall-same", size=8, time_limit=3) as world:
        assert evaluate(world, Hold(world), 100, seed=0).success_rate == 0.0
