"""Complete episodes of a log, each reported once, and a learner without images that needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm_models.posed import Posed
from tests.wm_nodes.tiny import record
from wm_datasets import LogReader
from wm_datasets.errors import LogRowError
from wm_datasets.storage.damage import Damage, LogDamageError
from wm_models.families.mwm.learner import MWMLearner
from wm_models.interface.learner import BatchSpec, EpisodeReturn, Learner, LearnsFromReturns
from wm_models.interface.preset import Pace, Preset
from wm_models.registry import PRESETS
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.episode_returns import EpisodeReturns
from wm_nodes.training.loop import Trainer


class Evolution:
    """Learns from returns only, as the controller of World Models does."""

    initial_updates, phase = 0, "controller"
    fields = frozenset({"proprio", "action"})
    batch_specs: ClassVar = {"rows": BatchSpec(2, 2)}

    def __init__(self) -> None:
        self.updates, self.returns, self.batch_fields = 0, [], set()

    def episodes_ended(self, episodes: Sequence[EpisodeReturn]) -> None:
        self.returns += [(e.total, e.length, e.weights) for e in episodes]

    def begin_with(self, step: int) -> None: ...

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        self.updates += 1
        self.batch_fields |= batches["rows"].keys()
        return {"es/episodes": float(len(self.returns))}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "returns": self.returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.returns = state["updates"], [tuple(x) for x in state["returns"]]


@dataclass(frozen=True)
class Evolved(Preset):
    """The posed model, by evolution."""

    @property
    def pace(self) -> Pace:
        return Pace(prefill=1, train_every=1)

    def build(self, embodiment: object, seed: int = 0) -> Posed:
        torch.manual_seed(seed)
        return Posed()

    def build_learner(self, model: object, seed: int = 0, device: object = "cpu") -> Learner:
        return Evolution()


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "evolved", Evolved("evolved", ""))
    log = record(tmp_path / "log", 3)

    def start(**settings: Any) -> Trainer:
        settings = {"model": "evolved", "device": "cpu", "pace": False, **settings}
        return Trainer(TrainingConfig(tmp_path / "run", ((log, 1.0),), **settings))

    return log, start


def returns(log) -> list[tuple[float, int, int]]:
    with LogReader(log) as reader:
        out = []
        for start, length, _ in reader.episodes:
            rows = reader.read_rows(start, start + length, ("reward", "weights"))
            out.append((float(rows["reward"].sum()), int(length), int(rows["weights"][0])))
        return out


def test_only_some_learners_learn_from_returns() -> None:
    assert isinstance(Evolution(), LearnsFromReturns)
    assert not issubclass(MWMLearner, LearnsFromReturns)


def test_every_complete_episode_is_reported_once_also_when_the_run_resumes(run) -> None:
    log, start = run
    trainer = start()
    assert trainer.step() and trainer.step()
    assert trainer.learner.returns == returns(log)
    assert len(trainer.learner.returns) == 3
    assert trainer.learner.batch_fields == {"proprio", "action"}  # of a model that sees no image
    record(log, 2, seed=7)
    assert trainer.step()
    assert trainer.learner.returns == returns(log)
    trainer.close()
    record(log, 1, seed=8)
    resumed = start()
    assert resumed.step()
    assert resumed.learner.returns == returns(log) and len(returns(log)) == 6
    resumed.close()


def test_an_episode_of_several_versions_has_no_version(run, monkeypatch) -> None:
    log, _ = run
    with LogReader(log) as reader:
        read = reader.read_rows

        def mixed(start, stop, fields):
            rows = read(start, stop, fields)
            return {**rows, "weights": np.arange(stop - start)}

        monkeypatch.setattr(reader, "read_rows", mixed)
        assert [episode.weights for episode in EpisodeReturns(reader).new()] == [-1, -1, -1]


def test_returns_of_held_out_episodes_are_not_read(run) -> None:
    log, _ = run
    with LogReader(log) as reader:
        episode_returns = EpisodeReturns(reader, episodes=lambda table: table["start"] > 0)
        assert [(e.total, e.length, e.weights) for e in episode_returns.new()] == returns(log)[1:]
        assert episode_returns.new() == []


def test_returns_of_held_out_episodes_are_not_learned_from(run) -> None:
    log, start = run
    trainer = start(hold_out=0.7)  # the share of the episode at row 0 is .62
    assert trainer.step()
    assert set(trainer.learner.returns).isdisjoint(returns(log)[:1])
    assert len(trainer.learner.returns) < 3
    trainer.close()


@pytest.mark.parametrize("error", [LogRowError, LogDamageError])
def test_an_unreadable_episode_is_skipped(run, monkeypatch, error) -> None:
    log, _ = run
    with LogReader(log) as reader:
        read, second = reader.read_rows, int(reader.episodes["start"][1])

        def broken(start, stop, fields):
            if start == second:
                raise error(Damage(reader.path, start, stop, "gone"))
            return read(start, stop, fields)

        monkeypatch.setattr(reader, "read_rows", broken)
        assert len(EpisodeReturns(reader).new()) == 2
