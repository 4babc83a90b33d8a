"""Meta-World: the contracts of a simulator, and its own laws."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from tests.wm_nodes.robots.sims.reference import assert_reference
from wm_nodes.robots.robot import Observation, Robot, RobotError, SpecError
from wm_nodes.robots.testing import CalibratedCamerasContract, SimulatorContract

if find_spec("metaworld") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)
from wm_nodes.robots.sims import metaworld as adapter
from wm_nodes.robots.sims.metaworld import ACTION, MetaWorld, TaskError
from wm_nodes.robots.sims.rendering import RenderError

REFERENCE = {
    "drawer-close-v3": [
        (3.453, 225.0, -0.022, 0.606, 0.184, 0.1),
        (1.893, 450.0, -0.008, 0.678, 0.22, 0.094),
        (1.851, 675.0, 0.095, 0.575, 0.22, 0.1),
    ],
    "reach-v3": [
        (27.312, 225.0, -0.022, 0.605, 0.184, 0.1),
        (38.182, 450.0, -0.008, 0.678, 0.22, 0.094),
        (21.285, 675.0, 0.096, 0.574, 0.219, 0.1),
    ],
}


class TestReach(SimulatorContract, CalibratedCamerasContract):
    def make_robot(self) -> Robot:
        return MetaWorld("reach-v3", time_limit=5)


class TestWindowCloseFromAnotherCamera(SimulatorContract, CalibratedCamerasContract):
    def make_robot(self) -> Robot:
        return MetaWorld("window-close-v3", time_limit=6, camera="corner2", size=32, render="full")


class TestDrawerCloseWithoutImages(SimulatorContract):
    def make_robot(self) -> Robot:
        return MetaWorld("drawer-close-v3", time_limit=6, render="none", action_repeat=1)


def play(robot: Robot, seed: int, steps: int = 4, reset: int | None = None) -> list[Observation]:
    random = np.random.default_rng(seed)
    observations = [robot.reset(reset)]
    observations += [robot.act(random.uniform(-1, 1, 4)) for _ in range(steps)]
    return observations


def assert_same(observations: list[Observation], others: list[Observation]) -> None:
    assert len(observations) == len(others)
    for observation, other in zip(observations, others):
        np.testing.assert_array_equal(observation.proprio, other.proprio)
        for camera, image in observation.images.items():
            np.testing.assert_array_equal(image, other.images[camera])
        assert (observation.reward, observation.success) == (other.reward, other.success)


@pytest.mark.parametrize("task", ["reach-v3", "window-close-v3", "pick-place-wall-v3"])
def test_same_seed_same_episodes_bit_for_bit(task):
    with MetaWorld(task, seed=3) as first, MetaWorld(task, seed=3) as second:
        for episode in range(2):
            assert_same(play(first, episode), play(second, episode))
            np.testing.assert_array_equal(first.privileged_state, second.privileged_state)


def test_an_episode_does_not_depend_on_those_before_it():
    with (
        MetaWorld("drawer-close-v3", render="none") as used,
        MetaWorld("drawer-close-v3", render="none") as fresh,
    ):
        play(used, 0, steps=40)
        fresh.reset()
        assert_same(play(used, 1), play(fresh, 1))


def test_an_explicit_seed_gives_its_episode_and_does_not_advance_the_stream():
    with (
        MetaWorld("reach-v3", seed=1, render="none") as robot_1,
        MetaWorld("reach-v3", seed=2, render="none") as robot_2,
    ):
        first_proprio = robot_1.reset().proprio
        goals = []
        for robot in (robot_1, robot_2):
            robot.reset(seed=77)
            goals.append(robot.privileged_state[-3:])
        np.testing.assert_array_equal(*goals)
        robot_1.reset()
        second_state = robot_1.privileged_state
        with MetaWorld("reach-v3", seed=1, render="none") as fresh:
            np.testing.assert_array_equal(fresh.reset().proprio, first_proprio)
            fresh.reset()
            np.testing.assert_array_equal(fresh.privileged_state, second_state)


def test_goals_are_random_and_absent_from_proprio():
    with MetaWorld("reach-v3", render="none") as robot:
        goals, proprios = [], []
        for _ in range(4):
            proprios.append(robot.reset().proprio)
            goals.append(robot.privileged_state[-3:])
        assert len(np.unique(np.round(goals, 4), axis=0)) == 4
        assert np.ptp(proprios, axis=0).max() < 1e-3


def test_reward_is_summed_over_the_repeat():
    action = np.float32([0.3, 0.5, -0.2, 1])
    with (
        MetaWorld("reach-v3", action_repeat=2, render="none") as double,
        MetaWorld("reach-v3", action_repeat=1, render="none") as single,
    ):
        double.reset(5)
        single.reset(5)
        for _ in range(5):
            singles = [single.act(action) for _ in range(2)]
            summed = double.act(action)
            assert summed.reward == pytest.approx(
                sum(observation.reward for observation in singles)
            )
            np.testing.assert_array_equal(summed.proprio, singles[1].proprio)


@pytest.mark.parametrize("limit", [1, 7, 260])
def test_an_episode_lasts_the_time_limit_and_never_terminates(limit):
    with MetaWorld("reach-v3", time_limit=limit, render="none") as robot:
        robot.reset()
        ends = [robot.act(np.zeros(4)) for _ in range(limit)]
    assert [end.is_last for end in ends] == [False] * (limit - 1) + [True]
    assert not any(end.is_terminal for end in ends)


def row_of_cyan_finger(image):
    red, green, blue = (image[..., channel].astype(int) for channel in range(3))
    rows, columns = np.nonzero((blue > red + 60) & (green > red + 60))
    assert len(rows) > 3
    return rows.mean(), columns.mean()


def test_up_is_up_in_the_image():
    with MetaWorld("reach-v3", size=128) as robot:
        robot.reset(0)
        up, down = robot, MetaWorld("reach-v3", size=128)
        down.reset(0)
        for _ in range(6):
            high, low = up.act([0, 0, 1, 0]), down.act([0, 0, -1, 0])
        down.close()
        assert high.proprio[2] > low.proprio[2] + 0.1
        high_row, _ = row_of_cyan_finger(high.images["corner4"])
        low_row, _ = row_of_cyan_finger(low.images["corner4"])
        assert high_row < low_row - 10


def test_pixels_are_mujoco_s_with_rows_reversed():
    with MetaWorld("window-close-v3", render="full") as robot:
        import mujoco

        robot.reset(0)
        image = robot.act([1, 0, 0, 0]).images["corner4"]
        reference = mujoco.Renderer(robot._env.model, 64, 64)
        reference.update_scene(robot._env.data, camera="corner4")
        np.testing.assert_array_equal(image, reference.render()[::-1])
        reference.close()


def test_the_first_image_shows_the_goal_of_its_episode():
    with MetaWorld("reach-v3", size=128) as robot:
        import mujoco

        images = []
        for seed in (1, 2):
            first = robot.reset(seed).images["corner4"]
            mujoco.mj_forward(robot._env.model, robot._env.data)  # moves the drawn goal, if stale
            np.testing.assert_array_equal(first, robot._cameras.images(robot._env.data)["corner4"])
            images.append(first.astype(int))
        assert (np.abs(images[0] - images[1]).max(axis=-1) > 40).any()


def test_fast_renders_a_slightly_different_image_of_the_same_scene():
    images = []
    for preset in ("fast", "full"):
        with MetaWorld("drawer-close-v3", render=preset) as robot:
            assert robot.spec.extra["render"] == preset
            images.append(robot.reset(0).images["corner4"].astype(int))
    assert 0 < np.abs(images[0] - images[1]).mean() < 20


def test_auto_is_fast_in_software_and_full_on_a_gpu(monkeypatch):
    from wm_nodes.robots.sims import rendering

    for name, preset in (("llvmpipe (LLVM 15)", "fast"), ("NVIDIA H100/PCIe", "full")):
        monkeypatch.setattr(rendering, "gl_renderer", lambda name=name: name)
        assert rendering.resolve("auto") == (preset, name)
        assert rendering.resolve("full") == ("full", name)


def test_there_are_fifty_tasks_and_each_has_an_expert():
    from metaworld.policies import ENV_POLICY_MAP

    names = adapter.tasks()
    assert len(names) == 50
    assert set(names) <= set(ENV_POLICY_MAP)


@pytest.mark.parametrize(
    ("task", "closest"),
    [
        ("windowclose", "window-close-v3"),
        ("reach-v2", "reach-v3"),
        ("drawer-clsoe-v3", "drawer-close-v3"),
    ],
)
def test_an_unknown_task_names_the_closest(task, closest):
    with pytest.raises(TaskError, match=rf"{task}.*one of Meta-World's 50 tasks.*{closest}"):
        MetaWorld(task)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"camera": "front"}, RenderError, "got 'front', expected .*corner4"),
        ({"render": "pretty"}, RenderError, "got 'pretty', expected .*auto, fast, full, none"),
        ({"size": 4}, RenderError, "got 4, expected 8 to 2048"),
        ({"time_limit": 0}, RobotError, "time_limit: got 0, expected .*from 1"),
        ({"action_repeat": 1.5}, RobotError, "action_repeat.*1.5"),
    ],
)
def test_a_wrong_setting_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        MetaWorld("reach-v3", **settings)


@pytest.mark.parametrize(
    "broken",
    [
        {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent"},
        {"MUJOCO_GL": "glfw", "DISPLAY": ":99"},
        {"MUJOCO_GL": "vulkan"},
    ],
)
def test_without_gl_the_error_names_what_to_install(broken):
    code = (
        "from wm_nodes.robots.robot import RobotError\n"
        "from wm_nodes.robots.sims.metaworld import MetaWorld\n"
        "try:\n    MetaWorld('reach-v3')\n"
        "except RobotError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **broken}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240
    )
    assert broken["MUJOCO_GL"] in result.stdout
    assert "MUJOCO_GL=egl" in result.stdout
    assert len(result.stdout.strip().splitlines()) <= 2
    assert "Traceback" not in result.stderr


def test_without_images_no_gl_is_needed():
    with MetaWorld("reach-v3", render="none") as robot:
        assert robot.spec.cameras == {}
        assert robot.reset().images == {}


def test_limits_narrow_the_executed_actions():
    from wm_datasets.spec import VectorSpec

    narrow = VectorSpec(ACTION.names, ACTION.units, (-0.5,) * 4, (0.5,) * 4)
    with MetaWorld("reach-v3", render="none", limits=narrow) as robot:
        robot.reset()
        np.testing.assert_array_equal(
            robot.act([1, -1, 0.2, 0]).executed, np.float32([0.5, -0.5, 0.2, 0])
        )
        assert robot.spec.action == narrow
    wide = VectorSpec(ACTION.names, ACTION.units, (-2.0,) * 4, (2.0,) * 4)
    with pytest.raises(SpecError, match="within"):
        MetaWorld("reach-v3", render="none", limits=wide)


def test_several_cameras_show_the_same_instant():
    with MetaWorld("reach-v3", size=32, camera="corner4,corner2", time_limit=3) as robot:
        first = robot.reset(1)
        assert set(first.images) == set(robot.intrinsics()) == {"corner4", "corner2"}
        assert (first.images["corner4"] != first.images["corner2"]).any()
        with MetaWorld("reach-v3", size=32, camera="corner2", time_limit=3) as single:
            np.testing.assert_array_equal(
                single.reset(1).images["corner2"], first.images["corner2"]
            )


@pytest.mark.parametrize("task", ["reach-v3", "drawer-close-v3"])
def test_episodes_of_a_seed_are_those_of_earlier_logs(task):
    with MetaWorld(task, seed=3, time_limit=8, render="none") as robot:
        assert_reference(robot, REFERENCE[task])
