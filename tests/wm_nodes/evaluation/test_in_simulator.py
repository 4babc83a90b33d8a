"""Weights are evaluated in the robot, task and settings of the log, for each simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wm_nodes.point_robot import PointRobot
from tests.wm_nodes.tiny import SIZE, TINY
from wm_datasets import LogReader
from wm_models.registry import PRESETS
from wm_models.weights.store import Manifest, WeightStore
from wm_nodes.agent.in_process import LearnedPolicy
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.evaluation.in_simulator import SimulatorEvaluation
from wm_nodes.robots.opening import open_robot
from wm_nodes.robots.robot import RobotError

SETTINGS = {
    "wall": {"task": "wall-door", "time_limit": 4, "door": 40.0, "action_repeat": 2},
    "point_maze": {"task": "maze-u", "time_limit": 4, "render": "fast"},
    "arm_sim": {"task": "goal", "time_limit": 2, "render": "fast", "camera": "side,front"},
    "dmc": {
        "task": "walker_stand",
        "time_limit": 2,
        "render": "fast",
        "background": "procedural:static",
    },
}


def record_spec(folder, name):
    """Record a log of one episode; return its specification."""
    with open_robot(name, {**SETTINGS[name], "seed": 5, "size": SIZE}) as robot:
        collect(robot, HeldRandom(robot.spec, 1.0, 0), folder / "log", 1, 0)
    with LogReader(folder / "log") as reader:
        return reader.spec


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Return a function that saves a version of the tiny model for a log."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)

    def save(spec):
        dims, camera = len(spec.action), next(iter(spec.cameras))
        manifest = Manifest(1, "tiny", action_dim=dims, extra={"camera": camera})
        store = WeightStore(tmp_path / "weights")
        store.save(TINY.build(dims, seed=4).modules_by_name(), manifest)
        return tmp_path / "weights"

    return save


@pytest.mark.parametrize("name", ["wall", "point_maze", "arm_sim", "dmc"])
def test_the_robot_of_the_log_is_opened_with_its_settings(tmp_path, name):
    spec = record_spec(tmp_path, name)
    with SimulatorEvaluation(spec, 2).open() as robot:
        opened = robot.spec.log_spec()
        assert replace(opened, extra=spec.extra) == spec
        assert {**opened.extra, "seed": 5} == spec.extra


@pytest.mark.parametrize("name", ["wall", "point_maze"])
def test_its_figures_are_those_of_wm_eval(tmp_path, name, weights):
    spec = record_spec(tmp_path, name)
    folder = weights(spec)
    figures = SimulatorEvaluation(spec, 3, seed=1)(folder)
    with open_robot(name, {**SETTINGS[name], "seed": 1, "size": SIZE}) as robot:
        policy = LearnedPolicy.load(folder, robot.spec, seed=1, device="cpu")
        result = evaluate(robot, policy, 3, 1)
    assert figures["eval/success_rate"] == result.success_rate
    assert figures["eval/mean_return"] == result.mean_return
    assert figures["eval/success_low"] <= result.success_rate <= figures["eval/success_high"]


def test_a_log_of_another_robot_is_refused():
    with PointRobot() as robot, pytest.raises(RobotError, match=r"'point', expected one of .*wall"):
        SimulatorEvaluation(robot.spec.log_spec(), 2)
