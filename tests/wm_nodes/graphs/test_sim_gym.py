"""The graph `sim_gym`: any task by its id, looked up and compared with the model before a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wm_nodes import gym_tasks
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.robots.opening import open_robot

GRAPH = find_graph("sim_gym")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def started(graph, given):
    """Return values and parameters of a run that is not kept open."""
    run = open_run(graph, given)
    run.lock.close()
    return run.values, {
        node.name: node.parameters(run.values) for node in graph.running(run.values)
    }


@pytest.mark.parametrize("task", [gym_tasks.LINE, gym_tasks.CHOICES])
def test_the_robot_node_opens_any_task(task):
    given = {"task": task, "train": "false", "time_limit": 5000, "size": 32, "action_repeat": 2}
    values, nodes = started(GRAPH, given)
    assert nodes["encoder"]["camera"] == "image"
    name = Path(str(values["run"]))
    assert name.parent.name == "runs" and name.name.startswith("tests.wm_nodes.gym_tasks-")
    with open_robot(nodes["robot"]["adapter"], nodes["robot"]) as robot:
        assert robot.spec.task == values["task"] == task
        assert robot.spec.cameras == {"image": (32, 32, 3)}
        assert robot.spec.extra["time_limit"] == 5000


def test_sim_gym_is_sim_with_the_robot_fixed():
    given = {"task": gym_tasks.LINE, "run": "one"}
    one, nodes = started(GRAPH, given)
    other, others = started(find_graph("sim"), {**given, "run": "two", "robot": "gym"})
    own = ("robot", "run", "log", "demos", "background")
    assert {key: value for key, value in other.items() if key not in own} == {
        key: value for key, value in one.items() if key not in own
    }
    assert nodes["robot"]["adapter"] == others["robot"]["adapter"] == "gym"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "CartPol-v1"}, "task: got 'CartPol-v1'.*Closest: CartPole-v"),
        ({"task": gym_tasks.MANY}, "got actions MultiDiscrete.*expected Discrete or a Box"),
        ({"task": gym_tasks.CHOICES}, "model: got 'mwm_cpu', which takes continuous actions only"),
        (
            {"task": gym_tasks.CHOICES, "model": "dino_wm_cpu"},
            "model: got 'dino_wm_cpu', which takes continuous actions only",
        ),
        (
            {"task": gym_tasks.CHOICES, "train": "false", "planner": "cem"},
            "planner: got 'cem'.*expected actor",
        ),
        ({"task": gym_tasks.BLIND}, "task: got .*Blind-v0', which has no images"),
        ({"task": gym_tasks.BLIND, "train": "false"}, "task: got .*Blind-v0', which has no images"),
        ({"task": gym_tasks.STEREO}, "camera: got 'image', expected one of left, right"),
    ],
)
@pytest.mark.parametrize("graph", ["sim", "sim_gym"])
def test_what_does_not_go_together_is_refused_before_anything_starts(tmp_path, graph, given, words):
    robot = {"robot": "gym"} if graph == "sim" else {}
    with pytest.raises(GraphError, match=words) as error:
        open_run(find_graph(graph), {**robot, **given})
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_for_discrete_actions_is_taken_and_named_as_the_remedy():
    started(GRAPH, {"task": gym_tasks.CHOICES, "model": "dreamer_v3_cpu_discrete"})
    with pytest.raises(GraphError, match=r"Choose .*dreamer_v3_cpu_discrete.*, or a task"):
        open_run(GRAPH, {"task": gym_tasks.CHOICES, "model": "mwm"})
    with pytest.raises(GraphError, match="takes discrete actions only"):
        open_run(GRAPH, {"task": gym_tasks.LINE, "model": "dreamer_v3_cpu_discrete"})
