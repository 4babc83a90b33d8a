"""Tasks of the simulated arm: positions of objects, distance to success, actions of the scripts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wm_nodes.robots.arm.sim.tasks import (
    AWAY,
    CLOSED,
    CUBE_M,
    LIFT_M,
    PUSH_M,
    REACH_M,
    STEEP,
    TASKS,
    State,
    distance_of,
)

FAR = np.array([0.3, 0.2, 0.2])
CUBE = np.array([0.4, 0.0, CUBE_M])
GOAL = np.array([0.5, 0.0, CUBE_M])


def state(end_effector=FAR, cube=CUBE, goal=GOAL, opening=1.0) -> State:
    return State(*(np.array(position, float) for position in (end_effector, cube, goal)), opening)


def scenes(name: str, count: int = 300) -> list:
    return [TASKS[name].scene(np.random.default_rng(seed)) for seed in range(count)]


def ranges(values) -> list:
    return [np.min(values, axis=0).round(2).tolist(), np.max(values, axis=0).round(2).tolist()]


def test_positions_fill_their_ranges():
    for name in ("reach", "goal"):
        goals = [scene.goal for scene in scenes(name)]
        assert ranges(goals) == [[0.29, -0.24, 0.06], [0.51, 0.24, 0.31]]
    for name, reach in (("push", 0.12), ("lift", 0.18)):
        cubes = [scene.cube for scene in scenes(name)]
        assert ranges([cube[:2] for cube in cubes]) == [[0.33, -reach], [0.47, reach]]
        assert {cube[2] for cube in cubes} == {CUBE_M}
    assert ranges([scene.goal[:2] for scene in scenes("push")]) == [[0.33, -0.18], [0.47, 0.18]]


def test_each_scene_shows_the_objects_of_its_task():
    for scene in scenes("reach", 5):
        assert scene.marker == scene.goal and scene.disc == (*scene.goal[:2], 0.001)
        assert scene.cube == AWAY
    for scene in scenes("goal", 5):
        assert scene.marker == scene.disc == scene.cube == AWAY
    for scene in scenes("push", 5):
        assert scene.disc == (*scene.goal[:2], 0.001) and scene.goal[2] == CUBE_M
        assert scene.marker == AWAY
    for scene in scenes("lift", 5):
        assert scene.goal == (*scene.cube[:2], CUBE_M + 0.15)
        assert scene.marker == scene.disc == AWAY


def test_a_cube_is_pushed_10_to_20_cm():
    distances = [np.linalg.norm(np.subtract(s.goal, s.cube)) for s in scenes("push")]
    assert ranges(distances) == [0.1, 0.2] and min(distances) > 0.1 and max(distances) < 0.2


def test_distances_and_success_distances():
    near = state([0.5, 0.03, CUBE_M + 0.04])
    assert TASKS["reach"].distance(near) == TASKS["goal"].distance(near) == pytest.approx(0.05)
    aside = state(cube=[0.47, 0.04, 0.9])
    assert TASKS["push"].distance(aside) == pytest.approx(0.05)
    for height, distance in ((0.1, 0.05), (0.15, 0.0), (0.2, 0.0)):
        lifted = state(cube=[9.0, 9.0, height], goal=[0.0, 0.0, 0.15])
        assert TASKS["lift"].distance(lifted) == pytest.approx(distance)
    enough = {name: task.enough for name, task in TASKS.items()}
    assert enough == {
        "reach": REACH_M, "goal": REACH_M, "push": PUSH_M, "lift": pytest.approx(0.15 - LIFT_M),
    }  # fmt: skip


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_reward_grows_from_0_to_1_and_determines_the_distance(task):
    distances = np.array([0.0, 0.02, 0.1, 0.4])
    rewards = [replace(task, distance=lambda _, d=d: d).reward(state()) for d in distances]
    assert rewards[0] == 1.0 and 0.0 < rewards[-1] < 0.05
    assert rewards == pytest.approx(1.0 - np.tanh(STEEP * distances))
    assert distance_of(rewards) == pytest.approx(distances, abs=1e-9)
    assert np.isfinite(distance_of([0.0, -1.0, 2.0])).all()
    assert distance_of([2.0])[0] == 0.0 and distance_of([-1.0])[0] == distance_of([1e-6])[0] > 1.0


@pytest.mark.parametrize("name", ["reach", "goal"])
def test_reaching_goes_straight_to_the_goal(name):
    expected = [*(3.0 * (GOAL - FAR)), 0.0]
    assert TASKS[name].script(state()) == pytest.approx(expected)


# With the cube at 0.4 and the goal at 0.5, "behind" is at 0.345 on the x axis.
PUSH = [
    ("beside and low: up first", [0.3, 0.1, 0.03], [0.0, 0.0, 3 * 0.09, -1]),
    ("below the level of travel", [0.3, 0.1, 0.0849], [0.0, 0.0, 3 * 0.0351, -1]),
    ("at that level: over it", [0.3, 0.1, 0.0851], [3 * 0.045, -0.3, 3 * 0.0349, -1]),
    ("nearly over it", [0.3295, 0.0, 0.12], [3 * 0.0155, 0.0, 0.0, -1]),
    ("over it: down", [0.3305, 0.0, 0.12], [3 * 0.0145, 0.0, 3 * -0.09, -1]),
    ("down to the level of pushing", [0.345, 0.014, 0.0501], [0, -0.042, 3 * -0.0201, -1]),
    ("low: through it", [0.345, 0.0, 0.03], [1.6 * 0.05, 0.0, 3 * 0.005, -1]),
    ("through it, from one side", [0.345, 0.01, 0.04], [0.08, -1.6 * 0.006, 3 * -0.005, -1]),
    ("through it, far on", [0.9, -0.0199, 0.0499], [0.08, 1.6 * 0.6 * 0.0199, 3 * -0.0149, -1]),
    ("too far to one side: up", [0.345, 0.0201, 0.04], [0.0, 0.0, 3 * 0.08, -1]),
    ("in front of it, in line", [0.2951, 0.0, 0.0499], [0.08, 0.0, 3 * -0.0149, -1]),
    ("too far in front: up", [0.2949, 0.0, 0.04], [0.0, 0.0, 3 * 0.08, -1]),
]


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, -2.0])
@pytest.mark.parametrize(("position", "expected"), [p[1:] for p in PUSH], ids=[p[0] for p in PUSH])
def test_a_push_goes_behind_the_cube_and_through_it_in_every_direction(position, expected, angle):
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    rotated = state(rotation @ position, rotation @ CUBE, rotation @ GOAL)
    action = TASKS["push"].script(rotated)
    assert action[:3] == pytest.approx(rotation @ expected[:3], abs=1e-9)
    assert action[3] == expected[3]


@pytest.mark.parametrize(("side", "pushes"), [(0.0199, True), (0.02, False), (-0.02, False)])
def test_a_push_begins_closer_than_2_cm_to_the_line_through_cube_and_disc(side, pushes):
    action = TASKS["push"].script(state([0.345, side, 0.04]))
    assert (action[0] > 0.0) == pushes and (action[2] > 0.1) != pushes


@pytest.mark.parametrize(("offset", "at_goal"), [(0.0, True), (0.0119, True), (0.0121, False)])
def test_a_push_ends_when_the_cube_lies_on_the_disc(offset, at_goal):
    action = TASKS["push"].script(state(cube=GOAL - [offset, 0, 0]))
    assert (action.tolist() == [0.0] * 4) == at_goal


LIFTED = 0.19  # height of the end effector in the end, for a goal at 0.15
LIFT = [
    ("beside and deep: up", [0.3, 0.1, 0.09], 1.0, [0.0, 0.0, 3 * 0.035, 1]),
    ("beside, just too deep", [0.4, 0.0121, 0.0949], 1.0, [0, 0, 3 * 0.0301, 1]),
    ("beside, high enough: over it", [0.4, 0.0121, 0.0951], 1.0, [0, -0.0363, 3 * 0.0299, 1]),
    ("over it with closed fingers: open", [0.4, 0.0, 0.1], 0.89, [0, 0, 3 * 0.025, 1]),
    ("over it, open: down", [0.4, 0.0119, 0.1], 0.91, [0, -3 * 0.0119, 3 * -0.075, 1]),
    ("nearly down", [0.4, 0.0, 0.0331], 0.91, [0, 0, 3 * -0.0081, 1]),
    ("nearly down, half open", [0.4, 0.0, 0.0449], 0.7, [0, 0, 3 * -0.0199, 1]),
    ("not so nearly", [0.4, 0.0, 0.0451], 0.7, [0, 0, 3 * 0.0799, 1]),
    ("down: close", [0.4, 0.0, 0.0329], 0.91, [0, 0, 0, -1]),
    ("nearly closed", [0.4, 0.0, 0.0329], CLOSED + 0.001, [0, 0, 0, -1]),
    ("closed: up", [0.4, 0.0, 0.0329], CLOSED, [0, 0, 3 * (LIFTED - 0.0329), -1]),
]


@pytest.mark.parametrize(
    ("position", "opening", "expected"), [p[1:] for p in LIFT], ids=[p[0] for p in LIFT]
)
def test_a_lift_goes_over_the_cube_down_closes_and_goes_up(position, opening, expected):
    action = TASKS["lift"].script(state(position, goal=[0.4, 0.0, 0.15], opening=opening))
    assert action == pytest.approx(expected, abs=1e-9)
