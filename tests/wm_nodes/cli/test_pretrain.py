"""APV's two phases by command: `wm pretrain` on logs without actions, then `wm train`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tensors import assert_same_tensors
from tests.wm_models.families.apv.apv_tiny import TINY, TINY_VIDEO
from tests.wm_nodes.tiny import record
from wm_datasets import LogReader, LogWriter
from wm_models.interface.preset import Sampling
from wm_models.registry import PRESETS
from wm_models.weights.store import load_model, read_manifest
from wm_nodes.cli import eval as evaluate
from wm_nodes.cli import pretrain, train
from wm_nodes.cli.report import make_training
from wm_nodes.errors import UserError
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import open_run
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.logs import TrainingLogs
from wm_nodes.training.setup import build_setup


def without_actions(log, out, camera="top", task="origin"):
    """Write the images of a log as plain video, which has no actions; return the new log."""
    with LogReader(log) as reader:
        shape = reader.spec.cameras["top"]
        spec = replace(
            reader.spec, cameras={camera: shape}, proprio=None, action=None, task=task,
            evaluation=False,
        )  # fmt: skip
        rows = reader.read_rows(reader.first, reader.length)
    with LogWriter(out, spec) as writer:
        for i in range(len(rows["stamp"])):
            own = {"image/top": f"image/{camera}"}
            row = {own.get(name, name): values[i] for name, values in rows.items()}
            writer.append({name: row[name] for name in spec.fields})
    return out


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Tiny presets of both phases; a log with actions, and the same without, in this folder."""
    monkeypatch.chdir(tmp_path)
    still = replace(TINY.learner.pretrained_parts, decay=0.0, hold=0)
    learner = replace(TINY.learner, prefill=0, pretrained_parts=still, sampling=Sampling())
    video = replace(TINY_VIDEO.learner, sampling=Sampling())
    monkeypatch.setitem(PRESETS, "apv", replace(TINY, learner=learner))
    monkeypatch.setitem(PRESETS, "apv_pretrain", replace(TINY_VIDEO, learner=video))
    monkeypatch.setattr(train.signal, "signal", lambda *arguments: None)
    record(tmp_path / "robot", 4)
    without_actions(tmp_path / "robot", tmp_path / "video")


def wm_pretrain(*words, log="video", model="apv", steps=2):
    logs = ["--log", log] if log else []
    pretrain.run([*logs, "--model", model, "--device", "cpu", "--steps", str(steps), *words])


def wm_train(*words, steps=2):
    train.run(["--model", "apv", "--device", "cpu", "--steps", str(steps), *words])


def stored(run):
    return json.loads((run / "run.json").read_text())


def video_setup(tmp_path, *places, **options):
    config = TrainingConfig(
        tmp_path / "batches", tuple((tmp_path / place, 1.0) for place in places),
        model="apv_pretrain", device="cpu", pace=False, **options,
    )  # fmt: skip
    logs = TrainingLogs(config)
    assert logs.open("apv_pretrain")
    return build_setup(config, logs, None, "cpu")


def test_a_log_without_actions_gives_the_batches_of_the_same_log_with_them(logs, tmp_path):
    free, acted = video_setup(tmp_path, "video"), video_setup(tmp_path, "robot")
    for _ in range(3):
        pair = [each.batches.draw(each.learner.batch_specs)["videos"] for each in (free, acted)]
        assert pair[0].keys() == {"image", "is_first"}
        assert_same_tensors(*pair)


def test_both_logs_give_the_same_weights(logs, tmp_path):
    wm_pretrain("--run", "free")
    wm_pretrain("--run", "acted", log="robot")
    free, acted = (load_model(tmp_path / "runs" / run / "weights")[0] for run in ("free", "acted"))
    assert_same_tensors(free.state_dict(), acted.state_dict())


def test_tasks_and_cameras_are_mixed_by_weight(logs, tmp_path):
    with LogReader("robot") as reader:
        assert list(reader.spec.cameras) == ["top"]
    without_actions(tmp_path / "robot", tmp_path / "other", camera="phone", task="wave")
    setup = video_setup(tmp_path, "robot", "other")
    which, _ = setup.batches.sampler.draw(2000, 3)
    assert np.mean(which) == pytest.approx(0.5, abs=0.05)
    assert setup.batches.draw(setup.learner.batch_specs)["videos"]["image"].shape[2:] == (64, 64, 3)


