"""The mean of weights: of each number, of one run, and refused for weights of different presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from wm_models.interface.embodiment import Embodiment
from wm_models.registry import preset
from wm_models.weights.averaging import average
from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import WeightStore, load_model

NAME = "mwm_cpu"


def versions(folder: Path, count: int, name: str = NAME, first: int = 1) -> list[dict]:
    """Save untrained models as versions of one run; return their states."""
    states = []
    for version in range(first, first + count):
        torch.manual_seed(version)
        model = preset(name).build(Embodiment.unit(4))
        manifest = Manifest(version, name, 4, step=100 * version, extra={"task": "x"})
        WeightStore(folder).save(model.modules_by_name(), manifest)
        states.append(model.state_dict())
    return states


def test_each_number_is_the_mean_of_the_newest(tmp_path):
    states = versions(tmp_path / "run", 3)[1:]
    averaged = average(tmp_path / "run", 2, tmp_path / "out")
    assert (averaged.version, averaged.parent, averaged.step) == (3, 3, 300)
    assert averaged.extra == {"task": "x", "averaged": [2, 3]}
    model, read = load_model(tmp_path / "out")
    assert read == averaged and WeightStore(tmp_path / "run").versions() == [1, 2, 3]
    for name, value in model.state_dict().items():
        expected = states[1][name]
        if value.is_floating_point():
            expected = (states[0][name].double() + expected.double()) / 2
        assert_close(value.double(), expected.double(), rtol=0, atol=1e-7, msg=name)


@pytest.mark.parametrize("last", [1, 3])
def test_too_few_versions_are_refused(tmp_path, last):
    versions(tmp_path / "run", 2)
    with pytest.raises(WeightsError, match=f"last: {last}, .* Right: 2, or as many"):
        average(tmp_path / "run", last, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_two_presets_have_no_mean(tmp_path):
    versions(tmp_path / "run", 1)
    versions(tmp_path / "run", 1, "mwm_cpu_plan", first=2)
    with pytest.raises(WeightsError, match="version 1 is of mwm_cpu, 2 of mwm_cpu_plan"):
        average(tmp_path / "run", 2, tmp_path / "out")


def test_the_run_itself_stays_as_it_is(tmp_path):
    versions(tmp_path / "run", 2)
    before = load_model(tmp_path / "run")[1]
    with pytest.raises(WeightsError, match=r"out: .* Right: another folder"):
        average(tmp_path / "run", 2, tmp_path / "run" / ".." / "run")
    assert load_model(tmp_path / "run")[1] == before
