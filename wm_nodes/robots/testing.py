"""The laws of the Robot contract as a test suite: give it a robot, it checks every promise.

A new robot is tested by:

    class TestMyArm(RobotContract):
        def make_robot(self) -> Robot:
            return MyArm(bus=FakeBus())
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from wm_nodes.robots.hold_action import still
from wm_nodes.robots.robot import Observation, Robot, RobotError, SpecError, Vector


class RobotContract:
    """Mixin for pytest classes. Set `max_decisions` if an episode has no end of its own."""

    max_decisions = 1000

    def make_robot(self) -> Robot:
        """Return a fresh robot, not yet reset."""
        raise NotImplementedError

    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with self.make_robot() as robot:
            yield robot

    def middle(self, robot: Robot) -> Vector:
        """Return an action in the middle of the bounds."""
        return np.mean([robot.spec.action.low, robot.spec.action.high], axis=0).astype(np.float32)

    def test_spec_is_complete_and_json_able(self, robot: Robot) -> None:
        spec = robot.spec
        assert spec.name
        assert spec.task
        assert spec.control_period_s > 0
        assert json.loads(json.dumps(spec.extra)) == spec.extra
        for vector in (spec.action, spec.proprio):
            sizes = {len(vector.names), len(vector.units), len(vector.low), len(vector.high)}
            assert len(sizes) == 1
            assert np.less(vector.low, vector.high).all()
        assert spec.log_spec().robot == spec.name

    def test_reset_gives_a_first_observation(self, robot: Robot) -> None:
        for _ in range(2):
            observation = robot.reset()
            assert observation.is_first
            assert not observation.is_last
            assert not observation.is_terminal
            assert observation.reward == 0
            names = robot.spec.action.names
            for action in (observation.executed, observation.commanded):
                np.testing.assert_array_equal(action, still(names, action))
            self.check_shapes(robot, observation)

    def test_act_gives_what_was_executed(self, robot: Robot) -> None:
        robot.reset()
        action = self.middle(robot)
        observation = robot.act(action)
        assert not observation.is_first
        np.testing.assert_array_equal(observation.commanded, action)
        np.testing.assert_array_equal(observation.executed, action)
        self.check_shapes(robot, observation)

    def test_an_action_out_of_bounds_is_clipped_and_told(self, robot: Robot) -> None:
        robot.reset()
        high = np.asarray(robot.spec.action.high, np.float32)  # as actions are
        observation = robot.act(high + 2 * np.abs(high) + 1)
        assert np.less_equal(observation.executed, high).all()
        assert np.greater(observation.commanded, observation.executed).all()

    @pytest.mark.parametrize("fault", ["nan", "inf", "short", "matrix", "words"])
    def test_a_bad_action_is_refused_and_nothing_moves(self, robot: Robot, fault: str) -> None:
        robot.reset()
        before = robot.act(self.middle(robot))
        good = self.middle(robot)
        bad: Any = {
            "nan": np.where(np.arange(good.size) == 0, np.nan, good),
            "inf": np.where(np.arange(good.size) == 0, np.inf, good),
            "short": good[:-1],
            "matrix": good[None],
            "words": "forward",
        }[fault]
        with pytest.raises(SpecError, match="expected"):
            robot.act(bad)
        np.testing.assert_array_equal(robot.observe().proprio, before.proprio)
        robot.act(good)

    def test_observe_moves_nothing(self, robot: Robot) -> None:
        with pytest.raises(RobotError, match="reset"):
            robot.observe()
        first = robot.reset()
        again = robot.observe()
        np.testing.assert_array_equal(again.proprio, first.proprio)
        assert again.is_first

    def test_act_needs_an_episode(self, robot: Robot) -> None:
        with pytest.raises(RobotError, match="reset"):
            robot.act(self.middle(robot))

    def test_stamps_grow_by_at_least_a_period(self, robot: Robot) -> None:
        period_ns = round(robot.spec.control_period_s * 1e9)
        stamps = [0, robot.reset().stamp_ns]
        stamps += [robot.act(self.middle(robot)).stamp_ns for _ in range(3)]
        stamps += [robot.reset().stamp_ns, robot.act(self.middle(robot)).stamp_ns]
        assert (np.diff(stamps) >= period_ns).all()

    def test_an_observation_is_never_written_again(self, robot: Robot) -> None:
        action = self.middle(robot)
        robot.reset()
        kept = robot.act(action)
        images = {name: image.copy() for name, image in kept.images.items()}
        proprio, executed = kept.proprio.copy(), kept.executed.copy()
        action[:] = robot.spec.action.high
        for _ in range(3):
            robot.act(action)
        for name, image in images.items():
            np.testing.assert_array_equal(kept.images[name], image)
        np.testing.assert_array_equal(kept.proprio, proprio)
        np.testing.assert_array_equal(kept.executed, executed)

    def test_the_end_is_an_end_until_reset(self, robot: Robot) -> None:
        observation = robot.reset()
        for _ in range(self.max_decisions):
            if observation.is_last:
                break
            observation = robot.act(self.middle(robot))
        assert observation.is_last
        with pytest.raises(RobotError, match="reset"):
            robot.act(self.middle(robot))
        assert robot.reset().is_first

    def test_reset_may_interrupt_an_episode(self, robot: Robot) -> None:
        robot.reset()
        robot.act(self.middle(robot))
        assert robot.reset().is_first

    def test_stop_holds_and_act_moves_again(self, robot: Robot) -> None:
        robot.stop()
        robot.reset()
        robot.stop()
        robot.stop()
        assert not robot.act(self.middle(robot)).is_first

    def test_close_twice_then_nothing(self) -> None:
        robot = self.make_robot()
        robot.reset()
        robot.close()
        robot.close()
        with pytest.raises(RobotError, match="closed"):
            robot.act(self.middle(robot))
        with pytest.raises(RobotError, match="closed"):
            robot.reset()

    def check_shapes(self, robot: Robot, observation: Observation) -> None:
        """Assert that an observation is as the spec says."""
        spec = robot.spec
        assert set(observation.images) == set(spec.cameras)
        for camera, shape in spec.cameras.items():
            assert observation.images[camera].shape == shape
            assert observation.images[camera].dtype == np.uint8
        assert {name: depth.shape for name, depth in observation.depths.items()} == spec.depths
        assert all(depth.dtype == np.uint16 for depth in observation.depths.values())
        for vector, about in (
            (observation.proprio, spec.proprio),
            (observation.executed, spec.action),
            (observation.commanded, spec.action),
        ):
            assert vector.shape == (len(about.names),)
            assert vector.dtype == np.float32
            assert np.isfinite(vector).all()
        assert np.isfinite(observation.reward)
        assert isinstance(observation.success, bool)