def two_cameras(tmp_path):
    """A log of two cameras, of which the second is black."""
    with LogReader(tmp_path / "video") as reader:
        shape = reader.spec.cameras["top"]
        spec = replace(reader.spec, cameras={"top": shape, "dark": shape})
        rows = reader.read_rows(reader.first, reader.length)
    with LogWriter(tmp_path / "two", spec) as writer:
        for i in range(len(rows["stamp"])):
            row = {name: rows[name][i] for name in rows if name in spec.fields}
            writer.append({**row, "image/dark": np.zeros(shape, np.uint8)})


def test_every_camera_named_is_a_video_of_its_own(logs, tmp_path):
    two_cameras(tmp_path)
    setup = video_setup(tmp_path, "two", "video", camera="top,dark")
    which, _ = setup.batches.sampler.draw(4000, 3)
    shares = np.bincount(which, minlength=3) / len(which)
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.04)
    image = setup.batches.draw({"videos": replace(setup.learner.config.batch, batch=40)})
    dark = (image["videos"]["image"].flatten(1) == 0).all(1)
    assert dark.any() and not dark.all()
    only_dark = video_setup(tmp_path, "two", camera="dark")
    assert not only_dark.batches.draw(only_dark.learner.batch_specs)["videos"]["image"].any()


def test_a_pretraining_run_resumes_exactly_and_keeps_its_options(logs, tmp_path):
    two_cameras(tmp_path)
    cameras = ("--camera", "top,dark", "--log", "two")
    wm_pretrain("--run", "whole", *cameras, steps=3)
    wm_pretrain("--run", "parts", *cameras, steps=1)
    wm_pretrain("--run", "parts", log="", steps=3)
    whole, parts = (load_model(tmp_path / "runs" / r / "weights")[0] for r in ("whole", "parts"))
    assert_same_tensors(whole.state_dict(), parts.state_dict())
    assert stored(tmp_path / "runs/parts")["graph"] == "pretrain"
    assert read_manifest(tmp_path / "runs/parts/weights").extra["camera"] == "top,dark"
    with pytest.raises(UserError, match="camera: got 'dark', but run parts learns from 'top,dark'"):
        wm_pretrain("--run", "parts", "--camera", "dark", log="", steps=4)
    with pytest.raises(UserError, match="--seed: got 1, but run 'parts' began with 0"):
        wm_pretrain("--run", "parts", "--seed", "1", log="", steps=4)


def test_metrics_evaluation_and_report_need_no_actions(logs, tmp_path):
    wm_pretrain("--run", "free", "--eval-every", "25", "--hold-out", "0.5", steps=25)
    table = (tmp_path / "runs/free/metrics/train.csv").read_text()
    assert "heldout/mse" in table and "wm/image_loss" in table
    summary = make_training(tmp_path / "runs/free", tmp_path / "report")
    assert summary["preset"] == "apv_pretrain" and summary["prediction"]["mse"] > 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_robot_begins_with_what_videos_taught_frozen_or_tuned(logs, tmp_path, frozen):
    wm_pretrain("--run", "videos")
    begins = ["--pretrained", "videos", "--log", "robot", "--run", "one"]
    wm_train(*begins, "--set", f"learner.af_frozen={frozen}")
    taught = load_model(tmp_path / "runs/videos/weights")[0]
    robot, manifest = load_model(tmp_path / "runs/one/weights")
    same = [
        all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
        for a, b in (
            (robot.encoder, taught.encoder), (robot.dynamics.af_rssm, taught.dynamics.rssm),
        )
    ]  # fmt: skip
    assert same == [frozen, frozen]
    assert manifest.extra["pretrained"]["preset"] == "apv_pretrain"
    assert manifest.metrics["wm/bonus"] >= 0  # the intrinsic bonus is part of the update


def test_the_choice_is_recorded_and_survives_a_resume(logs, tmp_path):
    wm_pretrain("--run", "videos")
    wm_pretrain("--run", "others", "--seed", "1")
    wm_train("--pretrained", "videos", "--log", "robot", "--run", "one")
    folder = str(tmp_path / "runs/videos/weights")
    assert stored(tmp_path / "runs/one")["arguments"]["pretrained"] == folder
    facts = read_manifest(tmp_path / "runs/one/weights").extra["pretrained"]
    wm_train("--run", "one", steps=3)
    wm_train("--run", "one", "--pretrained", "runs/videos", steps=4)
    assert read_manifest(tmp_path / "runs/one/weights").extra["pretrained"] == facts
    with pytest.raises(UserError, match=r"--pretrained: got others, but run 'one' began with"):
        wm_train("--run", "one", "--pretrained", "others", steps=5)
    wm_train("--log", "robot", "--run", "fresh")
    with pytest.raises(UserError, match="but run 'fresh' began with no pre-trained weights"):
        wm_train("--run", "fresh", "--pretrained", "videos", steps=5)


