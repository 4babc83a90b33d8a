"""Logs have executed and intended actions; collecting more continues a log without repetition."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_nodes import gym_tasks
from tests.wm_nodes.tiny import Homing, LargeImagePoint, record
from wm_datasets import LogReader
from wm_datasets.spec import Source
from wm_nodes.cli.collect import run
from wm_nodes.episodes.collect import HeldRandom, NoisyExpert, collect
from wm_nodes.errors import UserError
from wm_nodes.robots.robot import RobotError


def rows(log):
    with LogReader(log) as reader:
        return reader.read_rows(reader.first, reader.length)


def episodes(log):
    with LogReader(log) as reader:
        return [
            {k: v[: int(length)] for k, v in reader.read_rows(start, start + length).items()}
            for start, length, complete in reader.episodes.tolist()
            if complete
        ]


@pytest.fixture
def demos(tmp_path):
    return record(tmp_path / "demos", 8, expert=True)


def test_the_physics_follow_from_the_executed_action_not_from_the_intended_one(demos):
    logged = episodes(demos)
    assert len(logged) == 8
    for episode in logged:
        x, push = episode["proprio"], episode["action"]
        np.testing.assert_allclose(x[1:], np.clip(x[:-1] + push[:-1], -2, 2), atol=1e-6)
        intended = np.clip(-x[:-1] * (1 + 5 * (abs(x[:-1]) > 0.7)), -1, 1)
        np.testing.assert_allclose(episode["commanded"][:-1], intended, atol=1e-6)


def test_one_episode_in_four_is_demonstrated_cleanly(demos):
    disturbed = [bool((e["action"] != e["commanded"]).any()) for e in episodes(demos)]
    assert disturbed == [False, True, True, True] * 2


def test_noise_has_the_set_deviation_and_changes_slowly():
    with LargeImagePoint(time_limit=4000) as robot:
        policy = NoisyExpert(Homing(), robot.spec, 0.2, seed=0)
        policy.begin(1)
        observation = robot.reset(0)
        pushes = []
        while not observation.is_last:
            observation = robot.observe()
            observation = type(observation)(
                observation.images,
                np.zeros(1, np.float32),
                observation.executed,
                observation.commanded,
            )
            intended, executed = policy.choose(observation)
            pushes.append(float(executed[0] - intended[0]))
            observation = robot.act(executed)
    assert np.std(pushes) == pytest.approx(0.2, rel=0.1)
    assert np.corrcoef(pushes[1:], pushes[:-1])[0, 1] == pytest.approx(0.8, abs=0.05)


def test_without_noise_the_intended_action_is_executed(tmp_path):
    with LargeImagePoint() as robot:
        collect(robot, NoisyExpert(Homing(), robot.spec, 0.0, 0), tmp_path / "log", 2, 0)
    data = rows(tmp_path / "log")
    np.testing.assert_array_equal(data["action"], data["commanded"])


def test_the_log_has_the_source_of_actions(tmp_path, demos):
    play = record(tmp_path / "play", 1)
    assert set(rows(demos)["source"]) == {Source.SCRIPT}
    assert set(rows(play)["source"]) == {Source.RANDOM}
    assert set(rows(demos)["weights"]) == {-1}


def test_held_actions_have_the_set_mean_duration():
    with LargeImagePoint() as robot:
        policy, observation = HeldRandom(robot.spec, 5.0, seed=0), robot.reset(0)
        policy.begin(0)
        actions = np.array([policy.choose(observation)[1] for _ in range(5000)])
    changes = int((actions[1:] != actions[:-1]).sum())
    assert 5000 / changes == pytest.approx(5, rel=0.15)
    assert abs(actions).max() <= 1


@pytest.mark.parametrize("expert", [True, False])
def test_collecting_more_continues_the_log(tmp_path, expert):
    at_once = rows(record(tmp_path / "whole", 5, expert=expert))
    record(tmp_path / "parts", 2, expert=expert)
    in_parts = rows(record(tmp_path / "parts", 3, expert=expert))
    for name, values in at_once.items():
        np.testing.assert_array_equal(in_parts[name], values, err_msg=name)


def test_the_result_counts_what_the_log_holds(tmp_path):
    reported = []
    with LargeImagePoint() as robot:
        policy = NoisyExpert(Homing(), robot.spec, 0.0, 0)
        result = collect(robot, policy, tmp_path / "log", 3, 0, watch=reported.append)
    assert result.rows == tuple(reported)
    assert result.success_rate == 1
    returns = [float(e["reward"].sum()) for e in episodes(tmp_path / "log")]
    assert [row.total_reward for row in reported] == pytest.approx(returns)


def test_play_near_objects_without_objects_is_refused(tmp_path):
    arguments = ["--robot", "arm_sim", "--task", "goal", "--policy", "play", "--near", "0.5"]
    with pytest.raises(UserError, match="but task 'goal' has no objects"):
        run([*arguments, "--camera", "front", "--size", "16", "--out", str(tmp_path / "log")])
    assert not (tmp_path / "log").exists()


def faulty(fault, log):
    names = ["--robot", "gym", "--task", gym_tasks.FAULTY[fault], "--policy", "random"]
    return [*names, "--size", "8", "--out", str(log)]


def test_a_task_that_fails_before_its_first_row_gets_one_line_and_leaves_no_folder(tmp_path):
    expected = (
        r"task '.*:Faulty-reset-v0': reset failed \(ZeroDivisionError: no world, at gym_tasks"
    )
    with pytest.raises(UserError, match=expected):
        run(faulty("reset", tmp_path / "logs" / "log"))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("step", r"step failed \(ZeroDivisionError: no world, at gym_tasks"),
        ("proprio", r"observation of gym: proprio: got \[nan, nan\], expected finite numbers"),
        ("reward", "observation of gym: reward: got inf, expected finite numbers"),
        ("image", "an image has numbers that are not finite"),
    ],
)
def test_rows_before_a_failing_step_are_kept_and_nothing_of_it_is_recorded(
    tmp_path, fault, expected
):
    with pytest.raises(UserError, match=expected):
        run(faulty(fault, tmp_path / "log"))
    data = rows(tmp_path / "log")
    assert len(data["reward"]) == 2  # row t is complete when observation t+1 is there
    assert all(np.isfinite(data[name]).all() for name in ("reward", "proprio", "action"))


def test_a_failing_task_leaves_a_log_that_is_there_as_it_was(tmp_path):
    record(tmp_path / "log", 1)
    before = rows(tmp_path / "log")
    with LargeImagePoint() as robot:
        robot._begin = lambda seed: 1 / 0
        with pytest.raises(RobotError, match="reset failed"):
            collect(robot, HeldRandom(robot.spec, 1.0, 0), tmp_path / "log", 1, 0)
    after = rows(tmp_path / "log")
    np.testing.assert_array_equal(after["stamp"], before["stamp"])


def test_several_tasks_give_a_log_each_that_is_the_log_of_the_task_alone(tmp_path):
    arguments = ["--robot", "wall", "--policy", "random", "--episodes", "1", "--time-limit", "4"]
    arguments += ["--size", "16"]
    run([*arguments, "--task", "wall-any,wall-door", "--out", str(tmp_path / "both")])
    run([*arguments, "--task", "wall-door", "--out", str(tmp_path / "one")])
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["wall-any", "wall-door"]
    alone, part = rows(tmp_path / "one"), rows(tmp_path / "both" / "wall-door")
    for name in ("image/top", "action", "reward"):
        np.testing.assert_array_equal(part[name], alone[name], err_msg=name)
    with pytest.raises(UserError, match=r"--out: got .*one, which is a replay log"):
        run([*arguments, "--task", "wall-any,wall-door", "--out", str(tmp_path / "one")])
    with pytest.raises(UserError, match="--task: got 'wall-dor'"):
        run([*arguments, "--task", "wall-any,wall-dor", "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
