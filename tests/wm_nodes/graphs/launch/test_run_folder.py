"""A run continues with the arguments it began with; contradicting ones are refused."""

import json
from dataclasses import replace

import pytest

from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run

GRAPH = find_graph("sim_metaworld")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_new_run_is_named_after_its_task_and_has_a_run_json(tmp_path):
    run = open_run(GRAPH, {"task": "reach-v3", "seed": "3"})
    assert run.path.parent == tmp_path / "runs"
    assert run.path.name.startswith("reach-v3-")
    content = json.loads((run.path / "run.json").read_text())
    assert content["graph"] == "sim_metaworld"
    assert content["arguments"]["seed"] == 3
    assert run.values["log"] == str(run.path / "log")


def test_two_runs_in_one_second_are_two_runs():
    assert open_run(GRAPH, {}).path != open_run(GRAPH, {}).path


def test_a_resumed_run_keeps_its_arguments():
    open_run(GRAPH, {"run": "one", "task": "reach-v3", "seed": "3", "steps": "100"})
    run = open_run(GRAPH, {"run": "one"})
    assert run.resumed
    assert (run.values["task"], run.values["seed"], run.values["steps"]) == ("reach-v3", 3, 100)
    assert run.notes == ()


def test_a_contradicting_argument_is_refused_and_nothing_changes():
    first = open_run(GRAPH, {"run": "one", "task": "reach-v3"})
    first.lock.close()
    before = (first.path / "run.json").read_text()
    with pytest.raises(GraphError, match="got 'push-v3', but run 'one' began with task:=reach-v3"):
        open_run(GRAPH, {"run": "one", "task": "push-v3"})
    assert (first.path / "run.json").read_text() == before


def test_a_second_launch_of_a_running_run_changes_nothing():
    first = open_run(GRAPH, {"run": "one", "steps": "100"})
    before = (first.path / "run.json").read_text()
    with pytest.raises(GraphError, match="'one', which is running already"):
        open_run(GRAPH, {"run": "one", "steps": "200"})
    assert (first.path / "run.json").read_text() == before
    first.lock.close()
    assert open_run(GRAPH, {"run": "one", "steps": "200"}).values["steps"] == 200


def test_a_changed_argument_is_noted():
    open_run(GRAPH, {"run": "one", "steps": "100"})
    run = open_run(GRAPH, {"run": "one", "steps": "200"})
    assert run.values["steps"] == 200
    assert run.notes == ("steps:=200 (was 100)",)


