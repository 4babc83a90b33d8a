"""`offline:=LOG:0.25`: demonstrations are mixed into the replay of every Dreamer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from tests.wm_nodes.tiny import LargeImagePoint, record
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.nodes.trainer import TrainerParams, training_config
from wm_nodes.training.config import TrainingError
from wm_nodes.training.logs import TrainingLogs
from wm_nodes.training.setup import build_setup

MODELS = (
    "dreamer_v2_cpu", "dreamer_v3_cpu", "dreamer_v3n_cpu", "mudreamer_cpu", "apv_cpu", "mwm_cpu",
)  # fmt: skip


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A function: the trainer's configuration as the graph's arguments begin it."""
    monkeypatch.chdir(tmp_path)

    def begin(offline, model="mwm_cpu"):
        graph = find_graph("sim_metaworld")
        run = open_run(graph, {"run": "one", "model": model, "offline": offline})
        (trainer,) = [node for node in graph.nodes if node.name == "trainer"]
        parameters = dict(trainer.parameters(run.values))
        run.lock.close()
        parameters["offline"] = tuple(parameters["offline"])
        known = TrainerParams.__dataclass_fields__
        return training_config(TrainerParams(**{k: v for k, v in parameters.items() if k in known}))

    return begin


@pytest.mark.parametrize("model", MODELS)
def test_a_quarter_of_the_windows_comes_from_a_log_of_weight_a_quarter(config, tmp_path, model):
    record(tmp_path / "runs/one/log", 4, size=64)
    record(tmp_path / "demos", 4, size=64, expert=True)
    made = config("demos:0.25", model)
    assert [share for _, share in made.logs] == [0.75, 0.25]
    logs = TrainingLogs(made)
    assert logs.open(model)
    setup = build_setup(made, logs, None, "cpu")
    which, _ = setup.batches.sampler.draw(4000, 3)
    assert np.mean(which == 1) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("offline", "shares"),
    [
        ("demos", [0.5, 0.5]),
        ("demos:0.5", [0.5, 0.5]),
        ("demos:0.2,play:0.1", [0.7, 0.2, 0.1]),
        ("demos:1,play:0.25", [0.5, 0.4, 0.1]),
    ],
)
def test_small_weights_are_shares_and_others_divide_half_of_the_windows(
    config, tmp_path, offline, shares
):
    for name in ("demos", "play"):
        record(tmp_path / name, 1)
    assert [share for _, share in config(offline).logs] == pytest.approx(shares)


def test_demonstrations_with_another_action_space_are_refused(config, tmp_path):
    record(tmp_path / "runs/one/log", 2)
    with LargeImagePoint() as robot:
        space = replace(robot.spec.action, low=(-2.0,), high=(2.0,))
        robot.spec = replace(robot.spec, action=space)
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "demos", 2, 0)
    with pytest.raises(TrainingError, match=r"log and .*demos differ: action space"):
        TrainingLogs(config("demos:0.25")).open("mwm_cpu")
