"""Learning from a log: resumes bit for bit, returns from divergence, publishes whole versions."""

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
        seen = [] if published is None else published
        return Trainer(config, lambda manifest, path: seen.append((manifest, path)))

    return begin


def advance(learning, updates):
    while learning.progress.updates < updates:
        assert learning.step()


def weights(learning):
    modules = learning.model.modules_by_name()
    return {f"{m}.{k}": v.clone() for m, x in modules.items() for k, v in x.state_dict().items()}


def test_the_losses_fall(start):
    learning = start()
    losses = []
    while learning.progress.updates < 60:
        learning.step()
        losses.append(learning.metrics["ae/pixel_loss"])
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    assert np.isfinite(list(learning.metrics.values())).all()


def test_phases_follow_each_other(start):
    learning = start(steps=INITIAL + 2)
    phases = [learning.progress.phase]
    while learning.step():
        phases.append(learning.progress.phase)
    assert phases == ["waiting", *["autoencoder"] * 2, *["world_model"] * 2, *["behaviour"] * 2,
                      "done"]  # fmt: skip
    assert learning.done


def test_a_run_that_was_interrupted_is_the_same_bit_for_bit(start):
    whole = start("whole")
    advance(whole, 11)
    for stop in (2, 7):  # in the autoencoder's phase, and in behaviour's
        part = start("parts")
        advance(part, stop)
        part.close()
    part = start("parts")
    advance(part, 11)
    ours, theirs = weights(part), weights(whole)
    assert_same_tensors(ours, theirs)
    assert part.metrics == whole.metrics


def test_a_kill_between_two_saves_costs_only_what_came_after(start):
    learning = start()
    advance(learning, 7)
    learning.save()
    kept = weights(learning)
    advance(learning, 9)  # and is killed here
    again = start()
    again.step()
    assert again.progress.updates == 8
    assert again.progress.version == learning.progress.version == 2
    back = start()
    back._open()
    assert_same_tensors(weights(back), kept)


def test_a_non_finite_loss_goes_back_to_the_last_good_version(start):
    learning = start()
    advance(learning, 7)
    learning.save()
    kept = weights(learning)
    advance(learning, 8)
    poison(learning)
    assert learning.step()
    assert (learning.progress.updates, learning.progress.rollbacks) == (7, 1)
    assert_same_tensors(weights(learning), kept)
    advance(learning, 9)


def test_without_a_good_version_divergence_is_said(start):
    learning = start()
    advance(learning, 2)
    poison(learning)
    with pytest.raises(TrainingError, match=r"diverged at update 2: .* became nan"):
        learning.step()


def test_divergence_again_and_again_gives_up(start):
    learning = start()
    advance(learning, 2)
    learning.save()
    with pytest.raises(TrainingError, match="diverged"):
        for _ in range(9):
            poison(learning)
            learning.step()


def test_another_model_s_run_is_refused(start):
    learning = start()
    advance(learning, 2)
    learning.close()
    with pytest.raises(WeightsError, match="got model 'other', expected 'tiny'"):
        start(model="other").step()


def test_a_log_without_a_camera_is_refused(tmp_path, log, start):
    with LogReader(log) as reader:
        blind = replace(reader.spec, cameras={})
        with LogWriter(tmp_path / "blind", blind) as writer:
            for at in range(reader.length):
                row = {k: v[0] for k, v in reader.read_rows(at, at + 1).items()}
                writer.append({name: row[name] for name in blind.fields})
    with pytest.raises(TrainingError, match="camera: got none in the log"):
        start(logs=((tmp_path / "blind", 1.0),)).step()


def test_published_versions_are_whole_and_none_comes_before_behaviour(start):
    published = []
    learning = start(published=published, publish_s=0.0)
    advance(learning, INITIAL - 1)
    learning.save()
    assert published == []
    advance(learning, INITIAL + 3)
    assert [manifest.step for manifest, _ in published] == list(range(INITIAL, INITIAL + 4))
    for manifest, path in published:
        model, found = load_model(path)
        assert found == manifest
        assert model.spec.action_dim == 1
    assert (
        learning.checkpoints.store.latest()
        == learning.checkpoints.store.versions()[-1]
        == published[-1][0].version
    )
    assert published[0][0].extra["task"] == "origin"
    assert [m.parent for m, _ in published] == [m.version - 1 for m, _ in published]