@pytest.fixture
def paths(tmp_path):
    """Folders under `here`, and the arguments of two graphs that name them by relative paths."""
    for folder in ("clips", "demos", "logs", "weights"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    for clip in ("a.mp4", "b.mp4"):
        (tmp_path / "here" / "clips" / clip).touch()
    (tmp_path / "here" / "demos" / "zarr.json").touch()
    (tmp_path / "here" / "arm.yaml").touch()
    (tmp_path / "here" / "goal.png").touch()
    (tmp_path / "elsewhere").mkdir()
    sim = {"background": "clips", "offline": "demos:2, ../here/demos", "log": "logs/new"}
    arm = {"robot": "arm.yaml", "goal": "goal.png", "log": "logs/new", "weights": "weights"}
    return tmp_path / "here", {"sim_dmc": sim, "arm_mpc": arm}


def test_every_argument_that_is_a_path_is_kept_absolute(paths):
    here, given = paths
    whole = find_graph("sim_dmc").whole(given["sim_dmc"], here)
    assert whole == {
        "background": f"{here}/clips",
        "offline": f"{here}/demos:2,{here}/demos:1",
        "log": f"{here}/logs/new",
    }
    whole = find_graph("arm_mpc").whole(given["arm_mpc"], here)
    assert whole == {
        "robot": f"{here}/arm.yaml",
        "goal": f"{here}/goal.png",
        "log": f"{here}/logs/new",
        "weights": f"{here}/weights",
    }


@pytest.mark.parametrize(
    ("graph", "given"),
    [
        ("sim_dmc", {"background": "procedural:static", "offline": "s3://logs/a:2", "log": ""}),
        ("sim_dmc", {"background": "none", "weights": "reach", "offline": ""}),
        ("sim_dmc", {"background": "no such folder", "weights": "no such folder"}),
        ("arm_mpc", {"robot": "arm_sim", "goal": "", "weights": "arm-goal"}),
    ],
)
def test_what_is_no_path_stays_as_it_is(tmp_path, graph, given):
    assert find_graph(graph).whole(given, tmp_path) == given


@pytest.mark.parametrize("older", [False, True])
def test_a_run_continues_from_another_working_folder(paths, monkeypatch, older):
    here, given = paths
    graph, given = find_graph("sim_dmc"), {**given["sim_dmc"], "steps": "10"}
    monkeypatch.chdir(here)
    first = open_run(graph, {"run": "one", **given})
    first.lock.close()
    file = here / "runs" / "one" / "run.json"
    content = json.loads(file.read_text())
    assert content["arguments"]["background"] == f"{here}/clips"
    if older:  # run.json had the words as they were typed
        content["arguments"] |= given
        file.write_text(json.dumps(content))
    monkeypatch.chdir(here.parent / "elsewhere")
    again = {"background": "../here/clips", "log": "../here/logs/new"}
    run = open_run(graph, {"run": str(here / "runs" / "one"), **again})
    assert run.resumed and run.notes[-1].startswith("learned before") and len(run.notes) == 1
    assert {k: v for k, v in run.values.items() if k != "run"} == {
        k: v for k, v in first.values.items() if k != "run"
    }
    run.lock.close()
    with pytest.raises(GraphError, match=r"background: got 'clips', but .* began with"):
        open_run(graph, {"run": str(here / "runs" / "one"), "background": "clips"})


def test_an_unreadable_run_json_is_refused():
    run = open_run(GRAPH, {"run": "one"})
    run.lock.close()
    (run.path / "run.json").write_text("{ not json")
    with pytest.raises(GraphError, match="cannot be read"):
        open_run(GRAPH, {"run": "one"})


def test_another_graphs_run_is_refused():
    open_run(GRAPH, {"run": "one"})
    with pytest.raises(GraphError, match="of graph 'sim_metaworld', expected"):
        open_run(replace(GRAPH, name="other"), {"run": "one"})


@pytest.mark.parametrize("name", ["-x", "a b", ".hidden", "a:b"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(GraphError, match="expected letters"):
        open_run(GRAPH, {"run": name})


def test_missing_weights_are_refused_before_a_folder_exists(tmp_path):
    with pytest.raises(GraphError, match="weights: got 'nothing-here', expected"):
        open_run(GRAPH, {"weights": "nothing-here"})
    assert not (tmp_path / "runs").exists()


def test_offline_training_needs_a_log(tmp_path):
    with pytest.raises(GraphError, match=r"log: got .*, which does not exist"):
        open_run(find_graph("offline_train"), {"log": str(tmp_path / "nix")})


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("sim_metaworld", "reach", {"task": "reach-v3", "model": "mwm_cpu_demos"}),
        ("sim_metaworld", "reach", {"camera": "corner", "action_repeat": 2}),
        ("arm_mpc", "arm-goal", {"task": "goal", "model": "dino_wm_cpu", "camera": "front"}),
        ("arm_mpc", "arm-reach", {"task": "reach", "model": "mwm_cpu_plan"}),
    ],
)
def test_task_and_model_are_those_of_the_weights(name, weights, expected):
    run = open_run(find_graph(name), {"weights": weights})
    assert {key: run.values[key] for key in expected} == expected
    assert run.path.name.startswith(f"{run.values['task']}-")
    assert any(note.startswith("as the weights were made: ") for note in run.notes)
    run.lock.close()
    resumed = open_run(find_graph(name), {"run": run.path.name})
    assert {key: resumed.values[key] for key in expected} == expected


def test_arguments_that_do_not_contradict_the_weights_stay():
    arguments = {"weights": "reach", "task": "reach-v3", "camera": "topview"}
    run = open_run(GRAPH, arguments)
    assert (run.values["task"], run.values["camera"]) == ("reach-v3", "topview")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "sim_metaworld",
            {"weights": "reach", "task": "push-v3"},
            "expected 'reach-v3', the task of",
        ),
        (
            "sim_metaworld",
            {"weights": "reach", "model": "mwm"},
            "expected 'mwm_cpu_demos', the model of",
        ),
        ("sim_metaworld", {"weights": "arm-reach"}, "'reach' of robot 'arm_sim'"),
        ("arm_mpc", {"weights": "arm-goal", "task": "push"}, "expected 'goal', the task of"),
    ],
)
def test_arguments_that_contradict_the_weights_are_refused_without_a_run(
    tmp_path, name, arguments, message
):
    with pytest.raises(GraphError, match=message):
        open_run(find_graph(name), arguments)
    assert not (tmp_path / "runs").exists()


