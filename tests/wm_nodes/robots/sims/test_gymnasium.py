"""Gymnasium tasks: spaces become cameras, proprioception and actions; ends are kept apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.wm_nodes import gym_tasks
from wm_datasets import LogReader
from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.episodes.collect import HeldRandom, NoisyExpert, collect
from wm_nodes.evaluation.baselines import Constant, Hold, Random, Replay, best_constant
from wm_nodes.evaluation.rollout import rollout
from wm_nodes.robots.opening import open_robot, task_facts
from wm_nodes.robots.robot import RenderError, RobotError, TaskFacts
from wm_nodes.robots.sims.gymnasium import NO_PROPRIO, GymTask, TaskError
from wm_nodes.robots.testing import SimulatorContract


class TestContinuous(SimulatorContract):
    def make_robot(self):
        return GymTask(gym_tasks.LINE, size=16)


class TestDiscrete(SimulatorContract):
    def make_robot(self):
        return GymTask(gym_tasks.CHOICES, size=16)


class TestDict(SimulatorContract):
    def make_robot(self):
        return GymTask(gym_tasks.MIXED, size=16)


class TestPendulumWithoutImages(SimulatorContract):
    def make_robot(self):
        return GymTask("Pendulum-v1", render="none", time_limit=20)


class TestCartPoleWithoutImages(SimulatorContract):
    def make_robot(self):
        return GymTask("CartPole-v1", render="none")


def test_a_box_of_numbers_is_proprioception_and_the_task_draws_the_image():
    with GymTask(gym_tasks.LINE, size=16) as robot:
        seen = robot.reset(1)
        assert robot.spec.task == gym_tasks.LINE
        assert robot.spec.proprio.names == ("observation_0", "observation_1")
        assert set(robot.spec.proprio.low) == {-np.inf}
        assert robot.spec.control_period_s == pytest.approx(0.1)
        assert seen.images["image"].shape == (16, 16, 3)
        assert seen.images["image"].mean() == pytest.approx(100 + 40 * seen.proprio[0], abs=1)


def test_an_image_observation_is_the_camera_and_leaves_no_proprioception():
    with GymTask(gym_tasks.PICTURE, size=24) as robot:
        seen = robot.reset(1)
        assert robot.spec.cameras == {"image": (24, 24, 3)}
        assert robot.spec.proprio == NO_PROPRIO
        assert seen.proprio.tolist() == [0.0]


def test_a_dict_is_flattened_to_images_and_numbers():
    with GymTask(gym_tasks.MIXED, size=16) as robot:
        seen = robot.reset(1)
        assert set(seen.images) == {"image"}
        names = ("arm_angle_0", "arm_angle_1", "arm_wrist", "room_0", "room_1", "room_2", "room_3")
        assert sorted(robot.spec.proprio.names) == sorted(names)
        values = dict(zip(robot.spec.proprio.names, seen.proprio))
        assert [values[f"room_{index}"] for index in range(4)] == [0, 0, 1, 0]
        assert values["arm_angle_0"] == values["arm_angle_1"] != 0


def test_several_images_are_chosen_by_their_keys_and_grey_ones_become_rgb():
    with GymTask(gym_tasks.STEREO, camera="right,left", size=16) as robot:
        seen = robot.reset(1)
        assert set(seen.images) == {"left", "right"}
        np.testing.assert_array_equal(seen.images["left"], seen.images["right"])
    with pytest.raises(RenderError, match=r"camera: got 'top', expected one of left, right"):
        GymTask(gym_tasks.STEREO, camera="left,right,top")
    with pytest.raises(RenderError, match=r"camera: got 'image', expected one of left, right"):
        GymTask(gym_tasks.STEREO)


@pytest.mark.parametrize(("task", "render"), [(gym_tasks.BLIND, "auto"), (gym_tasks.LINE, "none")])
def test_a_task_may_be_without_images(task, render):
    with GymTask(task, render=render) as robot:
        assert robot.spec.cameras == robot.reset().images == {}


def test_the_bounds_are_the_tasks():
    with GymTask(gym_tasks.LINE, render="none") as robot:
        assert (robot.spec.action.low, robot.spec.action.high) == ((-1, 0), (1, 2))
        assert not robot.spec.action.discrete


def test_the_largest_number_chooses_a_discrete_action_which_is_logged_one_hot():
    with GymTask(gym_tasks.CHOICES, render="none") as robot:
        assert robot.spec.action == VectorSpec.one_hot(("action_0", "action_1", "action_2"))
        for requested, index in (([0.2, 0.1, 0.3], 2), ([-5, -1, -2], 1), ([0, 0, 0], 0)):
            before = robot.reset(3).proprio[0]
            seen = robot.act(requested)
            assert seen.executed.tolist() == np.eye(3)[index].tolist()
            np.testing.assert_array_equal(seen.commanded, np.float32(requested))
            assert seen.proprio[0] == pytest.approx(before + index - 1, abs=0.1)  # it starts at -1


def test_terminated_is_terminal_and_truncated_is_not():
    with GymTask(gym_tasks.CHOICES, render="none") as robot:
        robot.reset(1)
        while not (seen := robot.act([0, 0, 1])).is_last:
            pass
        assert seen.is_terminal
        robot.reset(1)
        ends = [robot.act([0, 1, 0]) for _ in range(12)]  # the task's own limit
        assert [end.is_last for end in ends] == [False] * 11 + [True]
        assert not ends[-1].is_terminal


def test_success_is_what_the_info_says():
    with GymTask(gym_tasks.CHOICES, render="none") as robot:
        robot.reset(1)
        steps = [robot.act([0, 0, 1]) for _ in range(4)]
        assert [step.success for step in steps] == [abs(step.proprio[0]) < 1.2 for step in steps]
        assert steps[0].success and not steps[-1].success


def test_an_image_of_the_task_is_never_written_to_by_its_next_step():
    with GymTask(gym_tasks.PICTURE, size=20) as robot:
        kept = robot.reset(1).images["image"]
        before = kept.copy()
        robot.act([0, 0, 1])
        np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("CartPol-v1", "task: got 'CartPol-v1', expected .*Closest: CartPole-v"),
        ("CartPole-v9", "task: got 'CartPole-v9', expected .*Closest: CartPole-v"),
        ("no task", "task: got 'no task', expected .*Closest: "),
        ("nowhere:Line-v0", "module 'nowhere' cannot be imported.*PYTHONPATH"),
        (f"{gym_tasks.MODULE}:Lime-v0", "Closest: Line-v0"),
        (gym_tasks.MANY, r"got actions MultiDiscrete\(.*expected Discrete or a Box"),
        (gym_tasks.ENDLESS, "got actions Box.*expected finite bounds"),
        (gym_tasks.LISTS, "got observations with Sequence.*expected images and numbers"),
    ],
)
def test_what_it_cannot_run_is_refused_in_one_line_by_robot_and_probe(task, words):
    for refused in (GymTask, lambda task: task_facts("gym", task)):
        with pytest.raises(TaskError, match=words) as error:
            refused(task)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 4}, "size: got 4, expected 8 to 2048"),
        ({"render": "pretty"}, "render: got 'pretty', expected one of auto, fast, full, none"),
        ({"camera": "top"}, "camera: got 'top', expected one of image"),
        ({"time_limit": 0}, "time_limit: got 0"),
    ],
)
def test_a_wrong_setting_is_refused(settings, words):
    with pytest.raises(RobotError, match=words):
        GymTask(gym_tasks.LINE, **settings)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(RobotError, match=r"gymnasium cannot be imported.*pip install \.\[gym\]"):
        GymTask("CartPole-v1")


def test_a_missing_drawing_library_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(RobotError, match=r"CartPole-v1 cannot render.*pip install \.\[gym\]"):
        GymTask("CartPole-v1")  # before the first episode: a node ends with this line


def test_a_module_that_fails_when_imported_is_named_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_tasks.py").write_text("raise ValueError('no such\\nasset')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for refused in (GymTask, lambda task: task_facts("gym", task)):
        with pytest.raises(TaskError, match=r"'broken_tasks' fails .*ValueError: no such asset"):
            refused("broken_tasks:Line-v0")


@pytest.mark.parametrize(
    ("task", "discrete", "cameras"),
    [
        ("CartPole-v1", True, ("image",)),
        ("Pendulum-v1", False, ("image",)),
        (gym_tasks.CHOICES, True, ("image",)),
        (gym_tasks.STEREO, False, ("left", "right")),
        (gym_tasks.BLIND, False, ()),
    ],
)
def test_the_probe_tells_actions_and_cameras_of_a_task(task, discrete, cameras):
    assert task_facts("gym", task) == TaskFacts(discrete, cameras)


def test_random_motion_on_a_discrete_set_is_uniform_over_its_actions(tmp_path):
    settings = {"task": gym_tasks.CHOICES, "render": "none"}
    with open_robot("gym", settings) as robot:
        collect(robot, HeldRandom(robot.spec, 1.0, 0), tmp_path / "log", 60, 0)
        policy = Random(robot, 0)
        drawn = np.stack([policy.act(robot.reset()) for _ in range(300)])
    with LogReader(tmp_path / "log") as reader:
        assert reader.spec.action == VectorSpec.one_hot(("action_0", "action_1", "action_2"))
        actions = reader.read("action", 0, reader.length)[~reader.read("is_last", 0, reader.length)]
    for chosen in (actions, drawn):
        assert set(np.unique(chosen)) == {0, 1}
        assert (chosen.sum(1) == 1).all()
        assert (np.abs(chosen.mean(0) - 1 / 3) < 0.1).all()


def test_a_noisy_expert_executes_and_intends_members_of_the_set():
    with GymTask(gym_tasks.CHOICES, render="none") as robot:
        policy = NoisyExpert(Constant([0, 1, 0]), robot.spec, 2.0, seed=0)
        policy.begin(1)
        pairs = [policy.choose(robot.reset()) for _ in range(40)]
    intended, executed = (np.stack(part) for part in zip(*pairs))
    assert (intended == [0, 1, 0]).all()
    assert (executed.sum(1) == 1).all() and (executed != intended).any()


def test_baselines_of_a_discrete_set():
    with GymTask(gym_tasks.CHOICES, render="none") as robot:
        assert best_constant(robot, 0, trials=2, finals=2).action.tolist() == [0, 1, 0]  # stays
        assert Hold(robot).act(robot.reset()).tolist() == [1, 0, 0]
        _, *steps = rollout(robot, Random(robot, 1), seed=2)
        replay = Replay([step.executed for step in steps])
        again = list(rollout(robot, replay, seed=2))
        assert [one.reward for one in again] == [0.0, *(step.reward for step in steps)]
    with (
        GymTask(gym_tasks.LINE, render="none") as robot,
        pytest.raises(RobotError, match=r"policy: got constant.*expected .*discrete"),
    ):
        best_constant(robot, 0)


def test_a_discrete_set_survives_the_log_spec_and_continuous_ones_are_as_before():
    with GymTask(gym_tasks.CHOICES, render="none") as robot:
        spec = robot.spec.log_spec()
    assert LogSpec.from_json(spec.to_json()) == spec
    assert spec.to_json()["action"]["discrete"] is True
    assert "discrete" not in spec.to_json()["proprio"]
