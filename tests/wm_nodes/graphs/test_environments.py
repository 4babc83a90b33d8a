"""envs:=N: robot and recorder for each environment, one agent, one trainer."""

from __future__ import annotations

import pytest

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.robots.environments import environment_logs, environment_seed, share

GRAPHS = ("sim", "sim_metaworld", "sim_dmc")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def started(name, arguments):
    """Return values, nodes by name, and their parameters, of a run that is closed again."""
    graph = find_graph(name)
    run = open_run(graph, arguments)
    run.lock.close()
    nodes = {node.name: node for node in graph.running(run.values)}
    return run.values, nodes, {n: dict(node.parameters(run.values)) for n, node in nodes.items()}


@pytest.mark.parametrize("name", GRAPHS)
def test_one_environment_is_the_graph_without_the_argument(name):
    _, nodes, plain = started(name, {"run": "a", "composition": "fused", "steps": 900})
    _, _, one = started(name, {"run": "b", "composition": "fused", "steps": 900, "envs": 1})
    assert {n: str(p).replace("/b", "/a") for n, p in one.items()} == {
        n: str(p) for n, p in plain.items()
    }
    assert list(nodes) == ["agent", "robot", "recorder", "trainer", "monitor"]
    assert plain["robot"]["seed"] == 0 and plain["robot"]["steps"] == 900
    assert "envs" not in plain["trainer"] | plain["monitor"] | plain["agent"]


@pytest.mark.parametrize("name", GRAPHS)
def test_each_environment_has_robot_and_recorder_in_a_namespace_of_its_own(name):
    values, nodes, _ = started(name, {"envs": 3, "run": "a"})
    places = {n: node.namespace(values) for n, node in nodes.items()}
    each = {
        f"{kind}_env_{i}": f"/robot/env_{i}" for kind in ("robot", "recorder") for i in range(3)
    }
    others = dict.fromkeys(("batched_agent", "trainer", "monitor"), "/robot")
    assert places == {**each, **others}
    assert values["composition"] == "fused"


def test_namespaces_follow_the_namespace_of_the_graph():
    values, nodes, _ = started("sim_metaworld", {"envs": 2, "ns": "left/robot"})
    assert nodes["robot_env_1"].namespace(values) == "/left/robot/env_1"


def test_seeds_logs_and_counts_are_of_one_environment_each():
    _, _, nodes = started("sim_metaworld", {"envs": 4, "run": "a", "seed": 7})
    robots = [nodes[f"robot_env_{i}"] for i in range(4)]
    recorders = [nodes[f"recorder_env_{i}"] for i in range(4)]
    assert [r["seed"] for r in robots] == [environment_seed(7, i) for i in range(4)]
    assert robots[0]["seed"] == nodes["batched_agent"]["seed"] == nodes["trainer"]["seed"] == 7
    assert len({r["seed"] for r in robots}) == len({r["progress"] for r in robots}) == 4
    assert [r["log"] for r in recorders] == environment_logs(nodes["trainer"]["log"], 4)
    assert nodes["trainer"]["envs"] == nodes["monitor"]["envs"] == nodes["batched_agent"]["envs"]


@pytest.mark.parametrize(("steps", "envs"), [(1000, 4), (1001, 4), (7, 7), (0, 3)])
def test_limits_of_a_run_are_shared_without_a_rest(steps, envs):
    arguments = {"envs": envs, "steps": steps, "episodes": steps}
    _, _, nodes = started("sim_metaworld", arguments)
    for name in ("steps", "episodes"):
        own = [nodes[f"robot_env_{i}"][name] for i in range(envs)]
        assert sum(own) == steps and max(own) - min(own) <= 1
        assert not steps or min(own) > 0


def test_only_the_first_environment_is_evaluated():
    _, _, nodes = started("sim_metaworld", {"envs": 3, "eval_every": 1000})
    assert [nodes[f"robot_env_{i}"]["eval_every"] for i in range(3)] == [334, 0, 0]


def test_capacity_is_shared():
    _, _, nodes = started("sim_metaworld", {"envs": 3, "capacity_steps": 1000})
    recorders = [nodes[f"recorder_env_{i}"] for i in range(3)]
    assert [r["capacity_steps"] for r in recorders] == [334] * 3
    assert [r["capacity_bytes"] for r in recorders] == [0] * 3


def test_a_run_keeps_its_number_of_environments():
    started("sim_metaworld", {"envs": 2, "run": "a"})
    values, nodes, _ = started("sim_metaworld", {"run": "a"})
    assert values["envs"] == 2 and "robot_env_1" in nodes
    with pytest.raises(GraphError, match=r"envs: got '3', but run 'a' began with envs:=2"):
        open_run(find_graph("sim_metaworld"), {"run": "a", "envs": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"envs": 0}, r"envs: got '0', expected a whole number from 1 to 64"),
        ({"envs": 2, "composition": "split"}, r"composition: got split .*expected fused"),
        ({"envs": 2, "mode": "realtime"}, r"mode: got realtime .*expected lockstep"),
        ({"envs": 4, "steps": 3}, r"steps: got 3 with envs:=4, expected 0 or at least 4"),
        ({"envs": 4, "episodes": 3}, r"episodes: got 3 with envs:=4"),
    ],
)
def test_what_several_environments_cannot_have_is_refused(arguments, message, tmp_path):
    with pytest.raises(GraphError, match=message):
        open_run(find_graph("sim_metaworld"), arguments)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["arm_mpc", "replay", "offline_train"])
def test_graphs_without_simulator_have_one_environment(name):
    with pytest.raises(GraphError, match="envs"):
        open_run(find_graph(name), {"envs": 2})


def test_environments_of_one_run_share_no_seed():
    seeds = {environment_seed(seed, number) for seed in range(50) for number in range(64)}
    assert len(seeds) == 50 * 64 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_shares_add_up(count):
    for total in (0, 1, count, 1000, 1001):
        assert sum(share(total, number, count) for number in range(count)) == total
