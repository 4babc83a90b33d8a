"""`wm eval`: defaults from the weights, output, and results after Ctrl-C."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.wm_nodes.point_robot import PointRobot
from wm_nodes.agent.action_selection import SearchSettings
from wm_nodes.cli.eval import Eval, _evaluate, _search_settings, _with_defaults
from wm_nodes.cli.progress_bar import Bar
from wm_nodes.errors import UserError
from wm_nodes.graphs.weights import WeightFacts


class Interrupted:
    """Pushes to the origin; Ctrl-C comes in its third episode."""

    def __init__(self) -> None:
        self.episodes = 0

    def begin(self):
        self.episodes += 1

    def act(self, observation):
        if self.episodes == 3:
            raise KeyboardInterrupt
        return -observation.proprio


def test_ctrl_c_keeps_finished_episodes(capsys):
    result = _evaluate(PointRobot(), Interrupted(), Eval(episodes=5, policy="hold"))
    assert len(result.rows) == 2
    assert result.success_rate == 1
    assert "0 of 5 episodes" in capsys.readouterr().err  # a line at once, more every 5 s


def test_ctrl_c_before_the_end_of_the_first_episode_ends_the_command():
    policy = Interrupted()
    policy.episodes = 2
    with pytest.raises(KeyboardInterrupt):
        _evaluate(PointRobot(), policy, Eval(episodes=5, policy="hold"))


def facts(robot: str, task: str, **extra: object) -> WeightFacts:
    return WeightFacts(Path(), 1, "mwm_cpu", {"robot": robot, "task": task, **extra})


def test_robot_task_camera_and_action_repeat_are_those_of_the_weights():
    weight_facts = facts("metaworld", "push-v3", camera="corner", action_repeat=4)
    completed = _with_defaults(Eval(), weight_facts)
    assert (completed.robot, completed.task, completed.camera, completed.action_repeat) == (
        "metaworld",
        "push-v3",
        "corner",
        4,
    )
    assert _with_defaults(Eval(task="push-v3"), weight_facts).task == "push-v3"
    assert _with_defaults(Eval(camera="topview"), weight_facts).camera == "topview"
    assert _with_defaults(Eval(), facts("arm_sim", "goal")).robot == "arm_sim"


def test_several_cameras_are_those_of_the_weights_in_their_order():
    two = facts("arm_sim", "reach", camera="wrist,front")
    assert _with_defaults(Eval(), two).camera == "wrist,front"
    assert _with_defaults(Eval(camera="wrist,front"), two).camera == "wrist,front"
    for other in ("front,wrist", "wrist"):
        with pytest.raises(UserError, match=f"--camera: got {other}, expected wrist,front in this"):
            _with_defaults(Eval(camera=other), two)
    with pytest.raises(UserError, match="--camera: got front,wrist, expected front in this order"):
        _with_defaults(Eval(camera="front,wrist"), facts("arm_sim", "reach", camera="front"))
    with pytest.raises(UserError, match="camera: got 'front,', expected one name"):
        _with_defaults(Eval(camera="front,"), two)


@pytest.mark.parametrize(
    ("options", "weight_facts", "message"),
    [
        ({"task": "reach-v3"}, facts("metaworld", "push-v3"), "got 'reach-v3', expected 'push-v3'"),
        ({"robot": "wall"}, facts("metaworld", "push-v3"), "got 'wall', expected 'metaworld'"),
        ({}, facts("ur5e", "push"), "--robot: got weights of 'ur5e', expected one of"),
        ({"task": "wall-any"}, facts("wall", "wall-same"), "expected 'wall-same', the task of"),
    ],
)
def test_options_that_contradict_the_weights_are_refused(options, weight_facts, message):
    with pytest.raises(UserError, match=message):
        _with_defaults(replace(Eval(), **options), weight_facts)


def test_weights_of_the_general_task_are_evaluated_on_its_parts():
    assert _with_defaults(Eval(task="wall-door"), facts("wall", "wall-any")).task == "wall-door"


def test_weights_of_a_real_arm_may_be_evaluated_on_the_simulated_one():
    completed = _with_defaults(Eval(robot="arm_sim", task="push"), facts("ur5e", "stack"))
    assert (completed.robot, completed.task) == ("arm_sim", "push")


def test_the_output_is_json_and_states_whether_it_was_interrupted(monkeypatch, capsys):
    from wm_nodes.cli.main import main

    arguments = ["eval", "--policy", "random", "--episodes", "1", "--time-limit", "2", "--json"]
    assert main([*arguments, "--robot", "wall"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["interrupted"] is False
    assert result["return_interval_95"] == [None, None]


def test_every_setting_of_a_search_but_its_budget_is_an_option():
    """A budget in wall-clock time would make figures depend on the machine."""
    others = {
        "horizon": 3, "samples": 5, "iterations": 2, "execute": 4, "temperature": 0.5,
        "goal_visual": 2.0, "goal_proprio": 3.0, "objective": "all",
    }  # fmt: skip
    assert {field.name for field in fields(SearchSettings)} == {"budget_s", *others}
    assert _search_settings(Eval()) == SearchSettings()
    assert _search_settings(Eval(**others)) == SearchSettings(**others)


@pytest.mark.parametrize("option", ["--temperature", "--goal-visual", "--goal-proprio"])
def test_a_negative_setting_of_the_search_is_refused_by_name(option, capsys):
    from wm_nodes.cli.main import main

    assert main(["eval", "--policy", "random", option, "-0.5"]) == 2
    error = capsys.readouterr().err
    assert option in error and "-0.5" in error


OWN_ROBOT = "docs/examples/two_joint_arm.py:TwoJointArm"


def test_an_own_robot_is_evaluated_with_its_defaults(capsys):
    from wm_nodes.cli.main import main

    arguments = ["eval", "--robot", OWN_ROBOT, "--policy", "random", "--episodes", "2", "--json"]
    assert main([*arguments, "--task", "reach-sparse"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["task"] == "reach-sparse" and result["episodes"] == 2
    completed = _with_defaults(
        Eval(robot=OWN_ROBOT), facts("two_joint_arm", "reach", camera="front")
    )
    assert (completed.task, completed.camera, completed.time_limit) == ("reach", "front", 0)


def test_demonstrations_of_a_subclass_of_metaworld_use_the_script_of_its_task(tmp_path):
    from wm_datasets import LogReader
    from wm_nodes.cli.main import main

    robot = "docs/examples/sparse_reach.py:SparseReach"
    log, sizes = tmp_path / "log", ["--size", "16", "--episodes", "1", "--time-limit", "40"]
    arguments = [
        "collect",
        "--robot",
        robot,
        "--task",
        "reach-v3",
        "--noise",
        "0",
        "--out",
        str(log),
    ]
    assert main([*arguments, *sizes]) == 0
    with LogReader(log) as reader:
        assert reader.spec.task == "reach-v3" and set(reader.read("reward", 0, 40)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--policy", "random", "--robot", "wal"], "--robot: got 'wal', expected one"),
        (
            ["eval", "--policy", "random", "--robot", "none.py:Robot"],
            "got 'none.py', which does not exist",
        ),
        (["eval", "--policy", "expert", "--robot", OWN_ROBOT], "has no script"),
        (
            ["eval", "--policy", "random", "--robot", OWN_ROBOT, "--action-repeat", "2"],
            "--action-repeat: got 2, expected no value, as the constructor of docs/examples/two_j",
        ),
        (
            ["collect", "--out", "x", "--robot", OWN_ROBOT],
            "has no expert, expected metaworld, arm_sim",
        ),
        (
            ["collect", "--out", "x", "--policy", "random", "--robot", OWN_ROBOT, "--camera", "a"],
            "--camera: got 'a'",
        ),
    ],
)
def test_errors_with_an_own_robot_are_one_line(arguments, message, capsys):
    from wm_nodes.cli.main import main

    assert main(arguments) == 2
    output = capsys.readouterr().err
    assert message in output and output.count("\n") == 1


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [
        (20, 20, "#" * 24 + " 20 of 20 updates"),
        (6, 24, "#" * 6 + "." * 18 + " 6 of 24 updates"),
        (30, 20, "30 updates"),
        (7, 0, "7 updates"),
    ],
)
def test_a_bar_never_shows_more_than_its_total(done, total, line):
    assert Bar(total, "updates").line(done, 0.0, "") == line


def eval_output(capsys, *arguments: str) -> str:
    from wm_nodes.cli.main import main

    assert main(["eval", *arguments]) == 0
    return capsys.readouterr().out


def test_a_goal_task_has_baselines_of_random_actions_and_holding(capsys):
    arguments = ["--robot", "wall", "--task", "wall-same", "--episodes", "4", "--time-limit", "6"]
    message = eval_output(capsys, *arguments, "--policy", "random").splitlines()
    assert message[0].startswith("wall-same random: success ")
    assert message[1].startswith("baseline: wall-same hold: success 0.00")
    assert len(message) == 2
    result = json.loads(eval_output(capsys, *arguments, "--policy", "hold", "--json"))
    assert result["success_rate"] == 0.0 and set(result["baselines"]) == {"random"}
    baseline = result["baselines"]["random"]
    assert (baseline["episodes"], baseline["task"], baseline["seed"]) == (4, "wall-same", 0)
    random = json.loads(eval_output(capsys, *arguments, "--policy", "random", "--json"))
    assert baseline["mean_return"] == random["mean_return"]  # the same episodes and actions


def test_a_task_without_a_goal_has_no_baselines(capsys):
    arguments = ["--robot", OWN_ROBOT, "--policy", "random", "--episodes", "1"]
    assert "baseline" not in eval_output(capsys, *arguments)


def test_the_background_is_that_of_the_weights_and_refused_where_there_is_none(capsys):
    from wm_nodes.cli.main import main

    recorded = facts("dmc", "walker_stand", background="procedural:subtle", camera="main")
    assert _with_defaults(Eval(), recorded).background == "procedural:subtle"
    assert _with_defaults(Eval(background="none"), recorded).background == "none"
    arguments = ["--policy", "random", "--robot", "wall", "--background", "none"]
    assert main(["eval", *arguments]) == 2
    assert "robot wall takes none, expected robot dmc" in capsys.readouterr().err
