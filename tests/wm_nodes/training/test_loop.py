"""Training from a log: resumes exactly, recovers from divergence, publishes complete versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tensors import assert_same_tensors
from tests.wm_nodes.tiny import TINY, record
from wm_datasets import LogReader, LogWriter
from wm_models.registry import PRESETS
from wm_models.weights.manifest import WeightsError
from wm_models.weights.store import load_model, read_manifest
from wm_nodes.cli.train import weighted_log
from wm_nodes.errors import UserError
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.loop import Trainer

INITIAL = TINY.learner.autoencoder_init + TINY.learner.world_model_init


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(PRESETS, "other", replace(TINY, name="other"))


@pytest.fixture
def log(tmp_path):
    return record(tmp_path / "log", 5)


@pytest.fixture
def start(tmp_path, log):
    """Begin or resume a run: start("name", published=[], model="tiny", ...)."""

    def begin(name="run", published=None, **changes):
        settings = {"model": "tiny", "device": "cpu", "pace": False, "publish_s": 1e9} | changes
        config = TrainingConfig(tmp_path / name, settings.pop("logs", ((log, 1.0),)), **settings)
        versions = [] if published is None else published
        return Trainer(config, lambda manifest, path: versions.append((manifest, path)))

    return begin


def advance(trainer, updates):
    while trainer.progress.updates < updates:
        assert trainer.step()


def weights(trainer):
    modules = trainer.model.modules_by_name()
    return {f"{m}.{k}": v.clone() for m, x in modules.items() for k, v in x.state_dict().items()}


def test_the_losses_fall(start):
    trainer = start()
    losses = []
    while trainer.progress.updates < 60:
        trainer.step()
        losses.append(trainer.metrics["ae/pixel_loss"])
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    assert np.isfinite(list(trainer.metrics.values())).all()


def test_phases_follow_each_other(start):
    trainer = start(steps=INITIAL + 2)
    phases = [trainer.progress.phase]
    while trainer.step():
        phases.append(trainer.progress.phase)
    assert phases == ["waiting", *["autoencoder"] * 2, *["world_model"] * 2, *["behaviour"] * 2,
                      "done"]  # fmt: skip
    assert trainer.done


def test_an_interrupted_run_is_the_same_bit_for_bit(start):
    uninterrupted = start("whole")
    advance(uninterrupted, 11)
    for stop in (2, 7):  # in the autoencoder's phase, and in behaviour's
        resumed = start("parts")
        advance(resumed, stop)
        resumed.close()
    resumed = start("parts")
    advance(resumed, 11)
    actual, expected = weights(resumed), weights(uninterrupted)
    assert_same_tensors(actual, expected)
    assert resumed.metrics == uninterrupted.metrics


def test_a_kill_between_two_saves_loses_only_the_updates_after_the_first(start):
    trainer = start()
    advance(trainer, 7)
    trainer.save()
    saved = weights(trainer)
    advance(trainer, 9)  # and is killed here
    resumed = start()
    resumed.step()
    assert resumed.progress.updates == 8
    assert resumed.progress.version == trainer.progress.version == 2
    reopened = start()
    reopened._open()
    assert_same_tensors(weights(reopened), saved)


def test_a_non_finite_loss_goes_back_to_the_last_good_version(start):
    trainer = start()
    advance(trainer, 7)
    trainer.save()
    saved = weights(trainer)
    advance(trainer, 8)
    set_weights_to_nan(trainer)
    assert trainer.step()
    assert (trainer.progress.updates, trainer.progress.rollbacks) == (7, 1)
    assert_same_tensors(weights(trainer), saved)
    advance(trainer, 9)


def test_without_a_good_version_divergence_is_an_error(start):
    trainer = start()
    advance(trainer, 2)
    set_weights_to_nan(trainer)
    with pytest.raises(TrainingError, match=r"diverged at update 2: .* became nan"):
        trainer.step()


def test_repeated_divergence_ends_the_run(start):
    trainer = start()
    advance(trainer, 2)
    trainer.save()
    with pytest.raises(TrainingError, match="diverged"):
        for _ in range(9):
            set_weights_to_nan(trainer)
            trainer.step()


def test_another_model_s_run_is_refused(start):
    trainer = start()
    advance(trainer, 2)
    trainer.close()
    with pytest.raises(WeightsError, match="got model 'other', expected 'tiny'"):
        start(model="other").step()


def test_a_log_without_a_camera_is_refused(tmp_path, log, start):
    with LogReader(log) as reader:
        spec = replace(reader.spec, cameras={})
        with LogWriter(tmp_path / "no_camera", spec) as writer:
            for index in range(reader.length):
                row = {k: v[0] for k, v in reader.read_rows(index, index + 1).items()}
                writer.append({name: row[name] for name in spec.fields})
    with pytest.raises(TrainingError, match="camera: got none in the log"):
        start(logs=((tmp_path / "no_camera", 1.0),)).step()


def test_published_versions_are_complete_and_none_precedes_behaviour(start):
    published = []
    trainer = start(published=published, publish_s=0.0)
    advance(trainer, INITIAL - 1)
    trainer.save()
    assert published == []
    advance(trainer, INITIAL + 3)
    assert [manifest.step for manifest, _ in published] == list(range(INITIAL, INITIAL + 4))
    for manifest, path in published:
        model, loaded = load_model(path)
        assert loaded == manifest
        assert model.spec.action_dim == 1
    assert (
        trainer.checkpoints.store.latest()
        == trainer.checkpoints.store.versions()[-1]
        == published[-1][0].version
    )
    assert published[0][0].extra["task"] == "origin"
    assert [m.parent for m, _ in published] == [m.version - 1 for m, _ in published]


def test_a_failed_save_keeps_the_previous_version(start, monkeypatch):
    published = []
    trainer = start(published=published)
    advance(trainer, INITIAL)
    before = trainer.checkpoints.store.latest()

    def full_disk(path, data):
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device")
        path.write_bytes(data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("wm_models.weights.store._write", full_disk)
        with pytest.raises(OSError, match="No space"):
            trainer.save()
    assert trainer.checkpoints.store.latest() == before == trainer.checkpoints.store.versions()[-1]
    assert len(published) == 1
    advance(trainer, INITIAL + 1)
    trainer.save()
    assert read_manifest(trainer.checkpoints.store.folder).step == INITIAL + 1


def test_only_demonstrated_actions_are_marked_for_imitation(tmp_path, start, monkeypatch):
    demos = record(tmp_path / "demos", 3, expert=True)
    play = record(tmp_path / "play", 3)
    trainer = start(logs=((demos, 1.0), (play, 1.0)))
    advance(trainer, 1)
    updates = []
    update = trainer.learner.update
    monkeypatch.setattr(
        trainer.learner, "update", lambda batches: updates.append(batches) or update(batches)
    )
    advance(trainer, INITIAL + 3)
    intended = []
    with LogReader(demos) as reader:
        intended = reader.read("commanded", 0, reader.length)[:, 0].tolist()
    counts = {True: 0, False: 0}
    for batches in updates:
        for batch in batches.values():
            assert "source" not in batch
            assert not (batch["demo"] & batch["is_last"]).any()
            for demo, commanded in zip(batch["demo"].flatten(), batch["commanded"].flatten()):
                counts[bool(demo)] += 1
                assert not demo or float(commanded) in intended
    assert min(counts.values()) > 20
    assert np.isfinite(trainer.metrics["ac/imitation_loss"])


def test_updates_keep_pace_with_a_growing_log(tmp_path, start):
    log = tmp_path / "growing"
    trainer = start(logs=((log, 1.0),), pace=True)
    assert not trainer.step()
    record(log, 2)  # 18 rows of the 20 that come before learning
    assert not trainer.step()
    record(log, 1)
    advance(trainer, INITIAL)
    expected = INITIAL + -(-(27 - TINY.learner.prefill) // TINY.learner.train_every)
    while trainer.step():
        pass
    assert trainer.progress.updates == expected
    record(log, 1)
    assert trainer.step()


def test_a_run_trained_offline_continues_online_at_the_ratio(tmp_path, start, log):
    offline = start()
    advance(offline, INITIAL + 7)
    offline.close()
    saved = weights(offline)

    growing = record(tmp_path / "growing", 1)  # 9 rows: less than the prefill
    logs = ((growing, 0.5), (log, 0.5))
    online = start(logs=logs, pace=True)
    assert not online.step()  # updates made offline do not count in the ratio
    assert online.progress.updates == INITIAL + 7 and online.covered_steps == 9
    assert_same_tensors(weights(online), saved)
    record(growing, 2)
    while online.step():
        pass
    online_updates = -(-18 // TINY.learner.train_every)
    assert online.progress.updates == INITIAL + 7 + online_updates
    online.close()

    resumed = start(logs=logs, pace=True)  # resumed online: counts from the online start
    assert not resumed.step()
    assert (resumed.progress.updates, resumed.covered_steps) == (
        INITIAL + 7 + online_updates,
        online.covered_steps,
    )
    assert resumed.progress.version == online.progress.version


def test_the_steps_of_all_environments_set_the_pace(tmp_path, start):
    """Three logs of 9 rows hold the prefill of 20 together, and each row counts once."""
    logs = tuple((record(tmp_path / f"env{n}", 1, seed=n), 1.0) for n in range(3))
    trainer = start(logs=logs, environments=3, pace=True)
    while trainer.step():
        pass
    expected = INITIAL + -(-(27 - TINY.learner.prefill) // TINY.learner.train_every)
    assert (trainer.progress.updates, trainer.progress.agent_steps) == (expected, 27)
    surplus = trainer.covered_steps - 27
    assert [trainer.covered_steps_of(number) for number in range(3)] == [9 + surplus] * 3
    record(logs[2][0], 2, seed=2)
    while trainer.step():
        pass
    assert trainer.progress.agent_steps == 45
    surplus = trainer.covered_steps - 45
    assert [trainer.covered_steps_of(number) - surplus for number in range(3)] == [9, 9, 27]


def test_a_run_of_several_environments_resumes_bit_for_bit(tmp_path, start):
    logs = tuple((record(tmp_path / f"env{n}", 2, seed=n), 0.5) for n in range(2))
    options = {"logs": logs, "environments": 2, "pace": True}
    whole, parts = start("whole", **options), start("parts", **options)
    while whole.step():
        pass
    advance(parts, INITIAL + 1)
    parts.close()
    resumed = start("parts", **options)
    while resumed.step():
        pass
    assert resumed.progress.updates == whole.progress.updates > INITIAL + 1
    assert_same_tensors(weights(resumed), weights(whole))


def test_online_with_only_a_new_log_the_prefill_comes_first(tmp_path, start):
    offline = start()
    advance(offline, 3)  # still in the first phases
    offline.close()
    growing = record(tmp_path / "growing", 2)  # 18 rows of 20
    online = start(logs=((growing, 1.0),), pace=True)
    assert not online.step()
    record(growing, 1)
    assert online.step() and online.progress.updates == 4


def evaluate(log, source, episodes):
    """Add the first episodes of another log to a log, as evaluation episodes."""
    with LogReader(source) as reader, LogWriter(log, reader.spec) as writer:
        stop = int(reader.episodes["length"][:episodes].sum())
        rows = reader.read_rows(0, stop) | {"evaluation": np.ones(stop, bool)}
        for i in range(stop):
            writer.append({name: values[i] for name, values in rows.items()})


def test_evaluation_episodes_are_neither_learned_from_nor_counted(tmp_path, start, log):
    """Blocks of evaluation give no update, no row of a batch and no training step."""
    plain, mixed = record(tmp_path / "plain", 3), tmp_path / "mixed"
    evaluate(mixed, log, 2)
    with LogReader(plain) as reader, LogWriter(mixed, reader.spec) as writer:
        rows = reader.read_rows(0, reader.length)
        for i in range(reader.length):
            writer.append({name: values[i] for name, values in rows.items()})
    evaluate(mixed, log, 5)
    runs = [start(name, logs=((path, 1.0),), pace=True) for name, path in
            (("a", plain), ("b", mixed))]  # fmt: skip
    for run in runs:
        while run.step():
            pass
        run.close()
    assert runs[0].progress.agent_steps == runs[1].progress.agent_steps == 27
    assert runs[0].progress.updates == runs[1].progress.updates > INITIAL
    plain_weights, mixed_weights = map(weights, runs)
    assert_same_tensors(plain_weights, mixed_weights)
    resumed = start("b", logs=((mixed, 1.0),), pace=True)
    assert not resumed.step() and resumed.progress.agent_steps == 27
    evaluate(mixed, log, 5)
    assert not resumed.step() and resumed.progress.agent_steps == 27


def test_a_log_of_only_evaluation_episodes_is_refused(tmp_path, start, log):
    evaluate(tmp_path / "evaluated", log, 5)
    with pytest.raises(
        TrainingError, match=r"evaluated, whose 45 rows are all of evaluation episodes"
    ):
        start(logs=((tmp_path / "evaluated", 1.0),)).step()
    with pytest.raises(
        TrainingError, match=r"evaluated, whose 45 rows are all of evaluation episodes"
    ):
        start("beside", logs=((log, 0.5), (tmp_path / "evaluated", 0.5))).step()


def test_metrics_are_averaged_into_rows(start):
    trainer = start(log_every=4)
    advance(trainer, 8)
    trainer.close()
    lines = (trainer.config.run / "metrics" / "train.csv").read_text().splitlines()
    assert lines[0] == "time,update,metric,value"
    assert {line.split(",")[1] for line in lines[1:]} == {"4", "8"}


def test_the_weight_of_a_log_is_read_from_its_argument(log):
    assert weighted_log(str(log)) == (log, 1.0)
    assert weighted_log(f"{log}:0.3") == (log, 0.3)
    assert weighted_log(f"{log.parent}:2") == (log, 2.0)
    for wrong in (f"{log}:much", f"{log}:0", f"{log}:nan"):
        with pytest.raises(UserError, match="expected LOG or LOG:WEIGHT with a weight above 0"):
            weighted_log(wrong)
    with pytest.raises(UserError, match="got nowhere, expected a replay log"):
        weighted_log("nowhere:1")


def set_weights_to_nan(trainer):
    with torch.no_grad():
        next(trainer.model.autoencoder.parameters()).fill_(float("nan"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": None}, "actions .*'tiny'.*pre-training"),
        ({"reward": False}, "reward.*'tiny'.*dino_wm"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_a_log_without_the_fields_of_the_model_is_refused(
    start, tmp_path, log, changes, message, mixed
):
    with LogReader(log) as reader:
        spec = replace(reader.spec, **changes)
        rows = [
            {name: reader.read(name, i, i + 1)[0] for name in spec.fields}
            for i in range(int(reader.episodes["length"][0]))
        ]
    with LogWriter(tmp_path / "other", spec) as writer:
        for row in rows:
            writer.append(row)
    logs = ((log, 1.0),) * mixed + ((tmp_path / "other", 1.0),)
    with pytest.raises(TrainingError, match=rf"log: .*other without {message}"):
        start(logs=logs).step()
