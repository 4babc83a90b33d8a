"""`wm eval`: what comes from the weights, what is shown, what Ctrl-C keeps."""

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


def test_ctrl_c_before_the_first_episode_is_the_end():
    policy = Interrupted()
    policy.episodes = 2
    with pytest.raises(KeyboardInterrupt):
        _evaluate(PointRobot(), policy, Eval(episodes=5, policy="hold"))


def facts(robot: str, task: str, **made_with: object) -> WeightFacts:
    return WeightFacts(Path(), 1, "mwm_cpu", {"robot": robot, "task": task, **made_with})


def test_robot_task_camera_and_pace_come_from_the_weights():
    made = facts("metaworld", "push-v3", camera="corner", action_repeat=4)
    filled = _with_defaults(Eval(), made)
    assert (filled.robot, filled.task, filled.camera, filled.action_repeat) == (
        "metaworld",
        "push-v3",
        "corner",
        4,
    )
    assert _with_defaults(Eval(task="push-v3"), made).task == "push-v3"
    assert _with_defaults(Eval(camera="topview"), made).camera == "topview"
    assert _with_defaults(Eval(), facts("arm_sim", "goal")).robot == "arm_sim"


@pytest.mark.parametrize(
    ("given", "made", "message"),
    [
        ({"task": "reach-v3"}, facts("metaworld", "push-v3"), "got 'reach-v3', expected 'push-v3'"),
        ({"robot": "wall"}, facts("metaworld", "push-v3"), "got 'wall', expected 'metaworld'"),
        ({}, facts("ur5e", "push"), "--robot: got weights of 'ur5e', expected one of"),
        ({"task": "wall-any"}, facts("wall", "wall-same"), "expected 'wall-same', the task of"),
    ],
)
def test_what_contradicts_the_weights_is_refused(given, made, message):
    with pytest.raises(UserError, match=message):
        _with_defaults(replace(Eval(), **given), made)


def test_weights_of_the_general_task_are_judged_by_its_parts():
    assert _with_defaults(Eval(task="wall-door"), facts("wall", "wall-any")).task == "wall-door"


def test_weights_of_a_real_arm_may_be_judged_on_the_simulated_one():
    filled = _with_defaults(Eval(robot="arm_sim", task="push"), facts("ur5e", "stack"))
    assert (filled.robot, filled.task) == ("arm_sim", "push")


def test_the_json_is_json_and_says_whether_it_was_interrupted(monkeypatch, capsys):
    from wm_nodes.cli.main import main

    words = ["eval", "--policy", "random", "--episodes", "1", "--time-limit", "2", "--json"]
    assert main([*words, "--robot", "wall"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["interrupted"] is False
    assert found["return_interval_95"] == [None, None]


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


def test_a_robot_of_ones_own_is_judged_with_its_own_defaults(capsys):
    from wm_nodes.cli.main import main

    words = ["eval", "--robot", OWN_ROBOT, "--policy", "random", "--episodes", "2", "--json"]
    assert main([*words, "--task", "reach-sparse"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "reach-sparse" and found["episodes"] == 2
    filled = _with_defaults(Eval(robot=OWN_ROBOT), facts("two_joint_arm", "reach", camera="front"))
    assert (filled.task, filled.camera, filled.time_limit) == ("reach", "front", 0)


def test_demonstrations_of_a_subclass_of_metaworld_are_by_its_tasks_script(tmp_path):
    from wm_datasets import LogReader
    from wm_nodes.cli.main import main

    robot = "docs/examples/sparse_reach.py:SparseReach"
    log, sizes = tmp_path / "log", ["--size", "16", "--episodes", "1", "--time-limit", "40"]
    words = ["collect", "--robot", robot, "--task", "reach-v3", "--noise", "0", "--out", str(log)]
    assert main([*words, *sizes]) == 0
    with LogReader(log) as reader:
        assert reader.spec.task == "reach-v3" and set(reader.read("reward", 0, 40)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("words", "message"),
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
def test_mistakes_with_a_robot_of_ones_own_are_one_line(words, message, capsys):
    from wm_nodes.cli.main import main

    assert main(words) == 2
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
def test_a_bar_never_says_more_than_all(done, total, line):
    assert Bar(total, "updates").line(done, 0.0, "") == line


def words_said(capsys, *words: str) -> str:
    from wm_nodes.cli.main import main

    assert main(["eval", *words]) == 0
    return capsys.readouterr().out


def test_beside_a_goal_task_stands_what_random_actions_and_holding_reach(capsys):
    same = ["--robot", "wall", "--task", "wall-same", "--episodes", "4", "--time-limit", "6"]
    message = words_said(capsys, *same, "--policy", "random").splitlines()
    assert message[0].startswith("wall-same random: success ")
    assert message[1].startswith("baseline: wall-same hold: success 0.00")
    assert len(message) == 2
    found = json.loads(words_said(capsys, *same, "--policy", "hold", "--json"))
    assert found["success_rate"] == 0.0 and set(found["baselines"]) == {"random"}
    beside = found["baselines"]["random"]
    assert (beside["episodes"], beside["task"], beside["seed"]) == (4, "wall-same", 0)
    alone = json.loads(words_said(capsys, *same, "--policy", "random", "--json"))
    assert beside["mean_return"] == alone["mean_return"]  # the same episodes and actions


def test_a_task_without_a_goal_has_no_such_figures(capsys):
    words = ["--robot", OWN_ROBOT, "--policy", "random", "--episodes", "1"]
    assert "baseline" not in words_said(capsys, *words)


def test_the_background_is_that_of_the_weights_and_refused_where_there_is_none(capsys):
    from wm_nodes.cli.main import main

    made = facts("dmc", "walker_stand", background="procedural:subtle", camera="main")
    assert _with_defaults(Eval(), made).background == "procedural:subtle"
    assert _with_defaults(Eval(background="none"), made).background == "none"
    words = ["--policy", "random", "--robot", "wall", "--background", "none"]
    assert main(["eval", *words]) == 2
    assert "robot wall takes none, expected robot dmc" in capsys.readouterr().err
