"""The trainer node: learns as the log grows, announces whole versions, stops in order, resumes."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from tests.wm_nodes.tiny import TINY, record
from wm_models.registry import PRESETS
from wm_models.weights.store import WeightStore, read_manifest
from wm_nodes.cli import train as train_command
from wm_nodes.errors import UserError
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.nodes.trainer import TrainerNode
from wm_nodes.ros import messages, topics
from wm_nodes.training.config import TrainingError
from wm_nodes.training.loop import Trainer


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture
def train(graph, tmp_path):
    """Return a function that starts the node on a run, and what it announces."""
    announcements = graph.subscribe(topics.ANNOUNCEMENTS, messages.announcement_from_msg)

    def start(**parameters):
        defaults = {"run": str(tmp_path), "model": "tiny", "device": "cpu", "publish_s": 0.1}
        return graph.add(TrainerNode, **{**defaults, **parameters})

    return start, announcements


def test_it_waits_for_a_log_and_learns_when_there_is_one(graph, train, tmp_path) -> None:
    start, announcements = train
    node = start()
    graph.spin(0.5)
    node.diagnose()
    assert node.diagnostics.facts["phase"] == "waiting"
    record(tmp_path / "log", 5)
    graph.until(lambda: announcements)
    assert announcements[0].preset == "tiny" and announcements[0].step >= 5
    assert read_manifest(announcements[0].path).digest == announcements[0].sha256


def test_it_keeps_the_ratio_of_decisions_to_updates(graph, train, tmp_path) -> None:
    record(tmp_path / "log", 5)  # 45 rows
    start, _ = train
    pace = graph.subscribe(topics.PACE)
    node = start()
    graph.until(lambda: node._learning.progress.updates == 10)
    graph.spin(0.5)
    assert node._learning.progress.updates == 10  # the log has not grown
    graph.until(lambda: pace and pace[-1].data == 20 + 5 * (10 - 5))
    record(tmp_path / "log", 5, seed=1)
    graph.until(lambda: node._learning.progress.updates > 10)


def test_it_ends_after_its_steps(graph, train, tmp_path) -> None:
    record(tmp_path / "log", 5)
    start, announcements = train
    node = start(steps=8, pace=False)
    graph.until(node.finished.done)
    graph.until(lambda: announcements and announcements[-1].step == 8)
    assert node.exit_code == 0 and node.diagnostics.facts["done"] == "true"


def test_stopped_it_saves_and_started_again_it_announces_and_goes_on(
    graph, train, tmp_path
) -> None:
    record(tmp_path / "log", 5)
    start, announcements = train
    node = start(pace=False, publish_s=1000.0)
    graph.until(lambda: node._learning.progress.updates > 9)
    graph.remove(node)
    graph.until(lambda: len(announcements) > 1)
    newest = announcements[-1]
    assert newest.step == node._learning.progress.updates
    del announcements[:]
    resumed = start(pace=False, publish_s=1000.0)
    graph.until(lambda: resumed._learning.progress.updates > newest.step)
    graph.until(lambda: announcements)
    assert announcements[0] == newest


def test_a_run_learned_off_line_goes_on_with_its_graph(graph, tmp_path, monkeypatch) -> None:
    """`wm train --run one`, then the trainer of sim_metaworld as `run:=one` starts it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "mwm_cpu", replace(TINY, name="mwm_cpu"))
    monkeypatch.setattr(train_command.signal, "signal", lambda *_: None)
    record(tmp_path / "play", 5)
    arguments = ["--log", "play", "--run", "one", "--model", "mwm_cpu", "--device", "cpu"]
    assert train_command.run([*arguments, "--steps", "8"]) == 0
    store = WeightStore(tmp_path / "runs" / "one" / "weights")
    offline = store.latest()
    assert offline is not None and read_manifest(store.path(offline)).step == 8

    sim = find_graph("sim_metaworld")
    run = open_run(sim, {"run": "one"})
    (trainer,) = [node for node in sim.nodes if node.name == "trainer"]
    node = graph.add(TrainerNode, **{**trainer.parameters(run.values), "device": "cpu"})

    def learned_online() -> bool:
        record(run.path / "log", 1, seed=1)  # the robot acts: updates follow its steps
        graph.spin(0.1)
        return node._learning.progress.updates > 8

    graph.until(learned_online)
    graph.remove(node)
    run.lock.close()
    online = read_manifest(store.path(store.latest()))
    assert online.step > 8 and online.parent == offline


def test_a_log_of_another_image_size_is_learned_from(graph, train, tmp_path) -> None:
    record(tmp_path / "log", 5, size=16)
    start, announcements = train
    start()
    graph.until(lambda: announcements)


@pytest.mark.parametrize("parameters", [{"model": "tinyy"}, {"device": "cuda:99"}])
def test_a_wrong_parameter_is_refused_at_once(train, parameters) -> None:
    with pytest.raises(UserError):
        train[0](**parameters)


def test_divergence_ends_it_so_that_the_launcher_starts_it_again(
    graph, train, tmp_path, monkeypatch
) -> None:
    def diverge(self):
        raise TrainingError("learning diverged") from FloatingPointError("loss became nan")

    monkeypatch.setattr(Trainer, "step", diverge)
    node = train[0]()
    graph.until(node.finished.done)
    assert node.exit_code == 1
