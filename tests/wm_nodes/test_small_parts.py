"""Small parts: synchronizing by stamp, due actions, images, liveness, noise, switching."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wm_datasets.spec import VectorSpec
from wm_nodes.agent.noise import noise_seed, numpy_noise, torch_noise
from wm_nodes.agent.weights import VersionSwitch
from wm_nodes.control.plans import check_plan, due_action
from wm_nodes.episodes.episode_stats import EpisodeTracker
from wm_nodes.errors import MessageError
from wm_nodes.records import Origin, Plan, Step
from wm_nodes.robots.cameras.preprocess import ImagePipeline, Liveness
from wm_nodes.ros.synchronizer import Synchronizer

ACTION = VectorSpec(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0))
ZERO = np.zeros(2, np.float32)


def step(stamp_ns: int, **rest) -> Step:
    return Step(stamp_ns, ACTION.names, ZERO, ZERO, **rest)


# Synchronizer


def test_a_complete_set_is_returned_in_any_order() -> None:
    for order in (("a", "b"), ("b", "a")):
        synchronizer = Synchronizer(("a", "b"))
        assert synchronizer.put(order[0], 1, order[0]) is None
        assert synchronizer.put(order[1], 1, order[1]) == {"a": "a", "b": "b"}


def test_stamps_do_not_mix() -> None:
    synchronizer = Synchronizer(("a", "b"))
    synchronizer.put("a", 1, "old")
    assert synchronizer.put("b", 2, "new") is None


def test_incomplete_stamps_are_bounded_and_the_oldest_is_dropped() -> None:
    dropped: list[tuple[int, frozenset[str]]] = []
    synchronizer = Synchronizer(
        ("a", "b"), size=3, on_drop=lambda stamp, had: dropped.append((stamp, had))
    )
    for stamp in range(5):
        synchronizer.put("a", stamp, None)
    assert dropped == [(0, frozenset("a")), (1, frozenset("a"))]


# Plans


def plan(actions: list, names: tuple = ("x", "y")) -> Plan:
    return Plan(0, Origin("m", "actor", 1), names, np.float32(actions), 0.1)


def test_dimensions_are_put_in_the_robots_order() -> None:
    assert check_plan(plan([[1, 2]], names=("y", "x")), ACTION).actions.tolist() == [[2, 1]]


@pytest.mark.parametrize("names", [("x", "z"), ("x",), ("x", "x"), ("x", "y", "z")])
def test_unknown_dimensions_are_refused(names: tuple) -> None:
    with pytest.raises(MessageError, match="dimensions"):
        check_plan(plan([[0] * len(names)], names=names), ACTION)


@pytest.mark.parametrize(
    ("age_ms", "index", "overdue_ms"), [(0, 0, -200), (99, 0, -101), (100, 1, -100), (250, 1, 50)]
)
def test_the_due_point_of_a_plan(age_ms: int, index: int, overdue_ms: int) -> None:
    action, overdue = due_action(plan([[0, 0], [1, 1]]), age_ms / 1e3, 0.1)
    assert action.tolist() == [index] * 2 and overdue == pytest.approx(overdue_ms / 1e3)


# Images


def test_an_image_of_the_right_size_is_passed_on_unchanged() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    assert np.shares_memory(ImagePipeline(64, 64)(image), image)


def test_crop_comes_before_resize() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 255
    out = ImagePipeline(64, 64, (0.5, 0.0, 0.0, 0.0))(image)
    assert out.shape == (64, 64, 3) and (out == 255).all()


@pytest.mark.parametrize("crop", [(-0.1, 0, 0, 0), (0.5, 0, 0.5, 0), (0, 1, 0, 0)])
def test_a_crop_that_leaves_no_pixel_is_refused(crop: tuple) -> None:
    with pytest.raises(ValueError, match="crop"):
        ImagePipeline(8, 8, crop)


def test_a_silent_and_a_frozen_camera_are_distinguished() -> None:
    liveness = Liveness(stale_s=1.0, frozen_s=2.0)
    assert liveness.fault(100.0) is None  # no image has been received yet
    for tick in range(30):
        liveness.saw(np.full((8, 8, 3), min(tick, 5), np.uint8), tick / 10)
    assert "frozen" in (liveness.fault(2.9) or "")
    liveness.saw(np.full((8, 8, 3), 99, np.uint8), 3.0)
    assert liveness.fault(3.1) is None
    assert "silent" in (liveness.fault(4.5) or "")


# Noise


def test_noise_depends_on_seed_role_and_stamp_only() -> None:
    seeds = {noise_seed(s, r, t) for s in range(5) for r in ("a", "b") for t in range(5)}
    assert len(seeds) == 50 and noise_seed(1, "a", 2) == noise_seed(1, "a", 2)
    first, second = torch.Generator(), torch.Generator()
    torch.rand(7, generator=second)  # earlier draws do not matter
    assert torch.equal(
        torch.rand(3, generator=torch_noise(first, 0, "a", 9)),
        torch.rand(3, generator=torch_noise(second, 0, "a", 9)),
    )
    assert numpy_noise(0, "a", 9).random() == numpy_noise(0, "a", 9).random()


# VersionSwitch

OLD, NEW = SimpleNamespace(version=1), SimpleNamespace(version=2)


def test_new_weights_wait_for_an_episodes_start() -> None:
    switch = VersionSwitch()
    assert switch.at(step(0, is_first=True), OLD) is OLD
    assert switch.at(step(1), NEW) is OLD
    assert switch.at(step(2, is_first=True), NEW) is NEW


def test_a_block_of_evaluation_keeps_its_weights() -> None:
    switch = VersionSwitch()
    assert switch.at(step(0, is_first=True), OLD) is OLD
    assert switch.at(step(1, is_first=True, explore=False), OLD) is OLD
    assert switch.at(step(2, is_first=True, explore=False), NEW) is OLD
    assert switch.at(step(3, is_first=True), NEW) is NEW


def test_a_block_of_evaluation_begins_with_the_newest() -> None:
    switch = VersionSwitch()
    switch.at(step(0, is_first=True), OLD)
    assert switch.at(step(1, is_first=True, explore=False), NEW) is NEW


def test_the_first_weights_are_used_at_once() -> None:
    switch = VersionSwitch()
    assert switch.at(step(0, is_first=True), None) is None
    assert switch.at(step(1), NEW) is NEW


def test_swap_now_does_not_wait() -> None:
    switch = VersionSwitch("now")
    switch.at(step(0, is_first=True), OLD)
    assert switch.at(step(1), NEW) is NEW


# EpisodeTracker


def test_a_complete_episode_is_measured_once() -> None:
    tracker = EpisodeTracker()
    assert tracker.step(step(0, reward=5.0, is_last=True)) is None  # joined midway
    tracker.step(step(1, is_first=True))
    for stamp in (2, 2, 3):
        assert tracker.step(step(stamp, reward=1.0, success=stamp == 3)) is None
    stats = tracker.step(step(4, reward=2.0, is_last=True, explore=False, weights=3))
    assert stats is not None
    assert (stats.length, stats.total_reward, stats.success) == (3, 4.0, True)
    assert (stats.first_success, stats.explore, stats.weights) == (2, False, 3)


# Origin


@pytest.mark.parametrize("text", ["", "a/b", "a@1", "/b@1", "a/@1", "a/b@", "a/b@one"])
def test_a_wrong_frame_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="frame_id"):
        Origin.parse(text)


def test_a_frame_survives() -> None:
    for text in ("mwm_cpu/actor@7", "random/uniform@-1"):
        assert str(Origin.parse(text)) == text
