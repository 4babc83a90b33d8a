"""`wm train` killed with -9 at random moments and started again is one run, bit for bit."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.wm_nodes.tiny import record
from wm_models.weights.store import WeightStore

PROGRAM = Path(__file__).parents[1] / "train_tiny.py"
UPDATES = 80


@pytest.fixture
def train(tmp_path):
    """Start `wm train` on two logs in the test's folder; every process is killed at the end."""
    logs = [record(tmp_path / "a", 12), record(tmp_path / "b", 8, seed=1)]
    running = []

    def start(run):
        arguments = ["--run", run, "--log", str(logs[0]), "--log", f"{logs[1]}:0.3", "--steps",
                 str(UPDATES), "--publish-s", "0.2", "--eval-every", "20", "--hold-out", "0.3",
                 "--seed", "3", "--device", "cpu"]  # fmt: skip
        command = [sys.executable, str(PROGRAM), *arguments]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def final_state(run):
    """The results of a run: weights, the learner's state, rows of metrics."""
    store = WeightStore(run / "weights")
    files = {f.name: f.read_bytes() for f in store.path(store.latest()).glob("*.safetensors")}
    state = torch.load(run / "trainer" / "state.pt", weights_only=True)
    return files, {k: state[k] for k in ("learner", "sampler", "origin", "metrics")}


def rows(run):
    with (run / "metrics" / "train.csv").open() as file:
        return [line[1:] for line in csv.reader(file)]  # without the time


def equal(a, b):
    """Are two nests of dicts, lists, tensors and numbers equal, bit for bit?"""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.timeout(900)
def test_kills_do_not_change_weights_state_and_metrics(train, tmp_path):
    uninterrupted = train("whole")
    output, _ = uninterrupted.communicate(timeout=240)
    assert uninterrupted.returncode == 0, output
    assert f"{UPDATES} of {UPDATES} updates" in output
    assert "heldout/reward_correlation" in output

    random_wait, folder = random.Random(0), tmp_path / "runs" / "killed"
    kills = 0
    while kills < 3:
        process = train("killed")
        before = (folder / "weights" / "latest").exists() and final_state(folder)[1]["learner"]
        while process.poll() is None:  # it must make progress, or the test never ends
            if (folder / "trainer" / "state.pt").exists() and (
                not before or final_state(folder)[1]["learner"]["updates"] > before["updates"]
            ):
                break
            time.sleep(0.02)
        time.sleep(random_wait.uniform(0.0, 0.5))
        process.kill()
        output, _ = process.communicate()
        if process.returncode == 0:  # it ended before the kill
            break
        assert process.returncode == -9, output
        kills += 1
    assert kills >= 1
    for _ in range(2):  # the second time all updates are done
        process = train("killed")
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output

    (weights, state), (killed_weights, killed_state) = (
        final_state(tmp_path / "runs" / "whole"),
        final_state(folder),
    )
    assert weights == killed_weights
    assert equal(state, killed_state)
    assert rows(tmp_path / "runs" / "whole") == rows(folder)
    assert tensorboard(tmp_path / "runs" / "whole") == tensorboard(folder)


def tensorboard(run):
    """Steps and values of every curve, as TensorBoard shows them."""
    board = EventAccumulator(str(run / "metrics" / "tensorboard"))
    board.Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
