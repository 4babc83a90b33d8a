"""Held-out episodes: never learned from, chosen alike for ever, judged without a trace."""

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


def begin(run, log, **changes):
    settings = {"model": "tiny", "device": "cpu", "pace": False, "publish_s": 1e9} | changes
    return Trainer(TrainingConfig(run, ((log, 1.0),), **settings))


def table(starts):
    return np.array([(s, 5, True) for s in starts], [("start", "i8"), ("length", "i8"), ("c", "?")])


@given(st.floats(0.05, 0.6), st.integers(1, 400), st.integers(0, 10**6))
def test_the_share_is_held_and_a_longer_log_changes_nothing(share, length, begin_at):
    held_out, starts = HeldOut(share), begin_at + np.arange(300) * length
    held = held_out.held(table(starts))
    assert (held != held_out.learned(table(starts))).all()
    assert np.array_equal(held[100:200], held_out.held(table(starts[100:200])))


def test_of_many_episodes_about_the_share_is_held():
    for length in (2, 26, 101, 251):
        held = HeldOut(0.1).held(table(np.arange(1000) * length))
        assert 0.05 < held.mean() < 0.15


def test_windows_to_learn_from_and_to_judge_by_share_no_episode(log):
    held_out, reader = HeldOut(0.3), LogReader(log)
    options = {"batch": 200, "length": 3, "seed": 0, "fields": ["reward"]}
    episodes = reader.episodes
    for choose in (held_out.held, held_out.learned):
        _, rows = Sampler(reader, episodes=choose, **options).draw(500, 3)
        drawn = np.searchsorted(episodes["start"], rows, side="right") - 1
        assert set(drawn.flat) == set(np.flatnonzero(choose(episodes)))


def test_judging_leaves_learning_as_it_was(tmp_path, log):
    judged = begin(tmp_path / "judged", log, hold_out=0.3, eval_every=2)
    plain = begin(tmp_path / "plain", log, hold_out=0.3)
    for _ in range(8):
        judged.step()
        plain.step()
    assert {"heldout/mse", "heldout/mse_frozen", "heldout/reward_mean_error"} <= set(
        judged.evaluation
    )
    ours, theirs = judged.model.state_dict(), plain.model.state_dict()
    assert_same_tensors(ours, theirs)
    judged.close()
    lines = (tmp_path / "judged" / "metrics" / "train.csv").read_text().splitlines()
    assert {x.split(",")[1] for x in lines if "heldout/mse," in x} == {"2", "4", "6", "8"}


def test_the_simulator_s_figures_are_written_with_weights_that_are_whole(tmp_path, log):
    seen = []

    def judge(folder):
        seen.append(sorted(p.name for p in folder.iterdir()))
        return {"eval/success_rate": 0.5}

    config = TrainingConfig(tmp_path / "run", ((log, 1.0),), model="tiny", device="cpu", pace=False,
                         eval_every=3)  # fmt: skip
    learning = Trainer(config, evaluate=judge)
    for _ in range(6):
        learning.step()
    assert len(seen) == 2 and all("manifest.json" in names for names in seen)
    text = (tmp_path / "run" / "metrics" / "train.csv").read_text()
    assert text.count("eval/success_rate,0.5") == 2


def test_without_an_episode_to_judge_by_it_is_said_at_once(tmp_path):
    short = record(tmp_path / "short", 1)
    with pytest.raises(TrainingError, match=r"hold_out: got 0.1, which selects no episode"):
        begin(tmp_path / "run", short, hold_out=0.1, eval_every=2).step()


def test_correlation_is_pearson_s_and_unknown_where_nothing_varies():
    a = np.array([0.0, 1.0, 2.0])
    assert correlation(a, 3 - 2 * a) == pytest.approx(-1)
    assert np.isnan(correlation(a, np.ones(3)))
