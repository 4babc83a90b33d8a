"""Training of a model with a frameskip and proprioception: its robot is measured once and kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.tensors import assert_same_tensors
from tests.wm_models.families.dino_wm.dino_tiny import TINY
from tests.wm_nodes.tiny import SIZE, record
from wm_datasets import LogReader
from wm_models.encoders.conv import ConvConfig
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.embodiment import Embodiment
from wm_models.registry import PRESETS
from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import WeightStore, load_model, read_manifest
from wm_nodes.evaluation.held_out import HeldOut, evaluate_held_out
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.embodiment_stats import measure_embodiment
from wm_nodes.training.loop import Trainer
from wm_nodes.viz.run_report import ReportSettings, write_report

DINO = replace(
    TINY,
    model=replace(TINY.model, encoder=ConvConfig(image_size=SIZE, channels=(4, 8, 8, 8), width=12)),
)


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    monkeypatch.setitem(PRESETS, "dino_tiny", DINO)


@pytest.fixture
def log(tmp_path):
    return record(tmp_path / "log", 6)


def make_trainer(folder, log, **changes):
    settings = {"model": "dino_tiny", "device": "cpu", "pace": False, "publish_s": 1e9} | changes
    return Trainer(TrainingConfig(folder, ((log, 1.0),), **settings))


def advance(trainer, updates):
    while trainer.progress.updates < updates:
        assert trainer.step()


def state(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def test_phases_and_resuming_bit_for_bit(tmp_path, log):
    uninterrupted = make_trainer(tmp_path / "whole", log)
    phases = []
    while uninterrupted.progress.updates < 9:
        phases.append(uninterrupted.progress.phase)
        assert uninterrupted.step()
    assert phases == ["waiting", "encoder", "scale", *["world_model"] * 6]
    for stop in (1, 6):
        resumed = make_trainer(tmp_path / "part", log)
        advance(resumed, stop)
        resumed.close()
    resumed = make_trainer(tmp_path / "part", log)
    advance(resumed, 9)
    actual, expected = state(resumed), state(uninterrupted)
    assert_same_tensors(actual, expected)
    assert resumed.metrics == uninterrupted.metrics


def test_the_robot_is_measured_once_and_kept_in_the_weights(tmp_path, log):
    first = make_trainer(tmp_path / "run", log)
    advance(first, 4)
    first.close()
    with LogReader(log) as reader:
        rows = slice(reader.first, reader.length)
        actions = reader.read("action", rows.start, rows.stop)
        executed = actions[~reader.read("is_last", rows.start, rows.stop)]
        proprio = reader.read("proprio", rows.start, rows.stop)
        spec = reader.spec
    embodiment = read_manifest(tmp_path / "run/weights").embodiment
    np.testing.assert_allclose(embodiment.action_mean, executed.mean(0), atol=1e-6)
    np.testing.assert_allclose(embodiment.proprio_std, proprio.std(0), rtol=1e-5)
    assert (embodiment.action_low, embodiment.action_high) == (spec.action.low, spec.action.high)
    assert embodiment.period_s == spec.control_period_s

    record(log, 3, seed=9)  # more to learn from: the scale of numbers stays
    resumed = make_trainer(tmp_path / "run", log)
    advance(resumed, 5)
    assert resumed.setup.embodiment == embodiment
    other = make_trainer(tmp_path / "other", log, weights=tmp_path / "run/weights")
    advance(other, 3)
    assert other.setup.embodiment == embodiment and other.progress.phase == "world_model"
    model, _ = load_model(tmp_path / "run/weights")
    assert model.embodiment == embodiment


def test_actions_are_learned_in_the_model_s_units(tmp_path, log):
    trainer = make_trainer(tmp_path / "run", log)
    advance(trainer, 3)
    batches = trainer.setup.batches
    batches.load_state_dict(before := batches.state_dict())
    specs = trainer.learner.batch_specs
    batch = batches.draw(specs)["windows"]
    batches.load_state_dict(before)
    raw = batches.sampler.sample(specs["windows"].batch, specs["windows"].length)
    expected = (raw["action"] - trainer.setup.embodiment.action_mean) / np.array(
        trainer.setup.embodiment.action_std
    )
    np.testing.assert_allclose(batch["action"], expected, atol=1e-5)
    np.testing.assert_array_equal(batch["proprio"], raw["proprio"])


def test_an_unbounded_robot_has_the_range_of_its_actions(log):
    class Unbounded(LogReader):
        @property
        def spec(self):
            log_spec = super().spec
            action = log_spec.action
            wide = replace(action, low=(-np.inf,) * len(action), high=(np.inf,) * len(action))
            return replace(log_spec, action=wide)

    with Unbounded(log) as reader:
        actions = reader.read("action", reader.first, reader.length)
        embodiment = measure_embodiment([reader])
    np.testing.assert_allclose(
        [embodiment.action_low[0], embodiment.action_high[0]], [actions.min(), actions.max()]
    )
    assert isinstance(embodiment, Embodiment)


def test_another_robot_s_weights_are_refused(tmp_path, log):
    first = make_trainer(tmp_path / "run", log)
    advance(first, 3)
    first.close()
    manifest = tmp_path / "run/weights" / f"{first.progress.version:010d}" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"action_dim": 1', '"action_dim": 4'))
    with pytest.raises(WeightsError, match="got a body with 1 actions, and action_dim 4"):
        make_trainer(tmp_path / "other", log, weights=tmp_path / "run/weights").step()


def test_held_out_evaluation_and_reports_use_the_frameskip(tmp_path, log):
    trainer = make_trainer(tmp_path / "run", log)
    advance(trainer, 4)
    with LogReader(log) as reader:
        figures = evaluate_held_out(
            trainer.model, [reader], ("top",), HeldOut(0.5), windows=2, length=4, context=2
        )
        assert set(figures) == {"heldout/mse", "heldout/mse_frozen"}
        assert all(np.isfinite(value) for value in figures.values())
        settings = ReportSettings(frames=4, context=2)
        summary = write_report(log, tmp_path / "report", model=trainer.model, settings=settings)
    assert summary["prediction"]["imagined_frames"] == 2
    assert ActionAdapter.of(trainer.model).frameskip == 2


def test_settings_of_weights_are_kept_in_continued_training(tmp_path, log):
    """Weights that differ from their preset (imported ones may) are trained on, and resumed, as
    they are."""
    with LogReader(log) as reader:
        embodiment = measure_embodiment([reader])
    settings = {"num_hist": 4, "depth": 1}
    model = DINO.varied({"num_hist": 4}).varied({"depth": 1}).build(embodiment)
    manifest = Manifest(
        1, "dino_tiny", embodiment.action_dim, body=embodiment.to_json(), settings=settings
    )
    WeightStore(tmp_path / "weights").save(model.modules_by_name(), manifest)
    for updates in (2, 3):
        resumed = make_trainer(tmp_path / "run", log, weights=tmp_path / "weights")
        advance(resumed, updates)
        resumed.close()
        loaded, stored = load_model(tmp_path / "run" / "weights")
        assert stored.settings == settings
        assert (loaded.config.num_hist, loaded.config.predictor.depth) == (4, 1)
