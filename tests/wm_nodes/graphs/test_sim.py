"""The graph `sim`: every simulator of the registry, with the robot's own defaults and choices."""

from __future__ import annotations

import json

import pytest

from wm_models.registry import preset
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.robots.opening import limits_of, open_robot
from wm_nodes.robots.registry import SIMULATED

SIM, METAWORLD = find_graph("sim"), find_graph("sim_metaworld")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parameters(graph, values):
    return {node.name: dict(node.parameters(values)) for node in graph.running(values)}


def open_and_close(graph, arguments):
    """Return values and parameters of a run, which is closed again."""
    run = open_run(graph, arguments)
    run.lock.close()
    return run.values, parameters(graph, run.values)


@pytest.mark.parametrize("name", [name for name in SIMULATED if not SIMULATED[name].probe])
def test_every_simulator_of_the_registry_starts_with_its_own_defaults(name):
    entry = SIMULATED[name]
    values, nodes = open_and_close(SIM, {"robot": name, "run": name})
    assert nodes["robot"]["adapter"] == name
    assert values["task"] == entry.tasks[0]
    assert values["camera"] == nodes["encoder"]["camera"] == entry.cameras[0]
    assert values["action_repeat"] == entry.action_repeat
    assert values["time_limit"] == entry.time_limit


@pytest.mark.parametrize("name", ["wall", "point_maze", "arm_sim"])
def test_the_robot_node_opens_the_chosen_robot(name):
    entry = SIMULATED[name]
    arguments = {"robot": name, "task": entry.tasks[-1], "camera": entry.cameras[-1], "size": 32}
    values, nodes = open_and_close(
        SIM, {**arguments, "action_repeat": 3, "time_limit": 7, "render": "fast"}
    )
    node = nodes["robot"]
    with open_robot(node["adapter"], {**node, **limits_of(name, "")}) as robot:
        spec = robot.spec
    assert spec.task == values["task"] == entry.tasks[-1]
    assert spec.cameras == {entry.cameras[-1]: (32, 32, 3)}
    assert spec.control_period_s == pytest.approx(3 * entry.period_ms / 1000)
    assert spec.extra["time_limit"] == 7


def test_sim_metaworld_is_sim_with_the_robot_fixed():
    arguments = {"run": "one", "task": "reach-v3", "demos": 2, "size": 96}
    values, nodes = open_and_close(METAWORLD, arguments)
    sim_values, sim_nodes = open_and_close(SIM, {**arguments, "run": "two", "robot": "metaworld"})

    def normalized(tree):
        return json.loads(json.dumps(tree).replace("/two", "/one"))

    assert normalized(sim_nodes) == normalized(nodes)
    own = ("robot", "background")  # arguments that Meta-World does not have
    shared = {k: v for k, v in sim_values.items() if k not in own}
    assert normalized(shared) == normalized(values)
    assert nodes["demonstrator"]["size"] == nodes["robot"]["size"] == 96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"robot": "wal"}, "robot: .*metaworld, arm_sim, wall, point_maze"),
        ({"robot": "wall", "task": "maze-u"}, "task: .*wall-any, wall-same, wall-door"),
        ({"robot": "point_maze", "camera": "front"}, "camera: .*top"),
        ({"robot": "wall", "time_limit": 61}, "time_limit: .*1 to 60"),
        ({"robot": "wall", "demos": 1}, "demos: got 1.*'wall'.*metaworld, arm_sim"),
        ({"robot": "wall", "weights": "reach"}, "robot: got 'wall'.*'metaworld'"),
        ({"size": 4}, "size: .*from 8 to 1024"),
    ],
)
def test_contradicting_arguments_are_refused_before_anything_starts(arguments, message, tmp_path):
    with pytest.raises(GraphError, match=message):
        open_run(SIM, arguments)
    assert not (tmp_path / "runs").exists()


def test_a_run_continues_with_its_robot(tmp_path):
    open_and_close(SIM, {"run": "one", "robot": "wall", "task": "wall-door"})
    values, _ = open_and_close(SIM, {"run": "one"})
    assert (values["robot"], values["task"]) == ("wall", "wall-door")
    with pytest.raises(GraphError, match=r"robot: got .*, but run 'one' began with robot:=wall"):
        open_run(SIM, {"run": "one", "robot": "point_maze"})


