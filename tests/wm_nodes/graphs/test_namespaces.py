"""Argument `ns` of every graph, `driver_ns` of the arm's, and namespaces of launch files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wm_nodes.assets import shared
from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import Run, open_run

ARM = find_graph("arm_mpc")
REAL = {"hardware": "real", "policy": "hold"}
FR3 = {**REAL, "robot": "fr3"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def namespaces_of(run: Run, graph=ARM) -> dict[str, str]:
    """Return the namespace of every node that runs."""
    return {node.name: node.namespace(run.values) for node in graph.running(run.values)}


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_takes_a_namespace_and_refuses_an_illegal_one_in_one_line(name):
    graph = find_graph(name)
    assert graph.parse({"ns": "/left/robot"}) == {"ns": "/left/robot"}
    assert graph.namespaces(graph.defaults(), "")["ns"] == "/robot"
    assert graph.namespaces(graph.defaults(), "/left")["ns"] == "/left/robot"
    for wrong in ("left arm", "/left/", "1st", "", "~x", "/a//b"):
        with pytest.raises(GraphError) as error:
            graph.parse({"ns": wrong})
        assert re.fullmatch(r"ns: got '.*', expected .+\.", str(error.value))


@pytest.mark.parametrize(
    ("arguments", "pushed", "ns", "driver_ns"),
    [
        ({}, "", "/robot", "/arm_sim"),
        ({}, "/left", "/left/robot", "/left/arm_sim"),
        ({}, "/cell/left", "/cell/left/robot", "/cell/left/arm_sim"),
        ({"ns": "arm"}, "", "/arm", "/arm_sim"),
        ({"ns": "arm"}, "/left", "/left/arm", "/left/arm_sim"),
        ({"ns": "/arm", "driver_ns": "/sim"}, "/left", "/arm", "/sim"),
        ({"ns": "/left/robot", "driver_ns": "left/sim"}, "", "/left/robot", "/left/sim"),
        (FR3, "", "/robot", "/"),
        (FR3, "/left", "/left/robot", "/left"),
        ({**FR3, "ns": "/left/robot", "driver_ns": "/left"}, "", "/left/robot", "/left"),
    ],
)
def test_robot_and_driver_are_below_the_pushed_namespace(arguments, pushed, ns, driver_ns):
    run = open_run(ARM, arguments, pushed)
    namespaces = namespaces_of(run)
    assert namespaces.pop("arm_sim", driver_ns) == driver_ns
    assert set(namespaces.values()) == {ns}
    parameters = {node.name: dict(node.parameters(run.values)) for node in ARM.running(run.values)}
    assert parameters["robot"]["driver_ns"] == driver_ns
    assert parameters["scripted_policy"]["score"] == f"{driver_ns.rstrip('/')}/score"
    if "arm_sim" in parameters:
        assert parameters["arm_sim"]["robot_ns"] == ns


def robot_file(folder: Path, text: str) -> str:
    path = folder / "arm.yaml"
    path.write_text(f"robot: arm\n{text}\n")
    return str(path)


@pytest.mark.parametrize(
    ("text", "pushed", "driver_ns"),
    [
        ("", "/left", "/left"),
        ("driver_ns: plant", "/left", "/left/plant"),
        ("driver_ns: /plant", "/left", "/plant"),
        ("driver_ns: ''", "", "/"),
        ("joints: [", "/left", "/left"),  # the robot node reports the error
    ],
)
def test_the_drivers_namespace_comes_from_the_robots_file(folder, text, pushed, driver_ns):
    run = open_run(ARM, {**REAL, "robot": robot_file(folder, text)}, pushed)
    assert run.values["driver_ns"] == driver_ns


def test_an_illegal_namespace_in_the_robots_file_is_refused_before_anything_starts(folder):
    with pytest.raises(GraphError, match=r"driver_ns of .+: got 'left arm', expected"):
        open_run(ARM, {**REAL, "robot": robot_file(folder, "driver_ns: left arm")})
    assert not (folder / "runs").exists()


def test_a_run_continues_in_its_namespace():
    open_run(ARM, {"run": "left", "ns": "/left/robot", "driver_ns": "/left/arm_sim"})
    resumed = open_run(ARM, {"run": "left"})
    assert (
        namespaces_of(resumed)["robot"] == "/left/robot"
        and namespaces_of(resumed)["arm_sim"] == "/left/arm_sim"
    )


def test_launches_at_the_same_time_have_separate_folders():
    runs = [open_run(ARM, {"ns": f"/arm{number}"}) for number in range(5)]
    assert len({run.path for run in runs}) == 5
    for run in runs:
        with pytest.raises(GraphError, match="running already"):
            open_run(ARM, {"run": run.path.name})
        run.lock.close()


def test_launches_by_several_processes_have_separate_folders(folder):
    code = (
        "from wm_nodes.graphs import find_graph\n"
        "from wm_nodes.graphs.launch.run_folder import open_run\n"
        "for _ in range(20): print(open_run(find_graph('arm_mpc'), {}).path)\n"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = [line for process in running for line in process.communicate()[0].split()]
    assert len(paths) == len(set(paths)) == 60
    assert all(json.loads((Path(path) / "run.json").read_text()) for path in paths)


# `ros2 launch`, where launch_ros is installed ---------------------------------------------------


def include_launch_file(side: str, **arguments: str) -> dict[str, tuple[str, str]]:
    """Include the arm's launch file below PushRosNamespace(side); return for every node action its
    namespace and its file of parameters."""
    pytest.importorskip("launch_ros")
    from launch import LaunchContext
    from launch.actions import GroupAction, IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node, PushRosNamespace

    file = str(Path(__file__).parents[3] / "launch" / "arm_mpc.launch.py")
    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(file), launch_arguments=arguments.items()
    )
    context, nodes = LaunchContext(), {}

    def visit(entity) -> None:
        if isinstance(entity, Node):
            entity._perform_substitutions(context)
            file = entity._Node__expanded_parameter_arguments[0][0]
            nodes[Path(file).stem] = (entity.expanded_node_namespace, file)
            return
        for child in entity.visit(context) or ():
            visit(child)

    visit(GroupAction([PushRosNamespace("cell"), PushRosNamespace(side), included]))
    return nodes


def test_two_arms_are_included_below_pushed_namespaces():
    for side in ("left", "right"):
        nodes = include_launch_file(side, policy="random", task="goal")
        assert nodes["arm_sim"][0] == f"/cell/{side}/arm_sim"
        others = {namespace for name, (namespace, _) in nodes.items() if name != "arm_sim"}
        assert others == {f"/cell/{side}/robot"}
        parameters = yaml.safe_load(Path(nodes["robot"][1]).read_text())["/**"]["ros__parameters"]
        assert parameters["driver_ns"] == f"/cell/{side}/arm_sim"
    assert len(list(Path("runs").iterdir())) == 2


def test_an_absolute_namespace_is_not_below_the_pushed_one():
    nodes = include_launch_file("left", policy="random", ns="/arm", driver_ns="/sim")
    assert (nodes["robot"][0], nodes["arm_sim"][0]) == ("/arm", "/sim")


def test_the_graph_reads_the_shipped_arms_as_the_robot_node_does():
    config = pytest.importorskip("wm_nodes.robots.arm.config.arm_config")
    files = sorted(shared("config/robots").glob("*.yaml"))
    arms = [file for file in files if "joints:" in file.read_text()]
    assert {"arm_sim", "fr3"} <= {file.stem for file in arms}
    for file in arms:
        run = open_run(ARM, {**REAL, "robot": file.stem})
        assert run.values["driver_ns"] == config.read_config(file).driver_ns
