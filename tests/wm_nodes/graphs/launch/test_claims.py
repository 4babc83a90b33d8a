"""A namespace belongs to one launch; a graph without a chosen one takes a free one."""

from __future__ import annotations

import tempfile

import pytest

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.claims import claimed
from wm_nodes.graphs.launch.run_folder import open_run

SIM, ARM = find_graph("sim_metaworld"), find_graph("arm_mpc")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")


def refusal(graph, **arguments) -> str:
    """Return the error line of a refused launch."""
    with pytest.raises(GraphError) as error, claimed(graph, open_run(graph, arguments)):
        pass
    return str(error.value)


@pytest.mark.parametrize("name", ["sim_metaworld", "arm_mpc"])
def test_a_second_launch_of_a_graph_takes_a_free_namespace(name):
    graph = find_graph(name)
    with (
        claimed(graph, open_run(graph, {})) as first,
        claimed(graph, open_run(graph, {})) as second,
    ):
        keys = graph.owns(first.values)
        assert first.values["ns"] == "/robot" and second.values["ns"] == "/robot_2"
        for key in keys:
            assert second.values[key] == f"{first.values[key]}_2"
        namespaces = {node.namespace(second.values) for node in graph.running(second.values)}
        assert namespaces == {str(second.values[key]) for key in keys}
        assert f"used by run {first.name}; this run has ns:=/robot_2" in second.notes[-1]
        assert first.launch != second.launch
    with claimed(graph, open_run(graph, {})) as third:
        assert third.values["ns"] == "/robot" and third.notes == ()


def test_a_used_namespace_is_refused_in_one_line_if_it_was_chosen(monkeypatch):
    with claimed(SIM, open_run(SIM, {"run": "one"})):
        for arguments in ({"ns": "robot"}, {"ns": "/robot"}):
            assert refusal(SIM, **arguments) == (
                "ns: got /robot on ROS domain 7, which run one uses, expected a free one: "
                "ns:=/robot_2, or ROS_DOMAIN_ID=8. Or end that run first."
            )
        with claimed(SIM, open_run(SIM, {"ns": "/other"})) as other:
            assert other.values["ns"] == "/other"
        monkeypatch.setenv("ROS_DOMAIN_ID", "8")
        with claimed(SIM, open_run(SIM, {"ns": "robot"})) as other_domain:
            assert other_domain.values["ns"] == "/robot"


def test_a_continued_run_keeps_its_namespace():
    open_run(SIM, {"run": "left", "ns": "/left"})
    with claimed(SIM, open_run(SIM, {"ns": "/left"})):
        assert refusal(SIM, run="left").startswith("ns: got /left on")


def test_two_simulators_of_an_arm_do_not_share_a_driver():
    arguments = {"policy": "random", "task": "goal"}
    with claimed(ARM, open_run(ARM, arguments)):
        assert "ns:=/b_2 driver_ns:=/arm_sim_2" in refusal(ARM, **arguments, ns="/b")
        with claimed(ARM, open_run(ARM, arguments)) as second:
            assert second.values["driver_ns"] == "/arm_sim_2"


def test_a_real_arm_takes_no_other_namespace():
    real = {"hardware": "real", "robot": "fr3", "policy": "hold"}
    with claimed(ARM, open_run(ARM, real)):
        assert refusal(ARM, **real).startswith("ns: got /robot on")
