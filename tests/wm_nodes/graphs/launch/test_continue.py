"""Off line to on line: `wm launch sim_metaworld run:=NAME` continues what `wm train` began."""

from __future__ import annotations

import json

import pytest

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.arguments import split_logs
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run, write_training

GRAPH = find_graph("sim_metaworld")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(tmp_path):
    """A run of `wm train` on two logs, with weights of a robot."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text("{}")
    run = tmp_path / "runs" / "one"
    logs = [f"{tmp_path}/a:1", f"{tmp_path}/b:0.3"]
    write_training(run, {"model": "mwm_cpu", "seed": 4, "logs": logs})
    version = run / "weights" / f"{7:010d}"
    version.mkdir(parents=True)
    extra = {"task": "reach-v3", "camera": "corner", "render": "fast", "action_repeat": 4,
             "time_limit": 100, "robot": "sawyer", "seed": 9}  # fmt: skip
    (version / "manifest.json").write_text(json.dumps({"preset": "mwm", "extra": extra}))
    (run / "weights" / "latest").write_text("7\n")
    return run


def test_a_graph_continues_with_model_robot_seed_and_logs(trained, tmp_path):
    run = open_run(GRAPH, {"run": "one"})
    assert run.resumed and run.path == trained
    expected = {"model": "mwm", "task": "reach-v3", "camera": "corner", "render": "fast",
                "action_repeat": 4, "time_limit": 100, "seed": 4,
                "log": str(trained / "log")}  # fmt: skip
    assert {name: run.values[name] for name in expected} == expected
    assert split_logs(run.values) == [f"{tmp_path}/a:1", f"{tmp_path}/b:0.3"]
    assert any("learns on" in note for note in run.notes)
    trainer = next(node for node in GRAPH.nodes if node.name == "trainer")
    assert trainer.parameters(run.values)["offline"] == split_logs(run.values)
    run.lock.close()
    reopened = open_run(GRAPH, {"run": "one"})  # it belongs to this graph now
    assert reopened.values == run.values
    assert json.loads((trained / "run.json").read_text())["graph"] == "sim_metaworld"


def test_another_task_than_the_weights_is_refused(trained):
    before = (trained / "run.json").read_text()
    with pytest.raises(GraphError, match="began with task:=reach-v3"):
        open_run(GRAPH, {"run": "one", "task": "push-v3"})
    assert (trained / "run.json").read_text() == before


def test_a_run_of_the_offline_graph_is_continued_as_well(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zarr.json").write_text("{}")
    open_run(find_graph("offline_train"), {"run": "two", "log": "a", "seed": 3})
    run = open_run(GRAPH, {"run": "two", "task": "push-v3"})
    assert run.values["seed"] == 3 and run.values["task"] == "push-v3"
    assert split_logs(run.values) == [f"{tmp_path}/a:1"]


def test_a_run_trained_on_its_own_log_has_no_other(trained):
    write_training(trained, {"model": "mwm", "seed": 4, "logs": [f"{trained}/log:1"]})
    assert open_run(GRAPH, {"run": "one"}).values["offline"] == ""


def test_training_offline_again_does_not_change_the_graph_of_a_run(trained):
    open_run(GRAPH, {"run": "one"})
    before = (trained / "run.json").read_text()
    write_training(trained, {"model": "mwm", "seed": 4, "logs": []})
    assert (trained / "run.json").read_text() == before


@pytest.mark.parametrize("text", ["nowhere", "a:0", "a:much"])
def test_an_invalid_log_is_refused_before_anything_starts(trained, text):
    with pytest.raises(GraphError, match=r"offline: .*LOG:WEIGHT"):
        open_run(GRAPH, {"run": "three", "offline": text})