def test_weights_decide_robot_and_task():
    values, _ = open_and_close(SIM, {"weights": "arm-goal", "train": "false"})
    assert values["robot"] == "arm_sim"
    assert values["task"] == "goal"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "preset: mwm_cpu_demos\nlearner:\n  train_every: 4\n  agent_batch: {batch: 3}\n"
    )
    return file


@pytest.mark.parametrize("graph", ["sim", "sim_metaworld", "offline_train"])
def test_a_config_file_decides_model_and_settings(graph, config, tmp_path):
    (tmp_path / "log").mkdir()
    arguments = {"config": config, "set": "learner.agent_batch.batch=5", "log": tmp_path / "log"}
    values, nodes = open_and_close(find_graph(graph), arguments)
    assert values["model"] == nodes["trainer"]["model"] == "mwm_cpu_demos"
    settings = preset("mwm_cpu_demos").varied(
        {"learner.train_every": 4, "learner.agent_batch.batch": 5}
    )
    changes = dict(change.split("=") for change in nodes["trainer"]["set"].split(","))
    assert preset(values["model"]).varied(changes).settings == settings.settings


def test_a_run_keeps_the_settings_of_its_config_file(config):
    open_and_close(SIM, {"run": "one", "robot": "wall", "config": config})
    config.write_text("preset: mwm_cpu_demos\nlearner: {train_every: 9}\n")
    values, _ = open_and_close(SIM, {"run": "one"})
    assert "learner.train_every=4" in str(values["set"])
    with pytest.raises(GraphError, match=r"set: got .*, but run 'one' began with"):
        open_run(SIM, {"run": "one", "config": config})


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("[1]", {}, "config: .*got list"),
        ("learner: {train_evry: 4}", {}, "train_evry"),
        ("learner: {train_every: four}", {}, "train_every"),
        ("preset: mwm_cpuu", {}, "model: .*mwm_cpuu"),
        ("preset: mwm_cpu", {"model": "mwm"}, "model: got 'mwm'.*'mwm_cpu'"),
        (None, {}, "config: .*cannot be read"),
    ],
)
def test_a_wrong_config_file_is_refused_before_anything_starts(tmp_path, text, arguments, message):
    if text is not None:
        (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(GraphError, match=message):
        open_run(SIM, {"config": tmp_path / "my.yaml", **arguments})
    assert not (tmp_path / "runs").exists()


def test_sim_dmc_is_sim_with_the_robot_fixed():
    arguments = {"run": "one", "task": "walker_stand", "background": "procedural:subtle"}
    values, nodes = open_and_close(find_graph("sim_dmc"), arguments)
    sim_values, sim_nodes = open_and_close(SIM, {**arguments, "run": "two", "robot": "dmc"})
    assert {k: v for k, v in sim_values.items() if k not in ("robot", "demos", "run", "log")} == {
        k: v for k, v in values.items() if k not in ("run", "log")
    }
    assert nodes["robot"]["background"] == sim_nodes["robot"]["background"] == "procedural:subtle"
    assert "background" not in open_and_close(METAWORLD, {"run": "three"})[1]["robot"]


def test_a_folder_of_videos_goes_to_the_robot_with_its_whole_path(tmp_path):
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "clips" / name).touch()
    _, nodes = open_and_close(find_graph("sim_dmc"), {"background": "clips"})
    assert nodes["robot"]["background"] == str(tmp_path / "clips")


@pytest.mark.parametrize(
    ("graph", "arguments", "message"),
    [
        ("sim_dmc", {"background": "nowhere"}, "got 'nowhere', which is no readable folder"),
        ("sim_dmc", {"background": "procedural:fog"}, "'procedural:fog', expected none; .*subtle"),
        ("sim_dmc", {"background": "."}, "got 0 videos in .*at least two"),
        ("sim_dmc", {"task": "cartpole_balanse"}, "Closest: cartpole_balance"),
        ("sim_dmc", {"time_limit": 1001}, "time_limit: .*1 to 1000"),
        (
            "sim",
            {"robot": "wall", "background": "procedural:static"},
            "background: got .*'wall' takes none; expected one of dmc",
        ),
    ],
)
def test_a_wrong_task_or_background_is_refused_before_anything_starts(
    graph, arguments, message, tmp_path
):
    with pytest.raises(GraphError, match=message):
        open_run(find_graph(graph), arguments)
    assert not (tmp_path / "runs").exists()
