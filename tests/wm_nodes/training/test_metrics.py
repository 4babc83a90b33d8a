"""Rows of metrics: averages, exact after a resume, the same for CSV and TensorBoard."""

from __future__ import annotations

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wm_nodes.training.metrics import MetricsRecorder


def read_table(folder):
    with (folder / "train.csv").open() as file:
        return [tuple(row[1:]) for row in csv.reader(file)]


def curves(folder):
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def measure(recorder, updates):
    for update in updates:
        recorder.add(update, {"loss": float(update)})


def test_rows_are_averages_of_the_updates_between(tmp_path):
    recorder = MetricsRecorder(tmp_path, every=4)
    measure(recorder, range(1, 10))
    recorder.close()
    assert read_table(tmp_path) == [("update", "metric", "value"), ("4", "loss", "2.5"),
                               ("8", "loss", "6.5")]  # fmt: skip
    assert curves(tmp_path) == {"loss": [(4, 2.5), (8, 6.5)]}


def test_values_that_are_not_finite_are_left_out(tmp_path):
    recorder = MetricsRecorder(tmp_path, every=1)
    recorder.write(1, {"nan": float("nan")})
    recorder.write(2, {"inf": float("inf"), "loss": 1.0})
    recorder.close()
    assert read_table(tmp_path)[1:] == [("2", "loss", "1")]


@pytest.mark.parametrize("saved", [2, 4, 5, 8])
def test_a_killed_run_reports_each_update_once(tmp_path, saved):
    uninterrupted = MetricsRecorder(tmp_path / "whole", every=4)
    measure(uninterrupted, range(1, 13))
    uninterrupted.close()
    killed = MetricsRecorder(tmp_path / "killed", every=4)
    measure(killed, range(1, saved + 1))
    state = killed.state_dict()
    measure(killed, range(saved + 1, 11))  # after the checkpoint; then it is killed
    killed.close()
    with (tmp_path / "killed" / "train.csv").open("a") as file:
        file.write("1.0,12,lo")  # in the middle of a row
    for file in (tmp_path / "killed" / "tensorboard").iterdir():  # it began in an earlier second
        file.rename(file.with_name("events.out.tfevents.0000000001.earlier"))
    resumed = MetricsRecorder(tmp_path / "killed", every=4)
    resumed.resume(saved, state)
    measure(resumed, range(saved + 1, 13))
    resumed.close()
    assert read_table(tmp_path / "killed") == read_table(tmp_path / "whole")
    assert curves(tmp_path / "killed") == curves(tmp_path / "whole")
