"""dm_control: the contracts of a simulator, and its own laws."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from wm_nodes.robots.robot import Observation, RenderError, Robot, RobotError
from wm_nodes.robots.testing import (
    CalibratedCamerasContract,
    HeldOutScenesContract,
    SimulatorContract,
)

if find_spec("dm_control") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)
from wm_nodes.robots.registry import ROBOTS
from wm_nodes.robots.sims import rendering
from wm_nodes.robots.sims.dm_control import DmControl
from wm_nodes.robots.sims.dm_control_tasks import DOMAINS, MANIPULATION, SUITE_NAMES, TASKS

MUDREAMER = (
    "acrobot_swingup cartpole_balance cartpole_balance_sparse cartpole_swingup "
    "cartpole_swingup_sparse cheetah_run cup_catch finger_spin finger_turn_easy finger_turn_hard "
    "hopper_hop hopper_stand pendulum_swingup quadruped_run quadruped_walk reacher_easy "
    "reacher_hard walker_run walker_stand walker_walk"
).split()
ONE_OF_EACH = [name for name in MUDREAMER if name.partition("_")[0] != "quadruped"][::2]


class TestCartpole(SimulatorContract, CalibratedCamerasContract):
    def make_robot(self) -> Robot:
        return DmControl(time_limit=5)


class TestReacherWithBackground(SimulatorContract, HeldOutScenesContract):
    def make_robot(self) -> Robot:
        return DmControl("reacher_easy", time_limit=6, size=32, background="procedural:distracting")


class TestWalkerWithoutImages(SimulatorContract):
    def make_robot(self) -> Robot:
        return DmControl("walker_stand", time_limit=6, render="none", action_repeat=1)


def play(robot: Robot, seed: int, steps: int = 4, reset: int | None = None) -> list[Observation]:
    random, size = np.random.default_rng(seed), len(robot.spec.action)
    seen = [robot.reset(reset)]
    seen += [robot.act(random.uniform(-1, 1, size)) for _ in range(steps)]
    return seen


def assert_same(left: list[Observation], right: list[Observation]) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.proprio, other.proprio)
        for camera, image in one.images.items():
            np.testing.assert_array_equal(image, other.images[camera])
        assert one.reward == other.reward


def test_the_tasks_are_those_of_the_suite_but_lqr_and_of_manipulation():
    rendering.load_triton()  # before dm_control opens EGL: see there
    from dm_control import manipulation, suite

    names = {SUITE_NAMES.get(domain, domain) for domain in DOMAINS if domain != MANIPULATION}
    assert names == {domain for domain, _ in suite.ALL_TASKS} - {"lqr"}
    for domain, task in suite.ALL_TASKS:
        if domain != "lqr":
            own = {name: short for short, name in SUITE_NAMES.items()}.get(domain, domain)
            assert TASKS[f"{own}_{task}"] == (own, task)
    vision = {f"{MANIPULATION}_{task}_vision" for task in DOMAINS[MANIPULATION].split()}
    assert vision == {
        f"{MANIPULATION}_{each}" for each in manipulation.get_environments_by_tag("vision")
    }
    assert set(MUDREAMER) <= set(TASKS)
    assert ROBOTS["dmc"].tasks[0] == "cartpole_balance"


@pytest.mark.parametrize("task", ONE_OF_EACH)
def test_same_seed_same_episodes_bit_for_bit_whatever_was_played_before(task):
    with (
        DmControl(task, seed=3, render="none") as wild,
        DmControl(task, seed=3, render="none") as calm,
    ):
        play(wild, 0, steps=30)
        calm.reset()
        assert_same(play(wild, 1, steps=20), play(calm, 1, steps=20))
        np.testing.assert_array_equal(wild.privileged_state, calm.privileged_state)
        assert_same(play(wild, 1, reset=7), play(calm, 1, reset=7))


def test_reward_is_summed_over_the_repeat():
    with (
        DmControl(action_repeat=2, render="none") as double,
        DmControl(action_repeat=1, render="none") as single,
    ):
        double.reset(5)
        single.reset(5)
        for _ in range(5):
            parts = [single.act([0.3]) for _ in range(2)]
            whole = double.act([0.3])
            assert all(0 <= part.reward <= 1 for part in parts)
            assert whole.reward == pytest.approx(sum(part.reward for part in parts))
            np.testing.assert_array_equal(whole.proprio, parts[1].proprio)


@pytest.mark.parametrize(("repeat", "limit", "steps"), [(2, 1000, 500), (3, 1000, 334), (4, 7, 7)])
def test_an_episode_ends_with_the_suite_s_or_earlier_and_never_terminates(repeat, limit, steps):
    with DmControl(action_repeat=repeat, time_limit=limit, render="none") as robot:
        robot.reset()
        ends = [robot.act([0.0])]
        while not ends[-1].is_last:
            ends.append(robot.act([0.0]))
        assert len(ends) == steps == robot.spec.extra["time_limit"]
        assert not any(end.is_terminal or end.success for end in ends)
        assert robot.spec.control_period_s == pytest.approx(0.01 * repeat)
        if steps == 334:  # the last agent step has one simulator step of three
            assert ends[-1].reward < 0.5 * ends[0].reward


def test_a_discount_of_zero_is_terminal():
    with DmControl(render="none") as robot:
        robot.reset()
        robot._env.task.get_termination = lambda physics: 0.0
        end = robot.act([0.0])
    assert end.is_last and end.is_terminal


def test_no_task_reports_success():
    with DmControl(render="none") as robot:
        assert not robot.spec.success
        assert not robot.spec.log_spec().success


def test_proprioception_is_the_task_s_observation():
    with DmControl("walker_stand", render="none") as robot:
        robot.reset(1)
        seen = robot.act(np.full(6, 0.4))
        task, physics = robot._env.task, robot._env.physics
        entries = task.get_observation(physics)
        expected = np.concatenate([np.ravel(value) for value in entries.values()])
        np.testing.assert_array_equal(seen.proprio, expected.astype(np.float32))
        names = robot.spec.proprio.names
        assert (names[0], names[14], names[15]) == ("orientations_0", "height", "velocity_0")
        assert robot.spec.action.names[:2] == ("right_hip", "right_knee")


COMPARE = """
import numpy as np
from wm_nodes.robots.sims.dm_control import DmControl

