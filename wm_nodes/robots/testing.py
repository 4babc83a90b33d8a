"""Test suites of the Robot interfaces: for a robot they check every rule of its interface.

A new robot is tested by:

    class TestMyArm(RobotContract):
        def make_robot(self) -> Robot:
            return MyArm(bus=FakeBus())

A simulator inherits SimulatorContract instead, and one with goals, distances, held-out scenes or
known cameras GoalTaskContract, ScoredTaskContract, HeldOutScenesContract or
CalibratedCamerasContract as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from wm_nodes.robots.hold_action import still
from wm_nodes.robots.robot import (
    CalibratedCameras,
    GoalTask,
    HeldOutScenes,
    Observation,
    Robot,
    RobotError,
    ScoredTask,
    SpecError,
    Vector,
)
from wm_nodes.robots.sims.simulator import Simulator


class RobotContract:
    """Rules for every robot. An episode must end within `max_steps` agent steps."""

    max_steps = 1000

    def make_robot(self) -> Robot:
        """Return a fresh robot, not yet reset."""
        raise NotImplementedError

    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        with self.make_robot() as robot:
            yield robot

    def middle(self, robot: Robot) -> Vector:
        """Return an action in the middle of the bounds; the first one of a discrete set."""
        action = robot.spec.action
        middle: Vector = action.nearest(np.mean([action.low, action.high], axis=0))
        return middle

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

    def test_an_action_out_of_bounds_is_clipped_and_reported(self, robot: Robot) -> None:
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
        for _ in range(self.max_steps):
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
        """Assert that an observation fits the spec."""
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


class SimulatorContract(RobotContract):
    """Further rules for simulators: seeds determine episodes, time stands still between steps."""

    def test_a_seed_alone_decides_its_episode(self, robot: Robot) -> None:
        with self.make_robot() as other:
            other.reset()
            other.act(np.asarray(robot.spec.action.high, np.float32))
            for one, two in zip(self.rollout(robot, 7), self.rollout(other, 7), strict=True):
                assert_equal_observations(one, two)
            np.testing.assert_array_equal(self.state(robot), self.state(other))

    def test_an_episode_does_not_depend_on_the_actions_before_it(self, robot: Robot) -> None:
        with self.make_robot() as other:
            robot.reset()
            robot.act(np.asarray(robot.spec.action.high, np.float32))
            other.reset()
            for one, two in zip(self.rollout(robot, None), self.rollout(other, None), strict=True):
                assert_equal_observations(one, two)
            np.testing.assert_array_equal(self.state(robot), self.state(other))

    def test_seeds_give_different_episodes(self, robot: Robot) -> None:
        starts = []
        for seed in (1, 2):
            first = robot.reset(seed)
            starts.append(np.concatenate([first.proprio, self.state(robot)]))
        assert not np.array_equal(*starts)

    def test_time_stands_still_between_steps(self, robot: Robot) -> None:
        robot.reset(3)
        robot.act(self.middle(robot))
        before = self.state(robot)
        robot.stop()
        robot.observe()
        np.testing.assert_array_equal(self.state(robot), before)

    def test_the_privileged_state_is_a_copy(self, robot: Robot) -> None:
        robot.reset(3)
        before = self.state(robot).copy()
        self.state(robot)[:] = np.nan
        np.testing.assert_array_equal(self.state(robot), before)

    def rollout(self, robot: Robot, seed: int | None) -> list[Observation]:
        """Return the observations of three random steps of an episode."""
        random, action = np.random.default_rng(0), robot.spec.action
        observations = [robot.reset(seed)]
        while len(observations) < 4 and not observations[-1].is_last:
            observations.append(robot.act(action.draw(random)))
        return observations

    def state(self, robot: Robot) -> np.ndarray:
        """Return the privileged state of a simulator."""
        assert isinstance(robot, Simulator)
        return robot.privileged_state


class GoalTaskContract(RobotContract):
    """Rules for a robot whose task shows a goal."""

    def test_a_goal_fits_the_spec_and_stays_for_the_episode(self, robot: Robot) -> None:
        robot.reset(3)
        goals = [self.goal(robot)]
        robot.act(self.middle(robot))
        goals.append(self.goal(robot))
        for goal in goals:
            self.check_shapes(robot, goal)
        assert_equal_observations(*goals)

    def test_showing_the_goal_moves_nothing(self, robot: Robot) -> None:
        with self.make_robot() as other:
            for each, shows in ((robot, True), (other, False)):
                each.reset(3)
                each.act(self.middle(each))
                if shows:
                    self.goal(each)
            after = [each.act(self.middle(each)) for each in (robot, other)]
            assert_equal_observations(*after)

    def goal(self, robot: Robot) -> Observation:
        """Return the goal of the present episode."""
        assert isinstance(robot, GoalTask)
        goal = robot.goal()
        assert goal is not None
        return goal


class ScoredTaskContract(RobotContract):
    """Rules for a robot that measures the distance to success."""

    def test_the_distance_is_finite_and_not_negative(self, robot: Robot) -> None:
        assert isinstance(robot, ScoredTask)
        robot.reset(3)
        distances = [robot.distance()]
        robot.act(self.middle(robot))
        distances += [robot.distance(), robot.distance()]
        assert np.isfinite(distances).all()
        assert min(distances) >= 0
        assert distances[1] == distances[2]


class HeldOutScenesContract(RobotContract):
    """Rules for a robot whose evaluation episodes show other scenes than training."""

    def test_evaluation_shows_other_scenes_of_the_same_episode(self, robot: Robot) -> None:
        assert isinstance(robot, HeldOutScenes)
        first = robot.reset(3)
        robot.select_scenes(evaluation=True)
        evaluation = robot.reset(3)
        robot.select_scenes(evaluation=False)
        assert_equal_observations(first, robot.reset(3))
        np.testing.assert_array_equal(first.proprio, evaluation.proprio)
        for camera, image in first.images.items():
            assert (image != evaluation.images[camera]).any()

    def test_scenes_of_a_running_episode_stay(self, robot: Robot) -> None:
        assert isinstance(robot, HeldOutScenes)
        with self.make_robot() as other:
            assert isinstance(other, HeldOutScenes)
            for each in (robot, other):
                each.reset(3)
            robot.select_scenes(evaluation=True)
            assert_equal_observations(*(each.act(self.middle(each)) for each in (robot, other)))


class CalibratedCamerasContract(RobotContract):
    """Rules for a robot that knows its cameras' intrinsics."""

    def test_intrinsics_are_of_the_images_and_kept(self, robot: Robot) -> None:
        assert isinstance(robot, CalibratedCameras)
        robot.reset(3)
        first = dict(robot.intrinsics())
        robot.act(self.middle(robot))
        assert set(first) <= set(robot.spec.cameras)
        for name, known in robot.intrinsics().items():
            assert (known.height, known.width) == robot.spec.cameras[name][:2]
            assert known is first[name]


def assert_equal_observations(one: Observation, other: Observation) -> None:
    """Assert that two observations are equal, bit for bit; stamps may differ."""
    assert set(one.images) == set(other.images)
    assert set(one.depths) == set(other.depths)
    for name, image in one.images.items():
        np.testing.assert_array_equal(image, other.images[name])
    for name, depth in one.depths.items():
        np.testing.assert_array_equal(depth, other.depths[name])
    for field in ("proprio", "executed", "commanded"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    for field in ("reward", "success", "is_first", "is_last", "is_terminal"):
        assert getattr(one, field) == getattr(other, field)
