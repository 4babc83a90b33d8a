"""The runner: which scenes the episodes of a schedule show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.wm_nodes.point_robot import PointRobot, UnscoredPoint
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.evaluation.baselines import Hold
from wm_nodes.evaluation.rollout import rollout
from wm_nodes.records import RANDOM
from wm_nodes.robots.robot import ObservationError


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


class Overridden(PointRobot):
    """Returns observations with other values in some fields."""

    def __init__(self, **changes) -> None:
        super().__init__()
        self.changes = changes

    def reset(self, seed=None):
        return replace(super().reset(seed), **self.changes)


NAN, HUGE = float("nan"), 1e39  # infinite in float32


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("reward", NAN, "reward"),
        ("reward", HUGE, "reward"),
        ("proprio", np.float32([NAN]), "proprio"),
        ("proprio", np.array([HUGE]), "proprio"),
        ("executed", np.float32([np.inf]), "executed"),
        ("signals", np.float32([0.0, NAN]), "signals"),
        ("images", {"top": np.full((8, 8, 3), np.nan, np.float32)}, "image 'top'"),
        ("depths", {"top": np.full((8, 8), np.nan, np.float32)}, "image 'top'"),
    ],
)
def test_an_observation_that_is_not_finite_is_refused_by_its_part(part, value, named) -> None:
    robot = Overridden(**{part: value})
    runner = EpisodeRunner(robot, Schedule(StopCriteria(), seed=0))
    with pytest.raises(ObservationError, match=f"observation of point: {named}: got"):
        runner.begin()
    assert runner.newest is None
    with pytest.raises(ObservationError, match=f"observation of point: {named}: got"):
        next(rollout(robot, Hold(robot), 0))