def test_what_cannot_be_begun_with_is_refused_in_one_line(logs, tmp_path):
    wm_pretrain("--run", "videos")
    wm_train("--log", "robot", "--run", "one")
    begin = ["--log", "robot", "--run", "new"]
    for words, message in (
        (["--pretrained", "nothing"], "--pretrained: got 'nothing', which holds no weights"),
        (["--pretrained", "one"], "weights of 'apv', expected those of a pre-training preset"),
        (["--pretrained", "videos", "--set", "model.rssm.deter=8"], "of the sizes of 'apv'"),
        (["--pretrained", "videos", "--model", "mwm_cpu"], "model 'mwm_cpu' has no pre-training"),
        (["--pretrained", "videos", "--set", "learner.pretrained=x"], "expected one of them"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            wm_train(*begin, *words)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs/new").exists()


def test_the_two_commands_do_not_continue_each_others_runs(logs):
    wm_pretrain("--run", "videos")
    wm_train("--log", "robot", "--run", "one")
    with pytest.raises(GraphError, match="got 'videos', which wm pretrain began"):
        wm_train("--run", "videos", "--log", "robot")
    with pytest.raises(GraphError, match="got 'one', which wm train began"):
        wm_pretrain("--run", "one", log="")
    with pytest.raises(GraphError, match="got 'videos', which wm pretrain began"):
        open_run(find_graph("sim_metaworld"), {"run": "videos"})


def test_only_models_of_videos_are_pretrained_and_only_from_images(logs, tmp_path):
    with pytest.raises(UserError, match="--model: got 'mwm_cpu'"):
        wm_pretrain(model="mwm_cpu")
    with LogReader("video") as reader:
        blind = replace(reader.spec, cameras={}, proprio=LogReader("robot").spec.proprio)
    LogWriter(tmp_path / "blind", blind).close()
    with pytest.raises(UserError, match="without images, expected a camera"):
        wm_pretrain(log="blind")


def graph_trainer(**arguments):
    graph = find_graph("sim_metaworld")
    run = open_run(graph, {"model": "apv", **arguments})
    run.lock.close()
    (trainer,) = [node for node in graph.nodes if node.name == "trainer"]
    return trainer.parameters(run.values)


def test_the_graph_passes_them_to_the_trainer_and_keeps_the_choice(logs, tmp_path):
    wm_pretrain("--run", "videos")
    folder = str(tmp_path / "runs/videos/weights")
    assert graph_trainer(run="g", pretrained="videos")["pretrained"] == folder
    assert graph_trainer(run="g")["pretrained"] == folder
    with pytest.raises(GraphError, match="pretrained: got 'other', but run 'g' began with"):
        graph_trainer(run="g", pretrained="other")
    with pytest.raises(GraphError, match="model 'mwm_cpu' has no pre-training"):
        graph_trainer(run="h", model="mwm_cpu", pretrained="videos")
    with pytest.raises(GraphError, match="learns from videos and does not act"):
        graph_trainer(run="h", model="apv_pretrain")


def test_weights_of_a_model_of_videos_do_not_act(logs):
    wm_pretrain("--run", "videos")
    with pytest.raises(UserError, match="'apv_pretrain', which learns from videos and does not"):
        evaluate.run(["--weights", "runs/videos/weights", "--episodes", "1"])
    with pytest.raises(GraphError, match="'apv_pretrain', which learns from videos and does not"):
        open_run(find_graph("sim_metaworld"), {"weights": "runs/videos/weights"})


def test_a_graph_continues_a_run_that_began_with_them(logs, tmp_path):
    wm_pretrain("--run", "videos")
    wm_train("--pretrained", "videos", "--log", "robot", "--run", "one")
    parameters = graph_trainer(run="one", task="reach-v3")
    assert parameters["pretrained"] == str(tmp_path / "runs/videos/weights")
