"""What changes what is learned is fixed in run.json: a run of `wm train` that goes on keeps it."""

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

BEGUN = ["--eval-every", "3", "--hold-out", "0.3", "--seed", "3", "--recency", "50"]


@pytest.fixture
def configs(monkeypatch):
    """Every configuration that learning is started with."""
    found = []
    begin = Trainer.__init__

    def noted(self, config, *rest, **more):
        found.append(config)
        begin(self, config, *rest, **more)

    monkeypatch.setattr(Trainer, "__init__", noted)
    return found


@pytest.fixture
def wm_train(tmp_path, monkeypatch):
    """Run `wm train WORDS` in this process, on tiny models, in a folder with logs a and b."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(PRESETS, "other", replace(TINY, name="other"))
    monkeypatch.setattr(train, "MODELS", ("tiny", "other"))
    monkeypatch.setattr(train.signal, "signal", lambda *given: None)
    record(tmp_path / "a", 20)
    record(tmp_path / "b", 3, seed=1)

    def run(*words):
        return train.run(["--run", "one", "--device", "cpu", *words])

    return run


@pytest.fixture
def begun(wm_train, tmp_path):
    """The same, and a run has begun on log a with held-out episodes."""
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "6", *BEGUN) == 0
    return wm_train


def told(tmp_path):
    return json.loads((tmp_path / "runs" / "one" / "run.json").read_text())["arguments"]


def test_run_json_has_all_that_changes_what_is_learned(begun, tmp_path):
    assert told(tmp_path) == {
        "model": "tiny",
        "seed": 3,
        "recency": 50.0,
        "hold_out": 0.3,
        "allow_mixed": False,
        "set": "",
        "logs": [f"{tmp_path / 'a'}:1"],
    }


@pytest.mark.parametrize("log", [[], ["--log", "a"]])
def test_a_run_goes_on_with_what_it_began_with(begun, configs, tmp_path, log):
    before = told(tmp_path)
    assert begun(*log, "--steps", "9") == 0
    (config,) = configs
    assert (config.hold_out, config.seed, config.recency) == (0.3, 3, 50.0)
    assert (config.model, config.eval_every) == ("tiny", 0)
    assert config.logs == ((config.logs[0][0], 1.0),) and config.logs[0][0].name == "a"
    assert told(tmp_path) == before


def test_held_out_episodes_are_never_learned_from_whatever_is_given_later(begun, monkeypatch):
    seen = []
    draw = Batches.draw

    def noted(self, specs):
        seen.append(self.sampler)
        return draw(self, specs)

    monkeypatch.setattr(Batches, "draw", noted)
    assert begun("--steps", "9") == 0
    sampler = seen[-1]
    with LogReader("a") as reader:
        held = reader.episodes[HeldOut(0.3).held(reader.episodes)]
        assert len(held) > 1
        spans = [(start, start + length) for start, length in held[["start", "length"]].tolist()]
        for _ in range(200):
            _, rows = sampler.draw(8, 3)
            for row in rows.flatten().tolist():
                assert not any(low <= row < high for low, high in spans)


@pytest.mark.parametrize(
    ("words", "message"),
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
def test_another_value_is_refused_with_both_and_the_way_out(begun, tmp_path, words, message):
    before = (tmp_path / "runs" / "one" / "run.json").read_text()
    version = WeightStore(tmp_path / "runs" / "one" / "weights").latest()
    with pytest.raises(UserError, match=rf"{message}.*start another run"):
        begun(*words, "--steps", "9")
    assert (tmp_path / "runs" / "one" / "run.json").read_text() == before
    assert WeightStore(tmp_path / "runs" / "one" / "weights").latest() == version


def test_the_same_values_given_again_are_no_contradiction(begun):
    assert begun("--log", "a", "--model", "tiny", "--steps", "9", *BEGUN) == 0


def test_a_run_that_holds_nothing_out_has_nothing_to_evaluate_on(wm_train):
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "3") == 0
    with pytest.raises(UserError, match=r"learns from every episode.*--eval-episodes"):
        wm_train("--eval-every", "3", "--steps", "6")
    with pytest.raises(UserError, match=r"--hold-out: got 0.2, but run 'one' began with 0"):
        wm_train("--eval-every", "3", "--hold-out", "0.2", "--steps", "6")


def test_a_run_of_an_older_version_goes_on_as_it_is_told(begun, configs, tmp_path):
    file = tmp_path / "runs" / "one" / "run.json"
    content = json.loads(file.read_text())
    del content["arguments"]["hold_out"], content["arguments"]["recency"]
    file.write_text(json.dumps(content))
    assert begun("--eval-every", "3", "--hold-out", "0.2", "--steps", "9") == 0
    assert configs[-1].hold_out == 0.2 and told(tmp_path)["hold_out"] == 0.2


def test_a_run_of_an_older_version_does_not_drop_its_hold_out_silently(begun, tmp_path):
    file = tmp_path / "runs" / "one" / "run.json"
    content = json.loads(file.read_text())
    del content["arguments"]["hold_out"], content["arguments"]["recency"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"--hold-out: run 'one' held episodes out.*--eval-every N"):
        begun("--steps", "9")
    graph = find_graph("sim_metaworld")
    with pytest.raises(GraphError, match="hold_out: got none, but run 'one' held episodes out"):
        open_run(graph, {"run": "one"})
    run = open_run(graph, {"run": "one", "hold_out": "0.3"})
    assert run.values["hold_out"] == 0.3
    run.lock.close()


def test_weights_never_lie_in_a_run_without_run_json(wm_train, tmp_path, monkeypatch):
    save = WeightStore.save

    def checked(self, *given):
        assert (tmp_path / "runs" / "one" / "run.json").exists()
        return save(self, *given)

    monkeypatch.setattr(WeightStore, "save", checked)
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "1") == 0


def test_a_graph_that_goes_on_keeps_them_held_out(begun, tmp_path):
    graph = find_graph("sim_metaworld")
    run = open_run(graph, {"run": "one"})
    assert (run.values["hold_out"], run.values["recency"]) == (0.3, 50.0)
    trainer = next(node for node in graph.nodes if node.name == "trainer")
    assert trainer.parameters(run.values)["hold_out"] == 0.3
    run.lock.close()
    for name in ("hold_out", "recency"):
        with pytest.raises(GraphError, match=f"{name}: got .*, but run 'one' began with"):
            open_run(graph, {"run": "one", name: "0.2"})


def test_a_run_that_a_graph_began_holds_nothing_out(wm_train, tmp_path):
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
    words = ("--log", "a", "--log", "c", "--model", "tiny", "--steps", "2")
    with pytest.raises(UserError, match="differ: task 'origin' and 'elsewhere'"):
        wm_train(*words)
    assert not (tmp_path / "runs").exists()
    assert wm_train(*words, "--allow-mixed") == 0
    assert wm_train("--steps", "3") == 0  # it stays allowed


CHANGED = ("--set", "learner.agent_batch.batch=3", "--set", "model.kl.scale=0.3, model.gamma=0.9")
WRITTEN = "learner.agent_batch.batch=3,model.gamma=0.9,model.kl.scale=0.3"


def test_settings_of_the_preset_are_changed_kept_and_resumed(wm_train, configs, tmp_path):
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "26", *CHANGED) == 0
    assert told(tmp_path)["set"] == WRITTEN
    model, manifest = load_model(tmp_path / "runs" / "one" / "weights")
    assert (model.config.gamma, model.config.kl.scale) == (0.9, 0.3)
    assert manifest.settings["learner.agent_batch.batch"] == 3
    whole = manifest.extra["config"]
    assert (whole["model.gamma"], whole["learner.actor.lr"]) == (0.9, TINY.learner.actor.lr)
    summary = make_training(tmp_path / "runs" / "one", tmp_path / "report")
    assert (summary["preset"], summary["set"]) == ("tiny", dict(manifest.settings))
    assert json.loads((tmp_path / "report/summary.json").read_text())["config"] == whole
    assert wm_train("--steps", "28") == 0
    assert configs[1].settings == configs[0].settings
    with pytest.raises(UserError, match=r"--set: got model.gamma=0.8, but run 'one' began with le"):
        wm_train("--steps", "30", "--set", "model.gamma=0.8")


def test_settings_may_stand_in_a_file_and_options_come_on_top(wm_train, configs, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "preset: tiny\nmodel: {gamma: 0.9, kl: {scale: 0.5}}\nlearner: {agent_batch: {batch: 3}}\n"
    )
    words = ("--log", "a", "--steps", "3", "--config", "c.yaml", "--set", "model.kl.scale=0.3")
    assert wm_train(*words) == 0
    assert (configs[0].model, told(tmp_path)["set"]) == ("tiny", WRITTEN)


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


def test_a_graph_goes_on_with_the_settings_that_a_run_learned_by(wm_train, tmp_path):
    assert wm_train("--log", "a", "--model", "tiny", "--steps", "3", *CHANGED) == 0
    (tmp_path / "runs/one/run.json").write_text(
        (tmp_path / "runs/one/run.json").read_text().replace('"tiny"', '"mwm_cpu"')
    )
    run = open_run(find_graph("sim_metaworld"), {"run": "one"})
    assert run.values["set"] == WRITTEN
