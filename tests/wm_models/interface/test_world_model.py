"""Log rows as transitions, and functions for states and plans."""

from __future__ import annotations

import pytest
import torch

from wm_models.errors import check_finite
from wm_models.interface.learner import arrival, without_context
from wm_models.interface.planner import PlanState
from wm_models.interface.state import expand, index, split_raw, with_raw


def window(**over: torch.Tensor) -> dict[str, torch.Tensor]:
    """Six rows: the end of one episode (three rows), the beginning of another."""
    rows = {
        "image": torch.arange(6, dtype=torch.uint8).reshape(1, 6),
        "action": torch.tensor([[1.0, 2, 0, 4, 5, 6]])[..., None],
        "reward": torch.tensor([[10.0, 20, 0, 40, 50, 60]]),
        "is_first": torch.tensor([[0, 0, 0, 1, 0, 0]]).bool(),
        "is_last": torch.tensor([[0, 0, 1, 0, 0, 0]]).bool(),
        "is_terminal": torch.tensor([[0, 1, 0, 0, 0, 0]]).bool(),
    }
    return {**rows, **over}


def test_rows_have_the_step_that_led_to_them() -> None:
    transitions = arrival(window())
    assert transitions["action"][0, :, 0].tolist() == [0, 1, 2, 0, 4, 5]
    assert transitions["reward"][0].tolist() == [0, 10, 20, 0, 40, 50]
    assert transitions["is_terminal"][0].tolist() == [False, False, True, False, False, False]
    assert transitions["image"].equal(window()["image"])


def test_a_window_inside_an_episode_resets_the_filter() -> None:
    transitions = arrival(window())
    assert transitions["is_first"][0].tolist() == [True, False, False, True, False, False]
    assert transitions["reward_known"][0].tolist() == [False, True, True, True, True, True]
    from_reset = arrival(window(is_first=torch.tensor([[1, 0, 0, 1, 0, 0]]).bool()))
    assert from_reset["reward_known"].all()  # at a true start the reward is 0, and known


def test_the_end_of_an_episode_is_kept() -> None:
    """The log marks a last row itself, too; some formats mark nothing else."""
    only_last = window(is_terminal=torch.tensor([[0, 0, 1, 0, 0, 0]]).bool())
    transitions = arrival(only_last)["is_terminal"][0].tolist()
    assert transitions == [False, False, True, False, False, False]
    cut = window(  # a killed writer: no last row, and the next episode begins
        is_last=torch.zeros(1, 6).bool(), reward=torch.tensor([[10.0, 20, 30, 40, 50, 60]])
    )
    transitions = arrival(cut)
    assert transitions["reward"][0].tolist() == [0, 10, 20, 0, 40, 50]
    assert transitions["action"][0, 3, 0] == 0


def test_every_row_has_its_reward_without_the_context() -> None:
    transitions = without_context(arrival(window()), keep_resets=False)
    assert transitions["image"][0].tolist() == [1, 2, 3, 4, 5]
    assert transitions["action"][0, :, 0].tolist() == [1, 2, 0, 4, 5]
    assert transitions["reward"][0].tolist() == [10, 20, 0, 40, 50]
    assert transitions["is_first"][0].tolist() == [True, False, True, False, False]
    assert transitions["is_terminal"][0].tolist() == [False, True, False, False, False]
    assert transitions["reward_known"].all()


def test_a_reset_frame_is_kept_at_the_beginning_of_a_window() -> None:
    """Two windows: of rows 0 to 5, the first inside an episode, the second at its start."""
    inside, begins = window(), window(is_first=torch.tensor([[1, 0, 0, 1, 0, 0]]).bool())
    both = {name: torch.cat([inside[name], begins[name]]) for name in inside}
    transitions = without_context(arrival(both), keep_resets=False)
    assert transitions["image"].tolist() == [[1, 2, 3, 4, 5]] * 2
    transitions = without_context(arrival(both), keep_resets=True)
    assert transitions["image"].tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
    assert transitions["reward"].tolist() == [[10, 20, 0, 40, 50], [0, 10, 20, 0, 40]]
    assert transitions["is_first"][:, 0].all() and transitions["reward_known"].all()


def test_a_window_may_begin_with_the_last_row_of_an_episode() -> None:
    joined = window(is_first=torch.tensor([[0, 1, 0, 0, 0, 0]]).bool())
    transitions = without_context(arrival(joined), keep_resets=True)
    assert transitions["image"][0, 0] == 1 and transitions["is_first"][0, 0]
    assert transitions["reward"][0, 0] == 0 and transitions["action"][0, 0] == 0


def test_arrival_does_not_change_the_batch() -> None:
    rows, same = window(), window()
    arrival(rows)
    assert all(rows[k].equal(same[k]) for k in rows)


def test_copies_of_a_row_are_adjacent() -> None:
    state = {"x": torch.tensor([1, 2]), "y": (torch.tensor([[3], [4]]),)}
    wide = expand(state, 3)
    assert wide["x"].tolist() == [1, 1, 1, 2, 2, 2]
    assert index(wide, slice(None, None, 3))["y"][0].tolist() == [[3], [4]]


def test_copies_of_a_single_row_are_views() -> None:
    state = {"x": torch.tensor([[1.0, 2.0]])}
    wide = expand(state, 3)["x"]
    assert wide.tolist() == [[1.0, 2.0]] * 3
    assert wide.data_ptr() == state["x"].data_ptr()


@pytest.mark.parametrize(("steps", "expected"), [(1, [2, 3, 0]), (2, [3, 0, 0]), (5, [0, 0, 0])])
def test_plans_shift(steps: int, expected: list[int]) -> None:
    goal = {"visual": torch.ones(1, 2)}
    plan = PlanState(torch.tensor([[[1.0], [2.0], [3.0]]]), goal)
    assert plan.shifted(steps).mean[0, :, 0].tolist() == expected
    assert plan.shifted(steps).goal is goal


def test_a_plan_is_used_for_the_rows_of_its_own_goal() -> None:
    goal = {"visual": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    plan = PlanState(torch.zeros(2, 3, 1), goal)
    other = {"visual": torch.tensor([[1.0, 2.0], [3.0, 5.0]])}
    assert plan.serves(goal).tolist() == [True, True]
    assert plan.serves({"visual": goal["visual"].clone()}).tolist() == [True, True]
    assert plan.serves(other).tolist() == [True, False]
    assert plan.serves(None).tolist() == [False, False]
    assert plan.serves({"feat": goal["visual"]}).tolist() == [False, False]
    assert PlanState(plan.mean).serves(goal).tolist() == [True, True]  # without a goal


@pytest.mark.parametrize("size", [1, 4, 5, 8, 11])
def test_raw_numbers_are_stored_with_features(size: int) -> None:
    tokens, raw = torch.randn(3, 2, 4), torch.randn(3, size)
    features = with_raw(tokens, raw)
    assert features.shape == (3, 2 + -(-size // 4), 4)
    split_tokens, same = split_raw(features, size)
    assert torch.equal(split_tokens, tokens) and torch.equal(same, raw)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(FloatingPointError, match="wm/loss became"):
        check_finite("wm/loss", value)
    assert check_finite("x", 1.0) == 1.0
