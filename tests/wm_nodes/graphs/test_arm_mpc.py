"""The arm's graph: simulated and real differ by one process, and wrong arguments are refused."""

from __future__ import annotations

import pytest

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError

GRAPH = find_graph("arm_mpc")


def values(**arguments):
    return {**GRAPH.defaults(), "run": "runs/x", "log": "runs/x/log", **arguments}


def test_real_starts_no_simulator_and_changes_nothing_else():
    sim = {n.name: n.parameters(values()) for n in GRAPH.running(values())}
    real = {n.name: n.parameters(values()) for n in GRAPH.running(values(hardware="real"))}
    assert set(sim) - set(real) == {"arm_sim"}
    assert all(sim[name] == real[name] for name in real)


def test_either_a_model_or_a_script_plans():
    for policy in ("model", "expert", "random", "hold"):
        names = {node.name for node in GRAPH.running(values(policy=policy))}
        assert ("agent" in names) == (policy == "model") != ("scripted_policy" in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"robot": "unknown"}, "unknown.yaml, which does not exist"),
        ({"robot": "ur5e"}, "hardware:=real"),
        ({"task": "fly"}, "reach, goal, push, lift"),
        ({"hardware": "real", "robot": "ur5e"}, "which needs a simulator's state"),
        ({"policy": "model"}, "weights:="),
        ({"goal": "/nowhere.png"}, "which does not exist, expected a file"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(arguments, message):
    with pytest.raises(GraphError, match=message):
        GRAPH.check(values(**arguments))
