"""Settings of learning are fixed in run.json: a continued run of `wm train` keeps them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.wm_nodes.tiny import TINY, LargeImagePoint, record
from wm_datasets import LogReader
from wm_models.registry import PRESETS
from wm_models.weights.store import WeightStore, load_model
from wm_nodes.cli import train
from wm_nodes.cli.report import make_training
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.errors import UserError
from wm_nodes.evaluation.held_out import HeldOut
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.training.batches import Batches
from wm_nodes.training.loop import Trainer

START_OPTIONS = ["--eval-every", "3", "--hold-out", "0.3", "--seed", "3", "--recency", "50"]


@pytest.fixture
def configs(monkeypatch):
    """The configuration of each trainer that is made."""
    configs_of_trainers = []
    begin = Trainer.__init__

    def init(self, config, *rest, **options):
        configs_of_trainers.append(config)
        begin(self, config, *rest, **options)

    monkeypatch.setattr(Trainer, "__init__", init)
    return configs_of_trainers


@pytest.fixture
def wm_train(tmp_path, monkeypatch):
    """A function that runs `wm train` in this process on tiny models, in a folder with two logs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(PRESETS, "other", replace(TINY, name="other"))
    monkeypatch.setattr(train, "MODELS", ("tiny", "other"))
    monkeypatch.setattr(train.signal, "signal", lambda *arguments: None)
    record(tmp_path / "a", 20)
    record(tmp_path / "b", 3, seed=1)

    def run(*arguments):
        return train.run(["--run", "one", "--device", "cpu", *arguments])

    return run


@pytest.fixture
def continue_run(wm_train, tmp_path):
    """The same function, after a run has begun on log a with held-out episodes."""
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "6", *START_OPTIONS) == 0
    return wm_train


def stored_arguments(tmp_path):
    return json.loads((tmp_path / "runs" / "one" / "run.json").read_text())["arguments"]


def test_run_json_has_all_settings_of_the_learning(continue_run, tmp_path):
    assert stored_arguments(tmp_path) == {
        "model": "tiny",
        "seed": 3,
        "recency": 50.0,
        "hold_out": 0.3,
        "allow_mixed": False,
        "set": "",
        "logs": [f"{tmp_path / 'a'}:1"],
    }


@pytest.mark.parametrize("log", [[], ["--log", "a"]])
def test_a_run_continues_with_its_settings(continue_run, configs, tmp_path, log):
    before = stored_arguments(tmp_path)
    assert continue_run(*log, "--steps", "9") == 0
    (config,) = configs
    assert (config.hold_out, config.seed, config.recency) == (0.3, 3, 50.0)
    assert (config.model, config.eval_every) == ("tiny", 0)
    assert config.logs == ((config.logs[0][0], 1.0),) and config.logs[0][0].name == "a"
    assert stored_arguments(tmp_path) == before


def test_held_out_episodes_are_never_learned_from_in_a_continued_run(continue_run, monkeypatch):
    samplers = []
    draw = Batches.draw

    def draw_and_keep_sampler(self, specs):
        samplers.append(self.sampler)
        return draw(self, specs)

    monkeypatch.setattr(Batches, "draw", draw_and_keep_sampler)
    assert continue_run("--steps", "9") == 0
    sampler = samplers[-1]
    with LogReader("a") as reader:
        held_out = reader.episodes[HeldOut(0.3).held(reader.episodes)]
        assert len(held_out) > 1
        spans = [
            (start, start + length) for start, length in held_out[["start", "length"]].tolist()
        ]
        for _ in range(200):
            _, rows = sampler.draw(8, 3)
            for row in rows.flatten().tolist():
                assert not any(low <= row < high for low, high in spans)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hold-out", "0.1"], "--hold-out: got 0.1, but run 'one' began with 0.3"),
        (["--hold-out", "0"], "--hold-out: got 0.0, but run 'one' began with 0.3"),
        (["--seed", "4"], "--seed: got 4, but run 'one' began with 3"),
        (["--recency", "0"], "--recency: got 0.0, but run 'one' began with 50"),
        (["--model", "other"], "--model: got other, but run 'one' began with tiny"),
        (["--set", "model.gamma=0.9"], "--set: got model.gamma=0.9, but run 'one' began with no"),
        (["--log", "b"], "b:1, but run 'one' began with .*a:1"),
        (["--log", "a", "--log", "b"], "a:1, .*b:1, but run 'one' began with .*a:1"),
        (["--log", "a:0.5"], "a:0.5, but run 'one' began with .*a:1"),
    ],
)
def test_another_value_is_refused_with_both_values_and_a_remedy(
    continue_run, tmp_path, arguments, message
):
    before = (tmp_path / "runs" / "one" / "run.json").read_text()
    version = WeightStore(tmp_path / "runs" / "one" / "weights").latest()
    with pytest.raises(UserError, match=rf"{message}.*start another run"):
        continue_run(*arguments, "--steps", "9")
    assert (tmp_path / "runs" / "one" / "run.json").read_text() == before
    assert WeightStore(tmp_path / "runs" / "one" / "weights").latest() == version


