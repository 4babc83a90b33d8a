"""The benchmark of several environments: what it starts, and when it begins to measure."""

from __future__ import annotations

import pytest

from wm_nodes.checks.bench import environments
from wm_nodes.checks.bench.processes import NodeReports, fresh_weights
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import split_words
from wm_nodes.graphs.launch.run_folder import open_run


@pytest.mark.parametrize("train", [False, True])
def test_the_graph_takes_its_arguments(tmp_path, monkeypatch, train):
    monkeypatch.chdir(tmp_path)
    weights = fresh_weights("mwm_cpu", tmp_path, action_dim=environments.ACTION_DIM)
    name, *words = environments._words("mwm_cpu", weights, 2, train=train)
    run = open_run(find_graph(name), split_words(words))
    run.lock.close()
    nodes = {node.name for node in find_graph(name).running(run.values)}
    assert {"robot_env_0", "robot_env_1", "batched_agent"} <= nodes
    assert ("trainer" in nodes) == train


def test_it_measures_when_all_robots_act_and_the_trainer_has_caught_up():
    reports = NodeReports(lambda seconds: None)
    reports.update({"/robot/env_0/robot": {"decisions": "300"}})
    assert not environments._is_warm(reports, 2, train=False)
    reports.update({"/robot/env_1/robot": {"decisions": "300"}})
    assert environments._is_warm(reports, 2, train=False)
    assert environments._decisions(reports) == 600
    for updates, warm in ((0, False), (2, False), (21, False), (22, True)):
        reports.update({"/robot/trainer": {"updates": str(updates), "rows": "600"}})
        assert environments._is_warm(reports, 2, train=True) is warm
