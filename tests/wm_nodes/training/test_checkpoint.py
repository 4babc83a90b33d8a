"""Checkpoints are whole or absent, and training resumes from the version that the state names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wm_models.weights.store import WeightsError
from wm_nodes.training.checkpoint import Checkpoints


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Linear(2, 3)


def save(checkpoints, module, step, state=None):
    manifest = checkpoints.save_weights({"part": module}, preset="tiny", action_dim=1, step=step)
    if state is not None:
        checkpoints.write_state(manifest, state)
    return manifest


def test_weights_and_state_are_loaded_as_they_were_saved(tmp_path, module):
    first = Checkpoints(tmp_path / "run", keep=3)
    assert not first.exists()
    state = {"learner": {"moments": torch.arange(3.0)}, "sampler": "{}", "returns": 7}
    manifest = save(first, module, 5, state)
    other, reopened = nn.Linear(2, 3), Checkpoints(tmp_path / "run", keep=3)
    loaded, content = reopened.load({"part": other}, "tiny", "cpu")
    assert loaded == manifest and reopened.exists()
    assert torch.equal(other.weight, module.weight) and torch.equal(other.bias, module.bias)
    assert torch.equal(content["learner"]["moments"], torch.arange(3.0))
    assert (content["sampler"], content["returns"]) == ("{}", 7)
    assert (reopened.version, reopened.updates) == (first.version, first.updates) == (1, 5)


def test_newer_weights_without_a_state_are_not_resumed_from(tmp_path, module):
    checkpoints = Checkpoints(tmp_path / "run", keep=3)
    save(checkpoints, module, 5, {})
    with torch.no_grad():
        module.weight.fill_(9.0)
    save(checkpoints, module, 8)  # killed before its state
    other, reopened = nn.Linear(2, 3), Checkpoints(tmp_path / "run", keep=3)
    assert reopened.weights_folder() == reopened.store.path(1)
    reopened.load({"part": other}, "tiny", "cpu")
    assert reopened.updates == 5 and not (other.weight == 9.0).any()
    manifest = save(reopened, other, 9, {})
    assert (manifest.version, manifest.parent) == (3, 1)


def test_a_failed_write_keeps_the_previous_state(tmp_path, module, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "run", keep=3)
    save(checkpoints, module, 5, {"returns": 1})

    def full_disk(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(checkpoints, module, 6, {"returns": 2})
    assert (checkpoints.version, checkpoints.updates) == (1, 5)
    _, content = Checkpoints(tmp_path / "run", 3).load({"part": module}, "tiny", "cpu")
    assert content["returns"] == 1


def test_another_model_is_refused(tmp_path, module):
    checkpoints = Checkpoints(tmp_path / "run", keep=3)
    save(checkpoints, module, 5, {})
    with pytest.raises(
        WeightsError, match="run run: got model 'other', expected 'tiny', with which"
    ):
        checkpoints.load({"part": module}, "other", "cpu")


def test_the_callback_is_called_once_before_the_first_save(tmp_path, module):
    calls = []

    def begin():
        calls.append((tmp_path / "run" / "weights").exists())

    checkpoints = Checkpoints(tmp_path / "run", 3, begin)
    save(checkpoints, module, 1)
    save(checkpoints, module, 2)
    assert calls == [False]
