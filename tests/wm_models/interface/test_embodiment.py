"""Robot units and model units: conversion in both directions; embodiments as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.world_model import ModelSpec

EMBODIMENT = Embodiment(
    action_low=(-0.5, 2.0),
    action_high=(1.5, 2.5),
    action_mean=(0.3, 2.2),
    action_std=(0.4, 0.1),
    proprio_mean=(0.1,),
    proprio_std=(2.0,),
    period_s=0.05,
)
CHOICES = Embodiment((0.0,) * 3, (1.0,) * 3, (1 / 3,) * 3, (0.5,) * 3, discrete=True)


def normalised(embodiment: Embodiment, frameskip: int) -> ModelSpec:
    """A model whose actions are z-scores."""
    stats = list(zip(embodiment.action_mean, embodiment.action_std, strict=True))
    low = [(x - m) / s for x, (m, s) in zip(embodiment.action_low, stats, strict=True)]
    high = [(x - m) / s for x, (m, s) in zip(embodiment.action_high, stats, strict=True)]
    return ModelSpec(tuple(low) * frameskip, tuple(high) * frameskip, {}, frameskip=frameskip)


def test_an_embodiment_survives_json() -> None:
    seeing = replace(EMBODIMENT, cameras=("front", "wrist"))
    for each in (EMBODIMENT, CHOICES, seeing):
        assert Embodiment.from_json(json.loads(json.dumps(each.to_json()))) == each


def test_json_without_discrete_is_continuous_as_in_older_manifests() -> None:
    assert not {"discrete", "cameras"} & EMBODIMENT.to_json().keys()
    assert not Embodiment.from_json(EMBODIMENT.to_json()).discrete


def test_discrete_actions_go_from_0_to_1() -> None:
    with pytest.raises(ModelError, match=r"discrete actions from .* expected 0 to 1"):
        replace(EMBODIMENT, discrete=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.integers(1, 3))
def test_actions_are_restored_from_model_units(shares: list[float], frameskip: int) -> None:
    adapter = ActionAdapter.between(EMBODIMENT, normalised(EMBODIMENT, frameskip))
    share = torch.tensor(shares).reshape(3, 2)[:frameskip]
    low, high = torch.tensor(EMBODIMENT.action_low), torch.tensor(EMBODIMENT.action_high)
    actions = low + (high - low) * share
    model = adapter.from_robot(actions)
    assert model.shape == (2 * frameskip,)
    assert_close(adapter.to_robot(model), actions)


def test_z_scores_follow_from_mean_and_deviation() -> None:
    adapter = ActionAdapter.between(EMBODIMENT, normalised(EMBODIMENT, 1))
    action = torch.tensor([[0.7, 2.05]])
    expected = (action - torch.tensor(EMBODIMENT.action_mean)) / torch.tensor(EMBODIMENT.action_std)
    assert_close(adapter.scale(action), expected)


def test_robot_actions_stay_in_the_robot_s_box() -> None:
    adapter = ActionAdapter.between(EMBODIMENT, normalised(EMBODIMENT, 2))
    clipped = adapter.to_robot(torch.tensor([100.0, -100.0, -100.0, 100.0]))
    assert_close(clipped, torch.tensor([[1.5, 2.0], [-0.5, 2.5]]))


def test_equal_boxes_change_no_bit() -> None:
    unit = Embodiment.unit(3)
    adapter = ActionAdapter.between(unit, ModelSpec((-1.0,) * 3, (1.0,) * 3, {}))
    x = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(adapter.scale(x), x) and torch.equal(adapter.unscale(x), x)


@pytest.mark.parametrize(
    "invalid",
    [
        {"action_std": (0.0, 1.0)},
        {"action_low": (2.0, 2.0)},
        {"action_mean": (0.0,)},
        {"cameras": ("front",)},
        {"cameras": ("front", "front")},
    ],
)
def test_an_invalid_embodiment_is_refused(invalid: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ModelError, match=r"embodiment: got .*, expected"):
        replace(EMBODIMENT, **invalid)  # type: ignore[arg-type]


def test_another_number_of_actions_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"got a model with .* in all, expected 2 per robot step, 2 steps"
    ):
        ActionAdapter.between(EMBODIMENT, ModelSpec((-1.0,) * 2, (1.0,) * 2, {}, frameskip=2))
