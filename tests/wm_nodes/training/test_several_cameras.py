"""A model of two cameras: trained on a log of both, evaluated, and refused others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.wm_nodes import two_cameras
from tests.wm_nodes.tiny import TINY as TINY_MWM
from tests.wm_nodes.two_cameras import CAMERAS, TINY, TwoEyedPoint
from wm_datasets import LogReader
from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment
from wm_models.registry import PRESETS
from wm_models.weights.manifest import WeightsError
from wm_models.weights.store import load_model, read_manifest
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.in_process import NEEDS, LearnedPolicy
from wm_nodes.agent.weights import load_weights
from wm_nodes.errors import MessageError, UserError
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.evaluation.open_loop import predict
from wm_nodes.training.batches import log_fields
from wm_nodes.training.camera import choose_cameras
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.loop import Trainer


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    monkeypatch.setitem(PRESETS, "two_eyed", TINY)
    monkeypatch.setitem(PRESETS, "tiny", TINY_MWM)


def make_trainer(run, log, **changes):
    settings = {"model": "two_eyed", "device": "cpu", "pace": False, "publish_s": 1e9} | changes
    return Trainer(TrainingConfig(run, ((log, 1.0),), **settings))


def advance(trainer, updates):
    while trainer.progress.updates < updates:
        assert trainer.step()


def saved_run(tmp_path, **changes):
    log = two_cameras.record(tmp_path / "log", size=24)  # neither has the model's size
    trainer = make_trainer(tmp_path / "run", log, camera="front,wrist", **changes)
    advance(trainer, 3)
    trainer.close()
    return log, trainer


@pytest.mark.parametrize("resident_bytes", [0, 1 << 20])
def test_every_batch_has_the_images_of_both_cameras_of_the_same_rows(tmp_path, resident_bytes):
    log = two_cameras.record(tmp_path / "log")
    trainer = make_trainer(
        tmp_path / "run", log, camera="wrist,front", resident_bytes=resident_bytes
    )
    advance(trainer, 1)
    assert trainer.model.spec.image_keys == ("image/wrist", "image/front")
    batch = trainer.setup.batches.draw(trainer.learner.batch_specs)["agent"]
    assert "image" not in batch
    front, wrist = batch["image/front"], batch["image/wrist"]
    assert front.shape == wrist.shape == (2, 5, 16, 16, 3) and front.any()
    assert wrist.equal(front.flip(3) // 2 + 60)


def test_the_weights_know_their_cameras_in_order_and_a_resumed_run_keeps_them(tmp_path):
    log, trainer = saved_run(tmp_path)
    assert trainer.logs.resized_from == (24, 24)
    manifest = read_manifest(tmp_path / "run/weights")
    assert manifest.extra["camera"] == "front,wrist"
    assert manifest.body["cameras"] == ["front", "wrist"]
    model, _ = load_model(tmp_path / "run/weights")
    assert model.spec.cameras == CAMERAS
    resumed = make_trainer(tmp_path / "run", log)
    advance(resumed, 4)
    assert resumed.setup.cameras == CAMERAS
    for other in ("wrist,front", "front"):
        with pytest.raises(TrainingError, match=f"got '{other}', but run run learns from 'front,"):
            make_trainer(tmp_path / "run", log, camera=other).step()


def test_weights_to_begin_with_decide_the_cameras(tmp_path):
    log, _ = saved_run(tmp_path)
    weights = tmp_path / "run/weights"
    begun = make_trainer(tmp_path / "next", log, weights=weights)
    advance(begun, 1)
    assert begun.setup.cameras == CAMERAS
    for other in ("wrist,front", "wrist"):
        with pytest.raises(TrainingError, match=f"got {other}, expected front,wrist in this order"):
            make_trainer(tmp_path / "other", log, weights=weights, camera=other).step()
    one = two_cameras.save_weights(tmp_path / "one", Embodiment.unit(1), "front")
    with pytest.raises(TrainingError, match="got front,wrist, expected front in this order"):
        make_trainer(tmp_path / "other", log, weights=one, camera="front,wrist").step()


def test_cameras_that_a_log_lacks_and_models_of_one_camera_are_refused(tmp_path):
    log = two_cameras.record(tmp_path / "log")
    with pytest.raises(TrainingError, match="got 'side', expected a camera of the log: 'front'"):
        make_trainer(tmp_path / "run", log, camera="front,side").step()
    with pytest.raises(TrainingError, match="got 'front,front', expected one name, or several"):
        make_trainer(tmp_path / "run", log, camera="front,front").step()
    with pytest.raises(ModelError, match="got front, wrist for model 'tiny', which sees one"):
        make_trainer(tmp_path / "run", log, model="tiny", camera="front,wrist").step()
    with pytest.raises(TrainingError, match="got 'wrist', expected a camera of the log"):
        choose_cameras(
            {"front": (16, 16, 3)},
            (16, 16),
            requested=(),
            trained_with=CAMERAS,
            resumed_run="",
            model="two_eyed",
        )


def test_one_camera_of_two_is_learned_from_as_before(tmp_path):
    log = two_cameras.record(tmp_path / "log")
    trainer = make_trainer(tmp_path / "run", log, camera="wrist")
    advance(trainer, 1)
    trainer.close()
    assert trainer.model.spec.image_keys == ("image",)
    assert "cameras" not in read_manifest(tmp_path / "run/weights").body
    assert log_fields(frozenset({"image"}), ("wrist",)) == {"image": "image/wrist"}


def test_held_out_episodes_and_predictions_show_both_cameras(tmp_path):
    log = two_cameras.record(tmp_path / "log", 12)
    trainer = make_trainer(tmp_path / "run", log, camera="front,wrist", eval_every=2, hold_out=0.4)
    advance(trainer, 2)
    assert np.isfinite(trainer.evaluation["heldout/mse"])
    with LogReader(log) as reader:
        fields = {"image/front": "image/front", "image/wrist": "image/wrist", "action": "action"}
        rows = {name: reader.read(field, 0, 8) for name, field in fields.items()}
    prediction = predict(trainer.model, rows, context=2)
    both = np.concatenate([rows["image/front"], rows["image/wrist"]], 1)
    np.testing.assert_array_equal(prediction.truth, both)
    assert prediction.predicted.shape == (8, 32, 16, 3)


# In one process, as `wm eval`


@pytest.fixture
def folder(tmp_path):
    return two_cameras.save_weights(tmp_path / "weights")


def test_an_agent_sees_both_cameras_and_repeats_its_episodes(folder):
    weights = load_weights(folder, NEEDS, torch.device("cpu"))
    with TwoEyedPoint() as robot:
        policy = LearnedPolicy(weights, robot.spec)
        assert policy.cameras == CAMERAS
        seen = robot.reset(0).images
        tokens = Encoder().encode(weights, seen)
        for camera in CAMERAS:
            other = Encoder().encode(weights, {**seen, camera: 255 - seen[camera]})
            assert not other.equal(tokens)

    def rows():
        with TwoEyedPoint() as robot:
            return evaluate(robot, LearnedPolicy(weights, robot.spec), 2, seed=1).rows

    assert len(rows()) == 2 and rows() == rows()


def test_an_observation_without_one_of_the_images_is_refused(folder):
    weights = load_weights(folder, NEEDS, torch.device("cpu"))
    image = np.zeros((16, 16, 3), np.uint8)
    for seen in ({"front": image}, {"front": image, "wrist": image[:8]}, image, None):
        with pytest.raises(MessageError, match=r"image/\w+: got .*, expected \(16, 16, 3\)"):
            Encoder().encode(weights, seen)


def test_other_cameras_than_those_of_the_weights_are_refused(folder, tmp_path):
    with TwoEyedPoint() as robot:
        with pytest.raises(UserError, match="got wrist,front, expected front,wrist in this order"):
            LearnedPolicy.load(folder, robot.spec, device="cpu", camera="wrist,front")
        with pytest.raises(UserError, match="got front, expected front,wrist in this order"):
            LearnedPolicy.load(folder, robot.spec, device="cpu", camera="front")
        one = two_cameras.save_weights(tmp_path / "one", Embodiment.unit(1), "front")
        with pytest.raises(UserError, match="got front,wrist, expected a single camera"):
            LearnedPolicy.load(one, robot.spec, device="cpu", camera="front,wrist")


def test_weights_whose_entries_name_other_cameras_than_their_files_hold_are_refused(tmp_path):
    folder = two_cameras.save_weights(tmp_path / "weights")
    file = next(folder.glob("0*/manifest.json"))
    file.write_text(file.read_text().replace('"cameras"', '"camera"'))
    with pytest.raises(WeightsError, match="body entry 'camera'"):
        load_model(folder)
