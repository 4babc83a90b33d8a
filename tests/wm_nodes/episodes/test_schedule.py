"""The episodes of a run, and their continuation after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from wm_nodes.episodes.schedule import Counts, CountsFile, Schedule, StopCriteria


def run(schedule: Schedule, length: int = 10, limit: int = 100) -> list[tuple[bool, int]]:
    episodes = []
    while (episode := schedule.next()) is not None and len(episodes) < limit:
        for _ in range(length):
            schedule.count_step(episode, 2)
        schedule.count_episode(episode)
        episodes.append((episode.explore, episode.index))
    return episodes


def test_a_run_ends_after_its_episodes() -> None:
    assert run(Schedule(StopCriteria(episodes=3), 0)) == [(True, 0), (True, 1), (True, 2)]


def test_a_run_ends_with_the_episode_that_reaches_its_steps() -> None:
    schedule = Schedule(StopCriteria(steps=50), 0)
    assert len(run(schedule)) == 3 and schedule.counts.steps == 60


def test_without_criteria_a_run_does_not_end() -> None:
    assert len(run(Schedule(StopCriteria(), 0), limit=50)) == 50


def test_evaluation_is_in_blocks_between_training_and_at_the_end() -> None:
    criteria = StopCriteria(episodes=4, eval_every=20, eval_episodes=2)
    explored = [explore for explore, _ in run(Schedule(criteria, 0))]
    assert explored == [True, True, False, False, True, True, False, False]


def test_evaluation_does_not_count_as_training() -> None:
    schedule = Schedule(StopCriteria(episodes=2, eval_every=10, eval_episodes=3), 0)
    run(schedule)
    assert schedule.counts.decisions == 20 and schedule.counts.eval_episodes == 6


def test_an_evaluation_run_has_evaluation_episodes_only() -> None:
    assert run(Schedule(StopCriteria(episodes=2, evaluate=True), 0)) == [(False, 0), (False, 1)]


def test_training_and_evaluation_never_share_a_seed() -> None:
    schedule = Schedule(StopCriteria(episodes=50, eval_every=10, eval_episodes=1), 3)
    seeds = []
    while (episode := schedule.next()) is not None:
        seeds.append(episode.seed)
        for _ in range(10):
            schedule.count_step(episode, 2)
        schedule.count_episode(episode)
    assert len(set(seeds)) == len(seeds) == 100


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_restart_continues_with_the_same_episodes(tmp_path: Path, stop_after: int) -> None:
    criteria = StopCriteria(episodes=6, eval_every=20, eval_episodes=2)
    uninterrupted = run(Schedule(criteria, 0))
    first = Schedule(criteria, 0)
    before = run(first, limit=stop_after)[:stop_after]
    progress = CountsFile(str(tmp_path / "deep" / "progress.json"))
    progress.save(first.counts)
    # the episode that was begun at the limit is repeated
    after = run(Schedule(criteria, 0, progress.load()))
    assert (before + after)[: len(uninterrupted)] == uninterrupted


def test_no_file_means_fresh_counts(tmp_path: Path) -> None:
    assert CountsFile("").load() == CountsFile(str(tmp_path / "none")).load() == Counts()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"episode": 1}'])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"progress\.json"):
        CountsFile(str(path)).load()