def test_equal_values_are_accepted_again(continue_run):
    assert continue_run("--log", "a", "--model", "tiny", "--steps", "9", *START_OPTIONS) == 0


def test_a_run_without_held_out_episodes_has_no_evaluation(wm_train):
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "3") == 0
    with pytest.raises(UserError, match=r"learns from every episode.*--eval-episodes"):
        wm_train("--eval-every", "3", "--steps", "6")
    with pytest.raises(UserError, match=r"--hold-out: got 0.2, but run 'one' began with 0"):
        wm_train("--eval-every", "3", "--hold-out", "0.2", "--steps", "6")


def test_a_run_of_an_older_version_continues_with_its_arguments(continue_run, configs, tmp_path):
    file = tmp_path / "runs" / "one" / "run.json"
    content = json.loads(file.read_text())
    del content["arguments"]["hold_out"], content["arguments"]["recency"]
    file.write_text(json.dumps(content))
    assert continue_run("--eval-every", "3", "--hold-out", "0.2", "--steps", "9") == 0
    assert configs[-1].hold_out == 0.2 and stored_arguments(tmp_path)["hold_out"] == 0.2


def test_a_run_of_an_older_version_does_not_drop_its_hold_out_silently(continue_run, tmp_path):
    file = tmp_path / "runs" / "one" / "run.json"
    content = json.loads(file.read_text())
    del content["arguments"]["hold_out"], content["arguments"]["recency"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"--hold-out: run 'one' held episodes out.*--eval-every N"):
        continue_run("--steps", "9")
    graph = find_graph("sim_metaworld")
    with pytest.raises(GraphError, match="hold_out: got none, but run 'one' held episodes out"):
        open_run(graph, {"run": "one"})
    run = open_run(graph, {"run": "one", "hold_out": "0.3"})
    assert run.values["hold_out"] == 0.3
    run.lock.close()


def test_weights_are_never_in_a_run_without_run_json(wm_train, tmp_path, monkeypatch):
    save = WeightStore.save

    def check_and_save(self, *arguments):
        assert (tmp_path / "runs" / "one" / "run.json").exists()
        return save(self, *arguments)

    monkeypatch.setattr(WeightStore, "save", check_and_save)
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "1") == 0


def test_a_graph_that_continues_a_run_keeps_episodes_held_out(continue_run, tmp_path):
    graph = find_graph("sim_metaworld")
    run = open_run(graph, {"run": "one"})
    assert (run.values["hold_out"], run.values["recency"]) == (0.3, 50.0)
    trainer = next(node for node in graph.nodes if node.name == "trainer")
    assert trainer.parameters(run.values)["hold_out"] == 0.3
    run.lock.close()
    for name in ("hold_out", "recency"):
        with pytest.raises(GraphError, match=f"{name}: got .*, but run 'one' began with"):
            open_run(graph, {"run": "one", name: "0.2"})


def test_a_run_that_a_graph_began_holds_no_episode_out(wm_train, tmp_path):
    open_run(find_graph("sim_metaworld"), {"run": "one", "seed": "5"}).lock.close()
    file = tmp_path / "runs" / "one" / "run.json"
    file.write_text(file.read_text().replace("mwm_cpu", "tiny"))
    with pytest.raises(UserError, match=r"--hold-out: got 0\.2, but run 'one' began with 0"):
        wm_train("--log", "a", "--eval-every", "3", "--hold-out", "0.2", "--steps", "3")
    with pytest.raises(UserError, match="--seed: got 1, but run 'one' began with 5"):
        wm_train("--log", "a", "--seed", "1", "--steps", "3")
    assert wm_train("--log", "a", "--steps", "3") == 0
    assert json.loads(file.read_text())["graph"] == "sim_metaworld"


