"""Held-out episodes: never learned from, a constant choice, evaluated without side effects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tensors import assert_same_tensors
from tests.wm_nodes.tiny import TINY, record
from wm_datasets import LogReader, Sampler
from wm_models.registry import PRESETS
from wm_nodes.evaluation.held_out import HeldOut, correlation
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.loop import Trainer


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture
def log(tmp_path):
    return record(tmp_path / "log", 20)


def make_trainer(run, log, **changes):
    settings = {"model": "tiny", "device": "cpu", "pace": False, "publish_s": 1e9} | changes
    return Trainer(TrainingConfig(run, ((log, 1.0),), **settings))


def table(starts):
    return np.array([(s, 5, True) for s in starts], [("start", "i8"), ("length", "i8"), ("c", "?")])


@given(st.floats(0.05, 0.6), st.integers(1, 400), st.integers(0, 10**6))
def test_the_share_is_held_out_and_a_longer_log_does_not_change_it(share, length, begin_at):
    held_out, starts = HeldOut(share), begin_at + np.arange(300) * length
    held = held_out.held(table(starts))
    assert (held != held_out.learned(table(starts))).all()
    assert np.array_equal(held[100:200], held_out.held(table(starts[100:200])))


def test_of_many_episodes_about_the_share_is_held():
    for length in (2, 26, 101, 251):
        held = HeldOut(0.1).held(table(np.arange(1000) * length))
        assert 0.05 < held.mean() < 0.15


def test_windows_of_training_and_evaluation_share_no_episode(log):
    held_out, reader = HeldOut(0.3), LogReader(log)
    options = {"batch": 200, "length": 3, "seed": 0, "fields": ["reward"]}
    episodes = reader.episodes
    for choose in (held_out.held, held_out.learned):
        _, rows = Sampler(reader, episodes=choose, **options).draw(500, 3)
        drawn = np.searchsorted(episodes["start"], rows, side="right") - 1
        assert set(drawn.flat) == set(np.flatnonzero(choose(episodes)))


def test_evaluation_does_not_change_training(tmp_path, log):
    evaluated = make_trainer(tmp_path / "evaluated", log, hold_out=0.3, eval_every=2)
    plain = make_trainer(tmp_path / "plain", log, hold_out=0.3)
    for _ in range(8):
        evaluated.step()
        plain.step()
    assert {"heldout/mse", "heldout/mse_frozen", "heldout/reward_mean_error"} <= set(
        evaluated.evaluation
    )
    weights, plain_weights = evaluated.model.state_dict(), plain.model.state_dict()
    assert_same_tensors(weights, plain_weights)
    evaluated.close()
    lines = (tmp_path / "evaluated" / "metrics" / "train.csv").read_text().splitlines()
    assert {x.split(",")[1] for x in lines if "heldout/mse," in x} == {"2", "4", "6", "8"}


def test_the_simulator_evaluates_complete_weights(tmp_path, log):
    folders = []

    def evaluate(folder):
        folders.append(sorted(p.name for p in folder.iterdir()))
        return {"eval/success_rate": 0.5}

    config = TrainingConfig(tmp_path / "run", ((log, 1.0),), model="tiny", device="cpu", pace=False,
                         eval_every=3)  # fmt: skip
    trainer = Trainer(config, evaluate=evaluate)
    for _ in range(6):
        trainer.step()
    assert len(folders) == 2 and all("manifest.json" in names for names in folders)
    text = (tmp_path / "run" / "metrics" / "train.csv").read_text()
    assert text.count("eval/success_rate,0.5") == 2


def test_without_a_held_out_episode_the_start_is_refused(tmp_path):
    short = record(tmp_path / "short", 1)
    with pytest.raises(TrainingError, match=r"hold_out: got 0.1, which selects no episode"):
        make_trainer(tmp_path / "run", short, hold_out=0.1, eval_every=2).step()


def test_correlation_is_pearson_s_and_nan_for_constants():
    a = np.array([0.0, 1.0, 2.0])
    assert correlation(a, 3 - 2 * a) == pytest.approx(-1)
    assert np.isnan(correlation(a, np.ones(3)))
