"""A graph has one task value: the demonstrator records the task of the robot node."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("metaworld")

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.graphs.sim import GraphRobot, simulator_graph
from wm_nodes.robots.opening import limits_of, open_robot
from wm_nodes.robots.sims.metaworld_tasks import CAMERAS
from wm_nodes.training.trainable import mixture

SETTINGS = "task seed action_repeat time_limit camera".split()


def parameters(graph, values, name):
    return next(node for node in graph.nodes if node.name == name).parameters(values)


def log_spec_of(node_parameters):
    """Return the specification of the log of a node's robot."""
    adapter, settings = (
        node_parameters["adapter"],
        {name: node_parameters[name] for name in SETTINGS},
    )
    limits = limits_of(adapter, node_parameters.get("limits", ""))
    with open_robot(adapter, {**settings, **limits, "render": "none"}) as robot:
        return robot.spec.log_spec()


class OtherTask(GraphRobot):
    """A custom task that changes the robot node only."""

    def robot(self, values):
        return {**super().robot(values), "task": "push-v3"}


CUSTOM = OtherTask(
    adapter="metaworld", tasks=("reach-v3",), cameras=CAMERAS, period_ms=12.5, demonstrated=True
)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_change_of_the_robot_node_changes_the_demonstrator():
    graph = simulator_graph("mine", "Mine.", CUSTOM)
    run = open_run(graph, {"demos": "3"})
    robot = parameters(graph, run.values, "robot")
    demonstrator = parameters(graph, run.values, "demonstrator")
    assert robot["task"] == demonstrator["task"] == "push-v3"
    assert graph.task(run.values) == "push-v3"


def test_a_graph_whose_nodes_have_two_tasks_is_refused(tmp_path):
    graph = simulator_graph("mine", "Mine.", replace(CUSTOM))
    nodes = tuple(
        replace(node, parameters=lambda values: {"task": "push-wall-v3"})
        if node.name == "robot"
        else node
        for node in graph.nodes
    )
    with pytest.raises(GraphError, match=r"robot 'push-wall-v3'.*demonstrator 'push-v3'"):
        open_run(replace(graph, nodes=nodes), {"demos": "3"})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("task", ["drawer-close-v3", "reach-v3"])
def test_demonstrations_of_the_graph_itself_are_of_the_robot_s_kind(task):
    graph = find_graph("sim_metaworld")
    run = open_run(graph, {"demos": "3", "task": task, "camera": "corner"})
    logs = [(n, log_spec_of(parameters(graph, run.values, n))) for n in ("robot", "demonstrator")]
    assert mixture(logs, allow_mixed=False) == ""
    assert logs[0][1].task == task
    assert logs[0][1].differences(logs[1][1]) == []