def test_logs_of_different_tasks_are_refused_before_anything_is_written(wm_train, tmp_path):
    with LargeImagePoint() as robot:
        robot.spec = replace(robot.spec, task="elsewhere")
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "c", 2, 0)
    arguments = ("--log", "a", "--log", "c", "--model", "tiny", "--steps", "2")
    with pytest.raises(UserError, match="differ: task 'origin' and 'elsewhere'"):
        wm_train(*arguments)
    assert not (tmp_path / "runs").exists()
    assert wm_train(*arguments, "--allow-mixed") == 0
    assert wm_train("--steps", "3") == 0  # it stays allowed


SETTINGS = ("--set", "learner.agent_batch.batch=3", "--set", "model.kl.scale=0.3, model.gamma=0.9")
STORED_SETTINGS = "learner.agent_batch.batch=3,model.gamma=0.9,model.kl.scale=0.3"


def test_settings_of_the_preset_are_changed_kept_and_resumed(wm_train, configs, tmp_path):
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "26", *SETTINGS) == 0
    assert stored_arguments(tmp_path)["set"] == STORED_SETTINGS
    model, manifest = load_model(tmp_path / "runs" / "one" / "weights")
    assert (model.config.gamma, model.config.kl.scale) == (0.9, 0.3)
    assert manifest.settings["learner.agent_batch.batch"] == 3
    config = manifest.extra["config"]
    assert (config["model.gamma"], config["learner.actor.lr"]) == (0.9, TINY.learner.actor.lr)
    summary = make_training(tmp_path / "runs" / "one", tmp_path / "report")
    assert (summary["preset"], summary["set"]) == ("tiny", dict(manifest.settings))
    assert json.loads((tmp_path / "report/summary.json").read_text())["config"] == config
    assert wm_train("--steps", "28") == 0
    assert configs[1].settings == configs[0].settings
    with pytest.raises(UserError, match=r"--set: got model.gamma=0.8, but run 'one' began with le"):
        wm_train("--steps", "30", "--set", "model.gamma=0.8")


def test_settings_may_be_in_a_file_and_options_override_them(wm_train, configs, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "preset: tiny\nmodel: {gamma: 0.9, kl: {scale: 0.5}}\nlearner: {agent_batch: {batch: 3}}\n"
    )
    arguments = ("--log", "a", "--steps", "3", "--config", "c.yaml", "--set", "model.kl.scale=0.3")
    assert wm_train(*arguments) == 0
    assert (configs[0].model, stored_arguments(tmp_path)["set"]) == ("tiny", STORED_SETTINGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: other", "--model: got 'tiny', but c.yaml has preset 'other'"),
        ("model: {gama: 0.9}", "set: got 'model.gama'.*Did you mean 'model.gamma'"),
        ("- model", "--config: c.yaml: got list, expected"),
        ("model: {", "--config: got c.yaml, which cannot be read"),
        ("preset: nothing", "model"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_written(wm_train, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    model = () if "nothing" in text else ("--model", "tiny")
    with pytest.raises(UserError, match=message):
        wm_train("--log", "a", *model, "--config", "c.yaml")
    assert not (tmp_path / "runs").exists()


def test_a_graph_continues_with_the_settings_of_a_run(wm_train, tmp_path):
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "3", *SETTINGS) == 0
    (tmp_path / "runs/one/run.json").write_text(
        (tmp_path / "runs/one/run.json").read_text().replace('"tiny"', '"mwm_cpu"')
    )
    run = open_run(find_graph("sim_metaworld"), {"run": "one"})
    assert run.values["set"] == STORED_SETTINGS


def test_wrong_cameras_are_refused_before_anything_is_written(wm_train, tmp_path):
    for cameras, message in (
        ("top,side", "--camera: got top, side for model 'tiny', which sees one camera, expected"),
        ("top,top", "camera: got 'top,top', expected one name, or several different ones"),
    ):
        with pytest.raises(UserError, match=message):
            wm_train("--log", "a", "--model", "tiny", "--camera", cameras)
    assert not (tmp_path / "runs").exists()
