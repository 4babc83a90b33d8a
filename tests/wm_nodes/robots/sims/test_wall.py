"""Wall: it keeps the contracts, walls hold, and a planner that knows the dynamics wins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wm_nodes.robots.sims.reference import assert_reference
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_models.planners import CEM, GoalCost
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.in_process import goal_of
from wm_nodes.evaluation.baselines import Hold
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.robot import RobotError
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.sims.wall import ACTION, GAIN, HIGH, LOW, SUCCESS, TASKS, Layout, Wall, move
from wm_nodes.robots.testing import GoalTaskContract, SimulatorContract

LAYOUT = Layout()

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
}


def toward(place, goal, layout):
    """Return the action of a script that walks to the goal, through the door where it must."""
    aim = np.asarray(goal, np.float64)
    if (place[0] - layout.x) * (goal[0] - layout.x) < 0:
        near, far = layout.x - 5.0, layout.x + 5.0  # before and behind the door
        near, far = (near, far) if place[0] < layout.x else (far, near)
        through = abs(place[1] - layout.door) < 2.0 and abs(place[0] - layout.x) < 6.0
        aim = np.array([far if through else near, layout.door])
    return np.clip((aim - place) / GAIN, ACTION.low, ACTION.high).astype(np.float32)


class TestWall(SimulatorContract, GoalTaskContract):
    def make_robot(self):
        return Wall(size=16, time_limit=5)


def in_wall(place):
    x, y = place[..., 0], place[..., 1]
    beside = np.abs(x - LAYOUT.x) < LAYOUT.width / 2 - 1e-6
    return beside & (np.abs(y - LAYOUT.door) > LAYOUT.half + 1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_passes_a_wall(seed):
    random = np.random.default_rng(seed)
    place = np.stack([[10.0, 50.0]] * 64)
    for _ in range(40):
        before = place
        place = move(place, random.uniform(-1.8, 1.8, (64, 2)), LAYOUT)
        assert ((place >= LOW) & (place <= HIGH)).all() and not in_wall(place).any()
        crossed = (before[:, 0] - LAYOUT.x) * (place[:, 0] - LAYOUT.x) < 0
        through = np.abs(place[:, 1] - LAYOUT.door) < LAYOUT.half + 4.0
        assert (through | ~crossed).all()


def test_free_motion_is_twice_the_action_and_walls_push_back():
    place = np.array([15.0, 20.0])
    np.testing.assert_allclose(move(place, [1.0, -0.5], LAYOUT), [17.0, 19.0])
    np.testing.assert_allclose(move(np.array([7.0, 20.0]), [-1.8, 0.0], LAYOUT), [5.5, 20.0])
    np.testing.assert_allclose(move(np.array([27.0, 20.0]), [1.8, 0.0], LAYOUT), [28.5, 20.0])
    np.testing.assert_allclose(move(np.array([27.0, 30.0]), [1.8, 0.0], LAYOUT), [30.6, 30.0])
    np.testing.assert_allclose(move(place, [0.0, 0.0], LAYOUT), place)


def test_many_dots_move_as_each_alone():
    random = np.random.default_rng(1)
    places = random.uniform(LOW + 1, HIGH - 1, (50, 2))
    places = places[np.abs(places[:, 0] - LAYOUT.x) > 4]
    actions = random.uniform(-1.8, 1.8, places.shape)
    together = move(places, actions, LAYOUT)
    alone = [move(p, a, LAYOUT) for p, a in zip(places, actions)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("task", TASKS)
def test_a_script_reaches_goals_of_the_task(task):
    crossings = 0
    with Wall(task, seed=2, size=16) as world:
        for _ in range(10):
            seen = world.reset()
            goal = world.goal()
            crossings += (seen.proprio[0] < 32) != (goal.proprio[0] < 32)
            while not seen.is_last and not seen.success:
                seen = world.act(toward(seen.proprio, goal.proprio, world.layout))
            assert seen.success and -seen.reward < SUCCESS
    assert crossings == {"wall-same": 0, "wall-door": 10}.get(task, crossings)


def test_the_dot_is_where_proprioception_says():
    with Wall(size=64) as world:
        seen = world.reset(3)
        red = seen.images["top"].astype(int)
        row, column = np.unravel_index((red[..., 0] - red[..., 1]).argmax(), (64, 64))
        np.testing.assert_allclose(
            [(column + 0.5) * 65 / 64, (row + 0.5) * 65 / 64], seen.proprio, atol=0.8
        )
        found = goal_of(world, "top")()
        assert isinstance(found, Goal) and found.image.shape == (64, 64, 3)
        assert found.proprio is None  # a picture tells no more than it shows
        told = goal_of(world, "top", joints=True)()
        assert told is not None and told.proprio is not None and len(told.proprio) == 2


def test_another_task_is_refused():
    with pytest.raises(
        RobotError, match=r"task: got 'wall-dor', expected one of wall-same.*'wall-door'"
    ):
        Wall("wall-dor")


@pytest.mark.parametrize("task", TASKS)
def test_episodes_of_a_seed_are_those_of_earlier_logs(task):
    with Wall(task, seed=3, size=16, time_limit=12) as robot:
        assert_reference(robot, REFERENCE[task])


class KnowsWall(WorldModel):
    """The true dynamics behind the contract of models: five decisions a step, as DINO-WM."""

    def __init__(self):
        super().__init__()
        low, high = ACTION.low * 5, ACTION.high * 5
        self.spec = ModelSpec(low, high, {"x": (2,)}, frameskip=5, has_goal=True)

    def step(self, state, action, *, generator=None):
        place = state["x"].numpy().astype(np.float64)
        for each in action.unflatten(-1, (5, 2)).numpy().swapaxes(0, 1):
            place = move(place, each, LAYOUT)
        return {"x": torch.from_numpy(place).float()}

    def readout(self, state, want, *, generator=None):
        return {"proprio": state["x"]} if "proprio" in want else {}


def test_a_planner_that_knows_the_world_reaches_its_goals():
    """Room and door: if this fails the planner is wrong, not the model."""
    model, cem = KnowsWall(), CEM(horizon=5, samples=200, elites=20, iterations=10, sigma0=1.0)
    noise = torch.Generator().manual_seed(0)
    reached = []
    for task in ("wall-same", "wall-door"):
        with Wall(task, seed=5, size=8) as world:
            for _ in range(8):
                seen, warm = world.reset(), None
                goal = {"proprio": torch.from_numpy(world.goal().proprio)[None]}
                while not seen.is_last and not seen.success:
                    state = {"x": torch.from_numpy(seen.proprio)[None]}
                    cost = GoalCost(keys={"proprio": 1.0}, reduce="all")
                    plan, warm, _ = cem.plan(model, state, cost, goal, warm, generator=noise)
                    warm = warm.shifted(1)
                    for action in plan[0, 0].reshape(5, 2).numpy():
                        seen = world.act(action)
                        if seen.is_last or seen.success:
                            break
                reached.append(seen.success)
    assert np.mean(reached[:8]) == 1.0 and np.mean(reached[8:]) >= 0.75, reached


def test_no_episode_begins_at_its_goal():
    """5 of 100 episodes of wall-same began within success of the goal: standing still 'solved'
    them. Such starts are drawn again."""
    with Wall("wall-same", size=8) as robot:
        for index in range(100):
            start = robot.reset(episode_seed(0, index, "evaluation")).proprio
            assert np.linalg.norm(start - robot.goal().proprio) >= SUCCESS


def test_standing_still_solves_no_episode_of_wall():
    with Wall("wall-same", size=8, time_limit=3) as world:
        assert evaluate(world, Hold(world), 100, seed=0).success_rate == 0.0
