"""Intervals against published values; evaluation counts outcomes, on separate episodes."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from tests.wm_nodes.point_robot import PointRobot, UnscoredPoint
from wm_nodes.evaluation.baselines import Constant, Random
from wm_nodes.evaluation.evaluate import evaluate, mean_interval, student, wilson
from wm_nodes.robots.robot import RobotError


class Homing:
    """Pushes straight to the origin."""

    def begin(self):
        self.begun = True

    def act(self, observation):
        return -observation.proprio


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe (1998), table I, method 3, and the closed forms at the ends
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_s_interval_is_the_published_one(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="got 4, expected 0 to 3"):
        wilson(4, 3)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (19, 2.093), (99, 1.984)],
)
def test_student_s_quantile_is_the_tabled_one(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, rel=0.011)


def test_the_interval_of_a_mean():
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((1.037, 4.963), abs=2e-3)
    assert mean_interval([3.0]) == (-math.inf, math.inf)


def test_evaluation_counts_lengths_returns_and_successes():
    observations = []
    result = evaluate(PointRobot(), Homing(), 4, seed=1, name="homing", watch=observations.append)
    assert result.success_rate == 1
    assert result.success_interval[1] == 1
    assert [row.length for row in result.rows] == [5] * 4
    assert all(row.first_success == 1 for row in result.rows)
    assert result.mean_return == pytest.approx(0)
    assert len(observations) == 4 * 6
    assert sum(observation.is_first for observation in observations) == 4


def test_every_policy_has_the_same_episodes_of_a_seed():
    used = PointRobot(seed=9)
    evaluate(used, Constant([1.0]), 3, seed=5)
    first = evaluate(used, Constant([0.0]), 6, seed=2)
    second = evaluate(PointRobot(seed=0), Constant([0.0]), 6, seed=2)
    assert first.rows == second.rows
    assert evaluate(used, Constant([0.0]), 6, seed=3).rows != first.rows


def test_equal_seeds_give_equal_random_results():
    rows = [
        evaluate(robot, Random(robot, 4), 3, seed=0).rows for robot in (PointRobot(), PointRobot())
    ]
    assert rows[0] == rows[1]


def test_the_csv_holds_every_episode(tmp_path):
    result = evaluate(PointRobot(), Homing(), 3, seed=1, name="homing")
    result.write_csv(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["success"] for row in rows] == ["1"] * 3
    assert {(row["task"], row["policy"], row["seed"]) for row in rows} == {
        ("origin", "homing", "1")
    }


def test_the_summary_is_json_even_of_one_episode():
    summary = evaluate(PointRobot(), Constant([0.0]), 1, seed=1).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_one_episode_has_no_interval():
    text = str(evaluate(PointRobot(), Homing(), 1, seed=0, name="homing"))
    assert text.endswith(("return 0, 1 episode", "return -0, 1 episode"))
    assert "inf" not in text


def test_every_finished_episode_is_reported_at_once():
    finished = []
    result = evaluate(PointRobot(), Homing(), 3, seed=1, done=finished.append)
    assert tuple(finished) == result.rows


def test_no_episodes_are_refused():
    with pytest.raises(RobotError, match="got 0, expected a whole number from 1"):
        evaluate(PointRobot(), Constant([0.0]), 0, seed=0)


def test_result_prints_rate_and_interval():
    text = str(evaluate(PointRobot(), Homing(), 20, seed=0, name="homing"))
    assert "homing: success 1.00 [0.84, 1.00]" in text
    assert np.isfinite(float(text.split("return ")[1].split()[0]))


def test_a_task_that_reports_no_success_has_returns_only(tmp_path):
    result = evaluate(UnscoredPoint(), Homing(), 3, seed=0)
    assert "success" not in str(result) and "return 0" in str(result)
    summary = result.summary()
    assert summary["success_rate"] is None and summary["success_interval_95"] is None
    assert summary["mean_return"] == pytest.approx(0)
    result.write_csv(tmp_path / "episodes.csv")
    with (tmp_path / "episodes.csv").open() as file:
        assert {row["success"] for row in csv.DictReader(file)} == {""}


def test_evaluation_shows_scenes_of_evaluation_and_leaves_those_of_training():
    robot = UnscoredPoint()
    evaluate(robot, Homing(), 2, seed=0)
    robot.reset()
    with pytest.raises(ZeroDivisionError):
        evaluate(robot, Homing(), 2, seed=0, watch=lambda observation: 1 // 0)
    robot.reset()
    assert robot.shown == [True, True, False, True, False]
