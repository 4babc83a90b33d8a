"""Logs of another robot, task or action space are learned from together only if that is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wm_nodes.tiny import TINY, record
from wm_datasets import LogReader, LogWriter
from wm_datasets.spec import VectorSpec
from wm_models.registry import PRESETS
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.loop import Trainer
from wm_nodes.training.trainable import mixture, obstacle


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Return a function that records two logs, the second with a changed specification."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    first = record(tmp_path / "first", 3)

    def record_logs(**changes):
        with LogReader(first) as reader:
            spec = replace(reader.spec, **changes)
            rows = [
                {name: reader.read(name, i, i + 1)[0] for name in spec.fields}
                for i in range(reader.length)
            ]
        with LogWriter(tmp_path / "second", spec) as writer:
            for row in rows:
                writer.append(row)
        return first, tmp_path / "second"

    return record_logs


def make_trainer(tmp_path, logs, **options):
    pairs = tuple((log, 1.0) for log in logs)
    config = TrainingConfig(
        tmp_path / "run", pairs, model="tiny", device="cpu", pace=False, **options
    )
    return Trainer(config)


SPACE = VectorSpec(("push",), ("N",), (-2.0,), (2.0,))
CHANGES = [
    ({"task": "elsewhere"}, "task 'origin' and 'elsewhere'"),
    ({"robot": "other"}, "robot 'point' and 'other'"),
    ({"action": SPACE}, r"action space \("),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_the_trainer_refuses_them_naming_both_logs_and_the_difference(
    tmp_path, logs, changes, message
):
    first, second = logs(**changes)
    with pytest.raises(
        TrainingError, match=rf"{first} and {second} differ: {message}.*allow_mixed"
    ):
        make_trainer(tmp_path, (first, second)).step()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_it_learns_from_them_where_that_is_allowed(tmp_path, logs, changes, message):
    assert make_trainer(tmp_path, logs(**changes), allow_mixed=True).step()


def test_equal_logs_are_no_mixture(tmp_path, logs):
    assert make_trainer(tmp_path, logs(extra={"seed": 7})).step()


def test_another_number_of_action_dimensions_is_refused_even_then(tmp_path, logs):
    first, _ = logs()
    with LogReader(first) as reader:
        spec = reader.spec
    two_dimensional = replace(spec, action=VectorSpec(("a", "b"), ("1", "1"), (-1, -1), (1, 1)))
    message = mixture([("here", spec), ("there", two_dimensional)], True)
    assert "here has 1 action dimensions" in message and "there has 2 (a, b)" in message


SET = VectorSpec.one_hot(("left", "right"))


def test_a_log_with_discrete_actions_is_no_obstacle_only_for_models_that_take_them(logs):
    first, _ = logs()
    with LogReader(first) as reader:
        spec = replace(reader.spec, action=SET)
    for name in ("mwm_cpu", "dino_wm_cpu"):
        why = obstacle("here", spec, name)
        assert why.startswith("log: got here with discrete actions. model: got '" + name)
        assert len(why.splitlines()) == 1
        assert "dreamer_v3_cpu_discrete" in why
    assert not obstacle("here", spec, "dreamer_v3_cpu_discrete")
    with LogReader(first) as reader:
        why = obstacle("here", reader.spec, "dreamer_v3_cpu_discrete")
    assert why.startswith("log: got here with continuous actions. model: got 'dreamer_v3_cpu_disc")


def test_discrete_and_continuous_actions_are_never_mixed(logs):
    first, _ = logs()
    with LogReader(first) as reader:
        spec = replace(reader.spec, action=SET)
    wide = replace(spec, action=VectorSpec(("a", "b"), ("1", "1"), (0, 0), (1, 1)))
    for pair in ([("one", spec), ("other", wide)], [("other", wide), ("one", spec)]):
        why = mixture(pair, True)
        assert "one has discrete actions, other has continuous ones" in why