images = {}
for domain, task in (("cartpole", "balance"), ("reacher", "easy")):
    with DmControl(f"{domain}_{task}", render="full", action_repeat=1) as robot:
        robot.reset(3)
        action = np.full(len(robot.spec.action), 0.5, np.float32)
        images[domain, task] = robot.act(action).images["main"], action

from dm_control import suite

for (domain, task), (image, action) in images.items():
    env = suite.load(domain, task)
    env.task.random.seed(3)
    env.reset()
    env.step(action)
    np.testing.assert_array_equal(image, env.physics.render(64, 64, camera_id=0))
print("equal")
"""


def test_full_images_are_those_of_dm_control():
    """In a process of its own: dm_control's GL contexts and those of mujoco do not mix."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "equal\n", done.stderr


def test_fast_is_a_slightly_different_picture_of_the_same_scene():
    images = []
    for preset in ("fast", "full"):
        with DmControl(render=preset) as robot:
            assert robot.spec.extra["render"] == preset
            images.append(robot.reset(0).images["main"].astype(int))
    assert 0 < np.abs(images[0] - images[1]).mean() < 20


def test_main_is_camera_0_and_of_quadrupeds_camera_2():
    with DmControl(camera="main,camera0,camera1", size=32, render="fast") as robot:
        images = robot.reset(0).images
        np.testing.assert_array_equal(images["main"], images["camera0"])
        assert (images["main"] != images["camera1"]).any()
    if hasattr(np, "in1d"):
        with DmControl("quadruped_walk", camera="main,camera2", size=32, render="fast") as robot:
            images = robot.reset(0).images
            np.testing.assert_array_equal(images["main"], images["camera2"])


def test_a_background_is_behind_the_robot_and_nowhere_else():
    settings = {"size": 64, "render": "fast"}
    with (
        DmControl(**settings) as plain,
        DmControl(background="procedural:distracting", **settings) as hidden,
    ):
        one, other = (play(robot, 1, reset=3) for robot in (plain, hidden))
        for clean, distracted in zip(one, other, strict=True):
            red, green, blue = np.moveaxis(clean.images["main"], -1, 0)
            background = (blue > red) & (blue > green)
            assert 0.3 < background.mean() < 1
            changed = (clean.images["main"] != distracted.images["main"]).any(axis=-1)
            assert changed[background].mean() > 0.9
            assert not changed[~background].any()
            np.testing.assert_array_equal(clean.proprio, distracted.proprio)
        assert (other[0].images["main"] != other[1].images["main"]).mean() > 0.3


def test_new_ground_is_drawn():
    if not hasattr(np, "in1d"):
        pytest.skip("dm_control's quadruped needs numpy below 2.4")
    with DmControl("quadruped_escape", size=32, render="fast") as robot:
        robot.reset(1)
        image = robot.reset(2).images["main"]
        with DmControl("quadruped_escape", size=32, render="fast") as fresh:
            np.testing.assert_array_equal(fresh.reset(2).images["main"], image)


@pytest.mark.slow
def test_manipulation_is_reset_and_rendered_like_the_suite():
    with DmControl("manip_reach_duplo", size=32, render="fast") as robot:
        first = robot.reset(1)
        assert robot.spec.extra["time_limit"] == 125
        assert first.images["main"].std() > 5
        second = robot.reset(2)
        assert (first.images["main"] != second.images["main"]).any()
        again = robot.reset(1)
        np.testing.assert_array_equal(first.proprio, again.proprio)
        np.testing.assert_array_equal(first.images["main"], again.images["main"])
        assert 0 <= robot.act(robot.holding()).reward <= 2


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"task": "cartpole_balence"}, RobotError, "'cartpole_balence'.*Closest: cartpole_balance"),
        ({"task": "ball_in_cup_catch"}, RobotError, "Closest: cup_catch"),
        ({"task": "reach_duplo"}, RobotError, "Closest: manip_reach_duplo"),
        ({"camera": "front"}, RenderError, "'front', expected one of main, camera0, camera1"),
        ({"camera": "camera2"}, RenderError, "'camera2', expected one of main, camera0, camera1"),
        ({"render": "pretty"}, RenderError, "got 'pretty'"),
        ({"time_limit": 0}, RobotError, "time_limit: got 0"),
        ({"action_repeat": 0}, RobotError, "action_repeat: got 0"),
        ({"background": "procedural:"}, RobotError, "background: got 'procedural:'"),
    ],
)
def test_a_wrong_setting_is_refused(settings, error, words):
    with pytest.raises(error, match=words):
        DmControl(**settings)


def test_a_numpy_that_the_quadruped_cannot_use_is_named(monkeypatch):
    monkeypatch.delattr(np, "in1d", raising=False)
    with pytest.raises(RobotError, match=r"quadruped got numpy .*expected one below 2\.4.*pip"):
        DmControl("quadruped_walk")
