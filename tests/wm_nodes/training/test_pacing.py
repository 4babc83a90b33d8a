"""The ratio of agent steps to updates, and the count of agent steps in a growing log."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_nodes.tiny import record
from wm_datasets import LogReader, LogWriter
from wm_models.interface.preset import Pace
from wm_nodes.training.pacing import AgentStepCount, Pacing

PACE = Pace(prefill=20, train_every=5, initial=4)


def test_the_initial_updates_need_the_prefill_only():
    pacing = Pacing(PACE, True)
    assert [pacing.is_due(updates, 19) for updates in range(4)] == [False] * 4
    assert [pacing.is_due(updates, 20) for updates in range(4)] == [True] * 4
    assert not pacing.is_due(4, 20)


@pytest.mark.parametrize("agent_steps", [21, 25, 26, 44, 1000])
def test_updates_follow_the_ratio(agent_steps):
    pacing, updates = Pacing(PACE, True), 4
    while pacing.is_due(updates, agent_steps):
        updates += 1
    assert updates == 4 + -(-(agent_steps - 20) // 5)
    assert pacing.covered(updates) >= agent_steps > pacing.covered(updates - 1)


def test_without_a_ratio_an_update_is_always_due():
    assert Pacing(PACE, False).is_due(10**6, 0)


def test_the_prefill_counts_once():
    assert Pacing(PACE, True).prefill(resumed=False) == 20
    assert Pacing(PACE, True).prefill(resumed=True) == Pacing(PACE, False).prefill(False) == 1


def test_a_restart_counts_from_there_and_only_once():
    pacing = Pacing(PACE, True)
    pacing.restart(30, 7, alone=False)
    assert pacing.covered(30) == 7 and pacing.covered(32) == 17
    pacing.restart(50, 100, alone=False)  # as after a roll-back
    assert pacing.covered(30) == 7


def test_a_log_alone_must_hold_the_prefill_after_a_restart():
    pacing = Pacing(PACE, True)
    pacing.restart(30, 7, alone=True)
    assert not pacing.is_due(30, 20) and pacing.is_due(30, 21)


def test_the_state_keeps_the_ratio():
    first, second = Pacing(PACE, True), Pacing(PACE, True)
    first.restart(30, 7, alone=False)
    assert second.can_load(first.state_dict())
    second.load_state_dict(first.state_dict())
    assert [second.covered(n) for n in (0, 30, 40)] == [first.covered(n) for n in (0, 30, 40)]


def test_the_origin_of_a_run_without_a_ratio_holds_only_without_one():
    offline = Pacing(PACE, False).state_dict()
    assert not Pacing(PACE, True).can_load(offline) and Pacing(PACE, False).can_load(offline)
    assert Pacing(PACE, True).can_load({})  # of versions that kept the ratio only


def test_evaluation_episodes_are_not_counted(tmp_path):
    log = record(tmp_path / "log", 2)
    with LogReader(log) as reader:
        rows, length = reader.read_rows(0, reader.length), reader.length
        spec = reader.spec
    count = AgentStepCount()
    with LogReader(log) as reader:
        assert count.update(reader) == count.newest == length
        with LogWriter(log, spec) as writer:
            for evaluation in (True, False):
                for i in range(length):
                    row = {name: values[i] for name, values in rows.items()}
                    writer.append(row | {"evaluation": np.bool_(evaluation)})
        assert count.update(reader) == 2 * length < reader.length
        restored = AgentStepCount()
        restored.load_state_dict(count.state_dict())
        assert restored.update(reader) == 2 * length


def test_rows_dropped_by_the_capacity_stay_counted(tmp_path):
    log = record(tmp_path / "log", 5)
    with LogReader(log) as reader:
        rows, length, spec = reader.read_rows(0, reader.length), reader.length, reader.spec
        count = AgentStepCount()
        count.update(reader)
        with LogWriter(log, spec, capacity_steps=length) as writer:
            for i in range(length):
                writer.append({name: values[i] for name, values in rows.items()})
        assert count.update(reader) == 2 * length and reader.first > 0
