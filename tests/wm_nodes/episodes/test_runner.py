"""The runner: which scenes the episodes of a schedule show."""

from __future__ import annotations

import numpy as np

from tests.wm_nodes.point_robot import UnscoredPoint
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.records import RANDOM


def shown(criteria: StopCriteria) -> list[bool]:
    robot = UnscoredPoint(time_limit=2)
    runner = EpisodeRunner(robot, Schedule(criteria, seed=0))
    while (transition := runner.begin()) is not None:
        while not transition.step.is_last:
            transition = runner.execute(np.float32([0.5]), RANDOM)
    return robot.shown


def test_evaluation_episodes_show_held_out_scenes_and_training_episodes_do_not() -> None:
    blocks = StopCriteria(episodes=4, eval_every=4, eval_episodes=1)
    assert shown(blocks) == [False, False, True, False, False, True]


def test_all_episodes_of_an_evaluation_run_show_held_out_scenes() -> None:
    assert shown(StopCriteria(episodes=3, evaluate=True)) == [True] * 3
