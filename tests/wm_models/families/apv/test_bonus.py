"""APV's bonus: figures by hand, what is novel, and the queue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.families.apv.bonus import Bonus, BonusConfig, mean_distance


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(**settings: object) -> Bonus:
    config = {"window": 3, "neighbours": 4, "queue": 40, "width": 8, **settings}
    return Bonus(BonusConfig(**config), 6, seeded())


def clips(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, length, 6, generator=seeded(seed))


def test_the_projection_has_a_standard_deviation_of_one_over_its_width() -> None:
    bonus = Bonus(BonusConfig(), 2048, seeded())
    assert bonus.projection.shape == (2048, 128)
    assert_close(float(bonus.projection.std()), 1 / 128, rtol=0.01, atol=0)
    assert Bonus(BonusConfig(), 2048, seeded()).projection.equal(bonus.projection)


def test_nearest_neighbours_by_hand() -> None:
    queue = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, -2.0]])
    found = mean_distance(queue[:2], queue, 3)
    assert_close(found, torch.tensor([(0 + 1 + 2) / 3, (0 + 20**0.5 + 5) / 3]))


def test_distances_are_those_of_all_pairs() -> None:
    rows, queue = torch.randn(50, 16, generator=seeded()), torch.randn(200, 16)
    every = torch.cdist(rows, queue, compute_mode="donot_use_mm_for_euclid_dist")
    expected = every.topk(16, largest=False).values.mean(-1)
    assert_close(mean_distance(rows, queue, 16), expected)


def test_identical_frames_are_not_novel() -> None:
    bonus = made()
    novelty = bonus(torch.ones(2, 7, 6))
    assert novelty.bonus.shape == (2, 5)
    assert not novelty.distance.any() and not novelty.bonus.any()


def test_each_mean_is_over_a_window_and_finds_itself() -> None:
    bonus, feat = made(neighbours=1), clips(2, 7)
    novelty = bonus(feat)
    assert not novelty.distance.any()
    means = torch.stack([feat[:, t : t + 3].mean(1) for t in range(5)], 1) @ bonus.projection
    assert_close(novelty.queue, means.flatten(0, 1))


def test_what_is_new_earns_more_than_what_was_seen() -> None:
    bonus = made(queue=400)
    seen, new = clips(4, 7), 3.0 + clips(4, 7, seed=1)
    for _ in range(4):
        bonus.take(bonus(seen))
    novelty = bonus(torch.cat([seen[:3], new[:1]]))
    assert float(novelty.bonus[3].min()) > float(novelty.bonus[:3].max())


def test_the_queue_keeps_the_latest_and_asking_changes_nothing() -> None:
    bonus = made(queue=16)
    first, second = bonus(clips(2, 7)), None
    assert int(bonus.filled) == 0 and not bonus.queue.any() and float(bonus.mag) == 1.0
    bonus.take(first)
    assert int(bonus.filled) == 10
    second = bonus(clips(2, 7, seed=1))
    bonus.take(second)
    assert int(bonus.filled) == 16
    assert bonus.queue[10:].equal(first.queue[:6])
    assert not bonus.queue[:10].equal(first.queue)


def test_the_bonus_is_divided_by_a_running_mean() -> None:
    bonus = made(momentum=0.9)
    novelty = bonus(clips(2, 7))
    mag = 0.9 + 0.1 * float(novelty.distance.mean())
    assert_close(float(novelty.mag), mag)
    assert_close(novelty.bonus, novelty.distance / mag)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="bonus/distance became nan"):
        made()(torch.full((1, 5, 6), float("nan")))


def test_settings_are_checked() -> None:
    with pytest.raises(ModelError, match="window: got 0, expected at least 1"):
        BonusConfig(window=0)
