"""Several cameras of a graph: nodes for each, parameters, and what is refused before they start."""

from __future__ import annotations

import json

import pytest

from tests.wm_nodes import two_cameras
from wm_models.registry import PRESETS
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import Argument, GraphError
from wm_nodes.graphs.launch.parameters import write_parameters
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.graphs.launch.supervisor import _Session

SIM, ARM = find_graph("sim"), find_graph("arm_mpc")
TWO = {"robot": "arm_sim", "camera": "wrist, front", "model": "dreamer_v3_cpu", "run": "two"}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "two_eyed", two_cameras.TINY)


def opened(graph, arguments):
    """Return the run, which is closed again, and its nodes by name."""
    run = open_run(graph, arguments)
    run.lock.close()
    return run, {node.name: node for node in graph.running(run.values)}


def weights_of(folder, camera, model="dreamer_v3_cpu", robot="arm_sim", task="reach"):
    """Write the manifest of weights, all that a graph reads of them."""
    folder.mkdir(parents=True)
    extra = {"robot": robot, "task": task, "camera": camera}
    content = {"version": 1, "preset": model, "action_dim": 4, "extra": extra}
    (folder / "manifest.json").write_text(json.dumps(content))
    return str(folder)


def test_each_camera_has_a_node_of_its_own_name_and_the_others_get_the_list():
    run, nodes = opened(SIM, TWO)
    assert run.values["camera"] == "wrist,front"
    of_cameras = {name: node for name, node in nodes.items() if node.executable == "camera"}
    assert list(of_cameras) == ["camera_wrist", "camera_front"]
    for name, node in of_cameras.items():
        own = node.parameters(run.values)
        assert node.ros_name == name and own["camera"] == name.removeprefix("camera_")
        text = write_parameters(run.path, node, run.values).read_text()
        assert f'camera: "{own["camera"]}"' in text.replace('"camera"', "camera")
    for name in ("encoder", "world_model", "robot", "trainer"):
        assert nodes[name].parameters(run.values)["camera"] == "wrist,front"
    _, fused = opened(SIM, {**TWO, "composition": "fused", "run": "fused"})
    assert not any(name.startswith("camera") for name in fused)
    assert fused["agent"].parameters(run.values)["camera"] == "wrist,front"


def test_one_camera_has_the_node_and_parameters_that_it_had_before():
    run, nodes = opened(SIM, {"robot": "arm_sim", "run": "one"})
    assert nodes["camera"].ros_name == "" and nodes["camera"] in SIM.nodes
    assert nodes["camera"].parameters(run.values)["camera"] == "front"
    assert "camera" not in nodes["trainer"].parameters(run.values)


def test_supervisord_gives_each_camera_node_its_name(tmp_path):
    run, _ = opened(SIM, TWO)
    configuration = _Session(SIM, run)._configuration()
    for name in ("camera_wrist", "camera_front"):
        assert f"__node:={name}" in configuration.partition(f"[program:{name}]")[2].split("[")[0]
    assert configuration.count("__node:=") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": "front,side,front"}, "camera: got 'front,side,front', expected one name, or"),
        ({"camera": "front,"}, "camera: got 'front,', expected one of front, side, wrist, or sev"),
        ({"camera": "front,top"}, "camera: got 'front,top', expected one of front, side, wrist"),
        ({"model": "mwm_cpu"}, "camera: got wrist, front for model 'mwm_cpu', which sees one"),
        ({"model": "dino_wm_cpu"}, "camera: got wrist, front for model 'dino_wm_cpu'"),
    ],
)
def test_wrong_cameras_and_models_of_one_camera_are_refused(changes, message):
    with pytest.raises(GraphError, match=message):
        open_run(SIM, {**TWO, **changes})


def test_two_cameras_are_recorded_without_a_model_of_both():
    run, _ = opened(SIM, {**TWO, "model": "mwm_cpu", "train": "false"})
    assert run.values["camera"] == "wrist,front"


def test_a_graph_takes_the_cameras_of_its_weights_and_refuses_others(tmp_path):
    weights = weights_of(tmp_path / "two", "wrist,front")
    run, _ = opened(SIM, {"weights": weights, "train": "false", "run": "taken"})
    assert run.values["camera"] == "wrist,front"
    for other in ("front,wrist", "front"):
        message = f"camera: got {other}, expected wrist,front in this order"
        with pytest.raises(GraphError, match=message):
            open_run(SIM, {"weights": weights, "camera": other, "run": "no"})
        with pytest.raises(GraphError, match=message):
            open_run(ARM, {"weights": weights, "camera": other, "run": "no"})
    one = weights_of(tmp_path / "one", "front")
    with pytest.raises(GraphError, match="camera: got front,wrist, expected front in this order"):
        open_run(SIM, {"weights": one, "camera": "front,wrist", "run": "more"})
    run, _ = opened(SIM, {"weights": one, "camera": "side", "train": "false", "run": "other"})
    assert run.values["camera"] == "side"


def test_the_weights_of_a_continued_run_decide_too(tmp_path):
    weights_of(tmp_path / "runs/two/weights/0000000001", "wrist,front")
    (tmp_path / "runs/two/weights/latest").write_text("1")
    with pytest.raises(GraphError, match="camera: got front, expected wrist,front in this order"):
        open_run(SIM, {**TWO, "camera": "front", "train": "false"})


def test_offline_training_and_replay_take_several_cameras(tmp_path):
    log = two_cameras.record(tmp_path / "log", 1)
    offline, replay = find_graph("offline_train"), find_graph("replay")
    two = {"log": str(log), "camera": "front,wrist"}
    run, nodes = opened(offline, {**two, "model": "dreamer_v3_cpu", "run": "learn"})
    assert nodes["trainer"].parameters(run.values)["camera"] == "front,wrist"
    with pytest.raises(GraphError, match="got front, wrist for model 'mwm_cpu'"):
        open_run(offline, {**two, "run": "other"})

    weights = weights_of(tmp_path / "two", "wrist,front", robot="point", task="origin")
    played = {"log": str(log), "model": "dreamer_v3_cpu", "weights": weights}
    run, nodes = opened(replay, {**played, "composition": "fused", "run": "play"})
    assert nodes["agent"].parameters(run.values)["camera"] == "wrist,front"
    with pytest.raises(GraphError, match="got front,wrist, expected wrist,front in this order"):
        open_run(replay, {**played, "camera": "front,wrist", "composition": "split", "run": "p2"})
    with pytest.raises(GraphError, match=r"got 'side', expected one of the log's: front, wrist"):
        open_run(replay, {"log": str(log), "camera": "front,side", "run": "p3"})


def test_an_argument_of_several_choices():
    argument = Argument("camera", "a", "Which.", choices=("a", "b"), several=True)
    assert argument.parse(" b , a") == "b,a"
    assert argument.right() == "one of a, b, or several of them, with commas between"
    with pytest.raises(GraphError, match="got 'a,c', expected one of a, b, or several"):
        argument.parse("a,c")


def test_ros_launch_leaves_the_choices_to_the_graph():
    pytest.importorskip("launch_ros")
    from wm_nodes.graphs.launch.ros_launch import _declared

    argument = Argument("camera", "a", "Which.", choices=("a", "b"), several=True)
    declared = _declared(argument)
    assert not declared.choices and "one of a, b, or several" in declared.description
