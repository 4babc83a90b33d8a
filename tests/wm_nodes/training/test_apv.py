"""Both phases of APV through the training loop: a run on images, then one that begins with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tensors import assert_same_tensors
from tests.wm_models.families.apv.apv_tiny import TINY, TINY_VIDEO
from tests.wm_nodes.tiny import record
from wm_models.errors import ModelError
from wm_models.interface.preset import Sampling
from wm_models.registry import PRESETS
from wm_models.weights.store import load_model, read_manifest
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.loop import Trainer


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    still = replace(TINY.learner.pretrained_parts, decay=0.0)
    learner = replace(TINY.learner, prefill=0, pretrained_parts=still, sampling=Sampling())
    video = replace(TINY_VIDEO.learner, sampling=Sampling())
    monkeypatch.setitem(PRESETS, "apv", replace(TINY, learner=learner))
    monkeypatch.setitem(PRESETS, "apv_pretrain", replace(TINY_VIDEO, learner=video))


def learned(folder, log, model, updates, **settings):
    config = TrainingConfig(
        folder, ((log, 1.0),), model=model, device="cpu", pace=False, publish_s=1e9,
        settings=settings,
    )  # fmt: skip
    trainer = Trainer(config)
    while trainer.progress.updates < updates:
        assert trainer.step()
    trainer.close()
    return folder / "weights"


def test_fine_tuning_begins_with_the_weights_of_pre_training(tmp_path):
    log = record(tmp_path / "log", 3)
    videos = learned(tmp_path / "videos", log, "apv_pretrain", 2)
    begins = {"learner.pretrained": str(videos)}
    robot = learned(tmp_path / "robot", log, "apv", 1, **begins)
    taught, tuned = load_model(videos)[0], load_model(robot)[0]
    assert_same_tensors(tuned.encoder.state_dict(), taught.encoder.state_dict())
    assert_same_tensors(tuned.dynamics.af_rssm.state_dict(), taught.dynamics.rssm.state_dict())
    facts = read_manifest(robot).extra["pretrained"]
    assert (facts["preset"], facts["step"]) == ("apv_pretrain", 2)

    learned(tmp_path / "robot", log, "apv", 2, **begins)  # goes on, and remembers
    assert read_manifest(robot).step == 2
    assert read_manifest(robot).extra["pretrained"] == facts


def test_weights_of_another_kind_are_refused(tmp_path):
    log = record(tmp_path / "log", 3)
    robot = learned(tmp_path / "robot", log, "apv", 1)
    with pytest.raises(ModelError, match="weights of 'apv', expected those of a pre-training"):
        learned(tmp_path / "other", log, "apv", 1, **{"learner.pretrained": str(robot)})
