"""Action spaces: continuous vectors are clipped, discrete ones become one-hot."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_datasets.errors import LogSpecError
from wm_datasets.spec import VectorSpec

BOX = VectorSpec(("x", "y"), ("m", "1"), (-0.1, 2.0), (0.7, 3.0))
SET = VectorSpec.one_hot(("left", "stay", "right"))
numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


@given(numbers)
def test_the_largest_number_selects_a_discrete_action(values: list[float]) -> None:
    chosen = SET.nearest(np.float32(values))
    assert chosen.dtype == np.float32
    assert sorted(chosen) == [0, 0, 1]
    assert values[int(chosen.argmax())] == max(values)
    np.testing.assert_array_equal(SET.nearest(chosen), chosen)


def test_of_equal_numbers_the_first_selects_and_rows_are_independent() -> None:
    rows = np.float32([[0, 0, 0], [0.5, 0.5, 0], [-3, -1, -2]])
    np.testing.assert_array_equal(SET.nearest(rows), np.eye(3)[[0, 0, 1]])


def test_a_continuous_vector_is_clipped() -> None:
    np.testing.assert_array_equal(BOX.nearest(np.array([-1.0, 2.5])), np.float32([-0.1, 2.5]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_draw_is_valid_and_seeded(seed: int) -> None:
    for space in (BOX, SET):
        drawn = space.draw(np.random.default_rng(seed))
        assert drawn.dtype == np.float32 and drawn.shape == (len(space),)
        np.testing.assert_array_equal(space.nearest(drawn), drawn)
        np.testing.assert_array_equal(space.draw(np.random.default_rng(seed)), drawn)


def test_every_discrete_action_is_drawn_equally_often() -> None:
    random = np.random.default_rng(0)
    share = np.mean([SET.draw(random) for _ in range(3000)], axis=0)
    np.testing.assert_allclose(share, 1 / 3, atol=0.03)


@pytest.mark.parametrize("space", [BOX, SET])
def test_it_survives_json(space: VectorSpec) -> None:
    assert VectorSpec.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_json_without_the_attribute_is_continuous_and_continuous_json_lacks_it() -> None:
    assert "discrete" not in BOX.to_json()
    assert not VectorSpec.from_json(BOX.to_json()).discrete


def test_a_discrete_set_has_numbers_from_0_to_1() -> None:
    with pytest.raises(LogSpecError, match=r"discrete with low .* expected 0 and 1"):
        VectorSpec(("a", "b"), ("1", "1"), (-1, -1), (1, 1), discrete=True)