def test_a_save_that_breaks_off_leaves_the_version_before(start, monkeypatch):
    published = []
    learning = start(published=published)
    advance(learning, INITIAL)
    before = learning.checkpoints.store.latest()

    def full_disk(path, data):
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device")
        path.write_bytes(data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("wm_models.weights.store._write", full_disk)
        with pytest.raises(OSError, match="No space"):
            learning.save()
    assert (
        learning.checkpoints.store.latest() == before == learning.checkpoints.store.versions()[-1]
    )
    assert len(published) == 1
    advance(learning, INITIAL + 1)
    learning.save()
    assert read_manifest(learning.checkpoints.store.folder).step == INITIAL + 1


def test_only_demonstrated_actions_are_marked_for_imitation(tmp_path, start, monkeypatch):
    demos = record(tmp_path / "demos", 3, expert=True)
    play = record(tmp_path / "play", 3)
    learning = start(logs=((demos, 1.0), (play, 1.0)))
    advance(learning, 1)
    seen = []
    update = learning.learner.update
    monkeypatch.setattr(learning.learner, "update", lambda b: seen.append(b) or update(b))
    advance(learning, INITIAL + 3)
    known = []
    with LogReader(demos) as reader:
        known = reader.read("commanded", 0, reader.length)[:, 0].tolist()
    counts = {True: 0, False: 0}
    for batches in seen:
        for batch in batches.values():
            assert "source" not in batch
            assert not (batch["demo"] & batch["is_last"]).any()
            for demo, commanded in zip(batch["demo"].flatten(), batch["commanded"].flatten()):
                counts[bool(demo)] += 1
                assert not demo or float(commanded) in known
    assert min(counts.values()) > 20
    assert np.isfinite(learning.metrics["ac/imitation_loss"])


def test_updates_keep_pace_with_a_growing_log(tmp_path, start):
    log = tmp_path / "growing"
    learning = start(logs=((log, 1.0),), pace=True)
    assert not learning.step()
    record(log, 2)  # 18 rows of the 20 that come before learning
    assert not learning.step()
    record(log, 1)
    advance(learning, INITIAL)
    made = INITIAL + -(-(27 - TINY.learner.prefill) // TINY.learner.train_every)
    while learning.step():
        pass
    assert learning.progress.updates == made
    record(log, 1)
    assert learning.step()


def test_a_run_learned_off_line_goes_on_on_line_at_the_ratio(tmp_path, start, log):
    offline = start()
    advance(offline, INITIAL + 7)
    offline.close()
    kept = weights(offline)

    growing = record(tmp_path / "growing", 1)  # 9 rows: less than the prefill
    both = ((growing, 0.5), (log, 0.5))
    online = start(logs=both, pace=True)
    assert not online.step()  # what was learned off line is no debt, and no credit
    assert online.progress.updates == INITIAL + 7 and online.covered_steps == 9
    assert_same_tensors(weights(online), kept)
    record(growing, 2)
    while online.step():
        pass
    made = -(-18 // TINY.learner.train_every)
    assert online.progress.updates == INITIAL + 7 + made
    online.close()

    again = start(logs=both, pace=True)  # resumed on line: counts from where it went on line
    assert not again.step()
    assert (again.progress.updates, again.covered_steps) == (
        INITIAL + 7 + made,
        online.covered_steps,
    )
    assert again.progress.version == online.progress.version


def test_on_line_with_a_new_log_alone_the_prefill_comes_first(tmp_path, start):
    offline = start()
    advance(offline, 3)  # in the first phases still
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
    runs = [start(name, logs=((place, 1.0),), pace=True) for name, place in
            (("a", plain), ("b", mixed))]  # fmt: skip
    for run in runs:
        while run.step():
            pass
        run.close()
    assert runs[0].progress.agent_steps == runs[1].progress.agent_steps == 27
    assert runs[0].progress.updates == runs[1].progress.updates > INITIAL
    ours, theirs = map(weights, runs)
    assert_same_tensors(ours, theirs)
    again = start("b", logs=((mixed, 1.0),), pace=True)
    assert not again.step() and again.progress.agent_steps == 27
    evaluate(mixed, log, 5)
    assert not again.step() and again.progress.agent_steps == 27


def test_a_log_of_evaluation_episodes_alone_says_so(tmp_path, start, log):
    evaluate(tmp_path / "judged", log, 5)
    with pytest.raises(
        TrainingError, match=r"judged, whose 45 rows are all of evaluation episodes"
    ):
        start(logs=((tmp_path / "judged", 1.0),)).step()
    with pytest.raises(
        TrainingError, match=r"judged, whose 45 rows are all of evaluation episodes"
    ):
        start("beside", logs=((log, 0.5), (tmp_path / "judged", 0.5))).step()


def test_metrics_are_averaged_into_rows(start):
    learning = start(log_every=4)
    advance(learning, 8)
    learning.close()
    lines = (learning.config.run / "metrics" / "train.csv").read_text().splitlines()
    assert lines[0] == "time,update,metric,value"
    assert {line.split(",")[1] for line in lines[1:]} == {"4", "8"}


def test_a_log_s_weight_is_read_from_its_word(log):
    assert weighted_log(str(log)) == (log, 1.0)
    assert weighted_log(f"{log}:0.3") == (log, 0.3)
    assert weighted_log(f"{log.parent}:2") == (log, 2.0)
    for wrong in (f"{log}:much", f"{log}:0", f"{log}:nan"):
        with pytest.raises(UserError, match="expected LOG or LOG:WEIGHT with a weight above 0"):
            weighted_log(wrong)
    with pytest.raises(UserError, match="got nowhere, expected a replay log"):
        weighted_log("nowhere:1")


def poison(learning):
    with torch.no_grad():
        next(learning.model.autoencoder.parameters()).fill_(float("nan"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": None}, "actions .*'tiny'.*pre-training"),
        ({"reward": False}, "reward.*'tiny'.*dino_wm"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_a_log_that_lacks_what_the_model_learns_from_is_refused(
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