def test_a_run_continues_with_its_own_newer_weights():
    run = open_run(GRAPH, {"run": "one", "weights": "window-close"})
    run.lock.close()
    (run.path / "weights").mkdir()
    (run.path / "weights" / "latest").write_text("1")
    file = run.path / "run.json"
    file.write_text(file.read_text().replace("window-close-v3", "push-v3"))  # an older version's
    assert open_run(GRAPH, {"run": "one"}).values["task"] == "push-v3"


def test_offline_training_passes_camera_and_settings_to_the_trainer(tmp_path):
    (tmp_path / "log").mkdir()
    graph = find_graph("offline_train")
    arguments = {"log": str(tmp_path / "log"), "camera": "wrist", "set": "learner.train_every=4"}
    values = open_run(graph, {**arguments, "run": str(tmp_path / "one")}).values
    trainer = next(node for node in graph.nodes if node.name == "trainer").parameters(values)
    assert (trainer["camera"], trainer["set"]) == ("wrist", "learner.train_every=4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"set": "learner.trainevery=4"}, "Did you mean 'learner.train_every'"),
        ({"set": "learner.train_every=0"}, "got 0, expected at least 1"),
        ({"set": "learner.train_every"}, "expected NAME=VALUE"),
        ({"set": "learner.batch=8"}, "got 'learner.batch'"),
    ],
)
def test_wrong_settings_of_the_preset_are_refused_before_anything_is_written(
    tmp_path, arguments, message
):
    with pytest.raises(GraphError, match=message):
        open_run(find_graph("sim_metaworld"), {**arguments, "run": str(tmp_path / "one")})
    assert not (tmp_path / "one").exists()


def test_settings_are_checked_against_the_model_of_the_run_and_stay(tmp_path):
    graph, run = find_graph("sim_metaworld"), str(tmp_path / "one")
    arguments = {"run": run, "set": "learner.batch=8"}  # of dino_wm_cpu, not of the default model
    open_run(graph, {**arguments, "model": "dino_wm_cpu"})
    assert open_run(graph, arguments).values["model"] == "dino_wm_cpu"
    with pytest.raises(GraphError, match="set"):
        open_run(graph, {"run": run, "set": "learner.batch=4"})


def test_a_run_of_an_older_version_takes_no_settings(tmp_path):
    graph, run = find_graph("sim_metaworld"), tmp_path / "one"
    open_run(graph, {"run": str(run)})
    content = json.loads((run / "run.json").read_text())
    del content["arguments"]["set"]
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(GraphError, match="set"):
        open_run(graph, {"run": str(run), "set": "learner.train_every=4"})
    assert open_run(graph, {"run": str(run)}).values["set"] == ""


def test_a_run_of_an_older_version_still_records_its_plans(tmp_path):
    graph, run = find_graph("arm_mpc"), tmp_path / "one"
    open_run(graph, {"run": str(run), "plans": "true"}).lock.close()
    content = json.loads((run / "run.json").read_text())
    content["arguments"]["album"] = content["arguments"].pop("plans")
    (run / "run.json").write_text(json.dumps(content))
    assert open_run(graph, {"run": str(run)}).values["plans"] is True
