"""Images of a log of any size are resized to that of the model, pixel for pixel as in the acting
graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.wm_models.families.dino_wm.dino_tiny import TINY as TINY_DINO
from tests.wm_nodes.tiny import SIZE, TINY, LargeImagePoint, record
from wm_datasets import LogReader, LogWriter
from wm_models.encoders.conv import ConvConfig
from wm_models.registry import PRESETS
from wm_models.weights.store import read_manifest
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.in_process import LearnedPolicy
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.evaluation.open_loop import predict
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.loop import Trainer

LARGE = 224
CPU = PRESETS["dino_wm_cpu"]
DINO = replace(
    TINY_DINO,
    model=replace(
        TINY_DINO.model, encoder=ConvConfig(image_size=SIZE, channels=(4, 8, 8, 8), width=12)
    ),
)


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    quick = replace(CPU.learner, measure_updates=2, batch=4, encoder_batch=8)
    monkeypatch.setitem(PRESETS, "dino_wm_cpu", replace(CPU, learner=quick))
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(PRESETS, "dino_tiny", DINO)


def make_trainer(run, *logs, **changes):
    settings = {"model": "dino_tiny", "device": "cpu", "pace": False, "publish_s": 1e9} | changes
    return Trainer(TrainingConfig(run, tuple((log, 1.0) for log in logs), **settings))


def advance(trainer, updates):
    while trainer.progress.updates < updates:
        assert trainer.step()


def record_long(log, size, episodes=2):
    with LargeImagePoint(size=size, time_limit=24) as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, 0), log, episodes, 0)
    return log


def test_a_log_of_224_pixels_trains_dino_wm_cpu_at_64(tmp_path):
    log = record_long(tmp_path / "log", LARGE)
    trainer = make_trainer(tmp_path / "run", log, model="dino_wm_cpu")
    advance(trainer, 4)
    assert trainer.model.spec.obs_keys["image"] == (3, 64, 64)
    assert trainer.progress.phase == "world_model" and trainer.logs.resized_from == (LARGE, LARGE)
    batch = trainer.setup.batches.draw(trainer.learner.batch_specs)["windows"]["image"].numpy()
    assert batch.shape[2:] == (64, 64, 3)
    with LogReader(log) as reader:
        raw = reader.read("image/top", 0, reader.length)
    resized = {ImagePipeline(64, 64)(image).tobytes() for image in raw}
    assert all(image.tobytes() in resized for window in batch for image in window)


@pytest.mark.parametrize("size", [LARGE, 48, 24])
def test_training_and_the_acting_agent_have_the_same_pixels(tmp_path, monkeypatch, size):
    log = record(tmp_path / "log", 4, size=size)
    trainer = make_trainer(tmp_path / "run", log)
    advance(trainer, 4)
    trainer.close()
    encoded = []
    encode = Encoder.encode

    def record_and_encode(self, weights, images, proprio=None):
        encoded.append(images["top"])
        return encode(self, weights, images, proprio)

    monkeypatch.setattr(Encoder, "encode", record_and_encode)
    with LargeImagePoint(size=size) as robot, LogReader(log) as reader:
        policy = LearnedPolicy.load(tmp_path / "run/weights", robot.spec, planner="cem",
                                    device="cpu", goal=None)  # fmt: skip
        observation = robot.reset(0)
        for row in range(5):
            image = reader.read("image/top", row, row + 1)[0]
            try:
                policy.act(replace(observation, images={"top": image}))
            except Exception as error:  # it has no goal; only the encoded image matters here
                assert "expected one with a goal" in str(error)
    learned = trainer.logs.readers[0].read("image/top", 0, 5)
    assert len(encoded) == 5 and encoded[0].shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(learned, np.stack(encoded))


def test_open_loop_predictions_have_the_same_pixels(tmp_path):
    log = record(tmp_path / "log", 2, size=24)  # smaller than the model's images
    trainer = make_trainer(tmp_path / "run", log)
    advance(trainer, 4)
    with LogReader(log) as reader:
        rows = {"image": "image/top", "action": "action", "proprio": "proprio"}
        rows = {name: reader.read(field, 0, 9) for name, field in rows.items()}
    truth = predict(trainer.model, rows, context=2).truth
    expected = [ImagePipeline(SIZE, SIZE)(image) for image in rows["image"][::2]]
    np.testing.assert_array_equal(truth, np.stack(expected))


def test_logs_of_several_sizes_are_mixed_and_evaluated(tmp_path):
    large, small = (record_long(tmp_path / f"log{s}", s, 6) for s in (LARGE, SIZE))
    trainer = make_trainer(tmp_path / "run", large, small, eval_every=4, hold_out=0.4)
    advance(trainer, 4)
    assert np.isfinite(trainer.evaluation["heldout/mse"])
    with_cache = make_trainer(tmp_path / "other", large, small, resident_bytes=1 << 24)
    advance(with_cache, 4)
    assert with_cache.setup.batches.draw(with_cache.learner.batch_specs)["windows"]["image"].shape[
        2:
    ] == (
        SIZE,
        SIZE,
        3,
    )


def two_cameras(path):
    """A log of a front and a wrist camera, neither of the model's size."""
    source = record(path.with_name("one"), 6, size=48)
    with LogReader(source) as reader:
        spec = replace(reader.spec, cameras={"front": (48, 48, 3), "wrist": (40, 40, 3)})
        with LogWriter(path, spec) as writer:
            for index in range(reader.length):
                row = {k: v[0] for k, v in reader.read_rows(index, index + 1).items()}
                image = row.pop("image/top")
                writer.append(row | {"image/front": image, "image/wrist": 255 - image[:40, :40]})
    return path


def test_of_several_cameras_one_is_chosen_and_kept(tmp_path):
    log = two_cameras(tmp_path / "log")
    with pytest.raises(TrainingError, match=r"'front' of 48x48, 'wrist' of 40x40.*--camera"):
        make_trainer(tmp_path / "run", log).step()
    with pytest.raises(TrainingError, match="got 'side', expected a camera of the log"):
        make_trainer(tmp_path / "run", log, camera="side").step()
    trainer = make_trainer(tmp_path / "run", log, camera="wrist")
    advance(trainer, 4)
    trainer.close()
    assert read_manifest(tmp_path / "run/weights").extra["camera"] == "wrist"
    resumed = make_trainer(tmp_path / "run", log)
    advance(resumed, 5)
    assert resumed.setup.cameras == ("wrist",)
    with pytest.raises(TrainingError, match="got 'front', but run run learns from 'wrist'"):
        make_trainer(tmp_path / "run", log, camera="front").step()


def test_resuming_at_another_size_is_exact(tmp_path):
    log = record(tmp_path / "log", 4, size=48)
    uninterrupted = make_trainer(tmp_path / "whole", log, model="tiny")
    advance(uninterrupted, 6)
    resumed = make_trainer(tmp_path / "part", log, model="tiny")
    advance(resumed, 3)
    resumed.close()
    resumed = make_trainer(tmp_path / "part", log, model="tiny")
    advance(resumed, 6)
    assert resumed.metrics == uninterrupted.metrics
