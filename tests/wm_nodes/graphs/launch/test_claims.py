"""A namespace belongs to one launch; a graph that chose none takes a free one."""

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


def refused(graph, **given) -> str:
    """Return the line that refuses a launch."""
    with pytest.raises(GraphError) as error, claimed(graph, open_run(graph, given)):
        pass
    return str(error.value)


@pytest.mark.parametrize("name", ["sim_metaworld", "arm_mpc"])
def test_every_graph_leaves_a_place_for_another(name):
    graph = find_graph(name)
    with (
        claimed(graph, open_run(graph, {})) as first,
        claimed(graph, open_run(graph, {})) as second,
    ):
        names = graph.owns(first.values)
        assert first.values["ns"] == "/robot" and second.values["ns"] == "/robot_2"
        for key in names:
            assert second.values[key] == f"{first.values[key]}_2"
        places = {node.namespace(second.values) for node in graph.running(second.values)}
        assert places == {str(second.values[key]) for key in names}
        assert f"used by run {first.name}; this run has ns:=/robot_2" in second.notes[-1]
        assert first.launch != second.launch
    with claimed(graph, open_run(graph, {})) as again:
        assert again.values["ns"] == "/robot" and again.notes == ()


def test_a_namespace_that_was_given_is_refused_in_one_line(monkeypatch):
    with claimed(SIM, open_run(SIM, {"run": "one"})):
        for given in ({"ns": "robot"}, {"ns": "/robot"}):
            assert refused(SIM, **given) == (
                "ns: got /robot on ROS domain 7, which run one uses, expected a free one: "
                "ns:=/robot_2, or ROS_DOMAIN_ID=8. Or end that run first."
            )
        with claimed(SIM, open_run(SIM, {"ns": "/other"})) as other:
            assert other.values["ns"] == "/other"
        monkeypatch.setenv("ROS_DOMAIN_ID", "8")
        with claimed(SIM, open_run(SIM, {"ns": "robot"})) as elsewhere:
            assert elsewhere.values["ns"] == "/robot"


def test_a_run_with_a_namespace_of_its_own_does_not_move_when_it_goes_on():
    open_run(SIM, {"run": "left", "ns": "/left"})
    with claimed(SIM, open_run(SIM, {"ns": "/left"})):
        assert refused(SIM, run="left").startswith("ns: got /left on")


def test_two_simulators_of_an_arm_do_not_share_a_driver():
    given = {"policy": "random", "task": "goal"}
    with claimed(ARM, open_run(ARM, given)):
        assert "ns:=/b_2 driver_ns:=/arm_sim_2" in refused(ARM, **given, ns="/b")
        with claimed(ARM, open_run(ARM, given)) as second:
            assert second.values["driver_ns"] == "/arm_sim_2"


def test_a_real_arm_does_not_move():
    real = {"hardware": "real", "robot": "fr3", "policy": "hold"}
    with claimed(ARM, open_run(ARM, real)):
        assert refused(ARM, **real).startswith("ns: got /robot on")
