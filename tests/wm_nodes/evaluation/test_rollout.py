"""The loop of an episode yields every observation once and counts outcomes of actions."""

from __future__ import annotations

from tests.wm_nodes.point_robot import PointRobot
from tests.wm_nodes.tiny import Homing
from wm_nodes.evaluation.rollout import EpisodeTally, rollout


def test_a_rollout_is_one_episode_from_reset_to_its_end():
    with PointRobot(time_limit=4) as robot:
        observations = list(rollout(robot, Homing(), 3))
        assert [observation.is_first for observation in observations] == [True] + [False] * 4
        assert [observation.is_last for observation in observations] == [False] * 4 + [True]
        assert robot.observe() is observations[-1]
        with PointRobot(time_limit=4) as other:
            assert observations[0].proprio == other.reset(3).proprio


def test_a_tally_counts_outcomes_of_actions():
    with PointRobot(time_limit=4) as robot:
        tally, observations = EpisodeTally(), list(rollout(robot, Homing(), 3))
        for observation in observations:
            tally.add(observation)
        assert tally.length == 4
        assert tally.total_reward == sum(observation.reward for observation in observations)
        successes = [observation.success for observation in observations]
        assert tally.success
        assert tally.first_success == successes.index(True)
    assert not EpisodeTally().success
