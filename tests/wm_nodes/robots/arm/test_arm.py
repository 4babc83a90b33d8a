"""The arm behind the Robot contract, in simulated time: same adapter, same filter as on topics."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config
from wm_nodes.checks.safety_trial.limit_audit import audit
from wm_nodes.evaluation.baselines import Constant
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.arm.sim.scripted import ArmExpert, SmoothPlay
from wm_nodes.robots.arm.sim.tasks import TASKS
from wm_nodes.robots.robot import Robot, RobotError
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.testing import RobotContract


class TestReach(RobotContract):
    def make_robot(self) -> Robot:
        return SimulatedArm("reach", time_limit=5)


class TestLiftFromTwoCameras(RobotContract):
    def make_robot(self) -> Robot:
        return SimulatedArm("lift", time_limit=5, camera="front,wrist", size=32, action_repeat=2)


class TestPushWithoutImages(RobotContract):
    def make_robot(self) -> Robot:
        return SimulatedArm("push", time_limit=5, render="none")


@pytest.mark.parametrize("task", TASKS)
def test_the_script_succeeds(task):
    with SimulatedArm(task, render="none", time_limit=120) as arm:
        expert, solved = ArmExpert(arm.spec, arm.world), 0
        for seed in range(4):
            observation = arm.reset(seed)
            while not (observation.success or observation.is_last):
                observation = arm.act(expert.act(observation))
            solved += observation.success
    assert solved == 4


def test_a_seed_alone_gives_its_scene_and_an_episode_is_repeatable():
    def rollout(seed: int) -> list[np.ndarray]:
        with SimulatedArm("push", seed=3, render="none") as arm:
            play, observation = SmoothPlay(arm, 1), arm.reset(seed)
            play.begin(0)
            rows = [observation.proprio]
            rows += [arm.act(play.choose(arm.observe())[1]).proprio for _ in range(10)]
            return [*rows, arm.world.scene.cube]

    for first, second in zip(rollout(5), rollout(5)):
        np.testing.assert_array_equal(first, second)
    assert rollout(5)[-1] != rollout(6)[-1]


def test_play_stays_within_limits_and_covers_the_box():
    with SimulatedArm("goal", render="none", time_limit=400) as arm:
        sent: list[np.ndarray] = []
        send = arm._driver.send
        arm._driver.send = lambda setpoint: (sent.append(setpoint.position), send(setpoint))
        play, observation = SmoothPlay(arm, 0), arm.reset(0)
        play.begin(0)
        home = len(sent) - 1
        positions = []
        while not observation.is_last:
            observation = arm.act(play.choose(observation)[1])
            positions.append(observation.proprio[-3:])
        path = np.array(sent[home:])
        times = np.arange(len(path)) * arm.period_s
        report = audit(config().limits, arm.motion.kinematics, times, path)
        assert not +report.violations
    low, high = config().limits.box_low, config().limits.box_high
    covered = np.ptp(positions, axis=0) / (high - low)
    assert (covered > 0.5).all()


def test_play_near_objects_is_closer_to_them():
    distances_by_share = {0.0: [], 1.0: []}
    for near, distances in distances_by_share.items():
        with SimulatedArm("reach", render="none", time_limit=200) as arm:
            observation = arm.reset(1)
            play = SmoothPlay(arm, 0, near=near, things=arm.world.things)
            play.begin(0)
            while not observation.is_last:
                observation = arm.act(play.choose(observation)[1])
                distances.append(arm.distance())
    assert np.mean(distances_by_share[1.0][50:]) < 0.12 < np.mean(distances_by_share[0.0][50:])


def test_the_executed_action_is_the_motion_of_the_end_effector():
    with SimulatedArm("goal", render="none") as arm:
        arm.reset(0)
        for _ in range(5):
            before = arm.supervisor.filter.end_effector.copy()
            observation = arm.act([0.1, 0.05, 0.0])
            velocity = (arm.supervisor.filter.end_effector - before) / arm.spec.control_period_s
            np.testing.assert_allclose(observation.executed, velocity, atol=1e-6)
        np.testing.assert_allclose(observation.executed, [0.1, 0.05, 0.0], atol=0.02)


def test_signals_count_the_interventions():
    with SimulatedArm("goal", render="none") as arm:
        arm.reset(0)
        resting = arm.act([0.0, 0.0, 0.0])
        assert resting.signals is not None and not resting.signals.any()
        for _ in range(20):
            into_table = arm.act([0.0, 0.0, -0.2])
        assert into_table.signals[1] > 0  # the table


def test_no_command_is_sent_before_the_first_joint_states():
    with SimulatedArm("goal", render="none") as arm:
        arm.switches.driver_dead = True
        sent: list[object] = []
        arm._driver.send = sent.append

        def run(periods: int, action: list[float] | None) -> None:
            for _ in range(periods):
                arm.sense()
                arm.tick(action)
                arm._driver.wait(arm.period_s)

        run(20, [0.1, 0.0, 0.0])
        assert not sent
        arm.switches.driver_dead = False
        run(30, None)
        assert 0 < len(sent) < 30  # the arm must have been at rest for a while


@pytest.mark.parametrize("task", ["reech", ""])
def test_an_unknown_task_is_refused(task):
    with pytest.raises(RobotError, match=r"reach, goal, push, lift"):
        SimulatedArm(task, render="none")


def test_a_goal_is_the_image_of_a_pose_with_the_end_effector_at_it():
    with SimulatedArm("goal", camera="front", size=32) as arm:
        arm.reset(4)
        before = arm.world.positions()
        goal = arm.goal()
        assert goal is not None and goal.images["front"].shape == (32, 32, 3)
        np.testing.assert_allclose(goal.proprio[-3:], arm.world.scene.goal, atol=0.005)
        np.testing.assert_array_equal(arm.world.positions(), before)
        end_effector = arm.world.state().end_effector
        assert arm.distance() == pytest.approx(
            np.linalg.norm(end_effector - goal.proprio[-3:]), abs=0.005
        )
    with SimulatedArm("reach", render="none") as arm:
        arm.reset(4)
        assert arm.goal() is None


def test_evaluation_has_the_distance_of_the_end_effector():
    with SimulatedArm("goal", render="none", time_limit=40) as arm:
        expert = evaluate(arm, ArmExpert(arm.spec, arm.world), 3, seed=0)
        constant = evaluate(arm, Constant([0.0, 0.0, 0.0]), 3, seed=0)
    assert expert.nearness is not None and constant.nearness is not None
    assert expert.nearness.at_end == 1.0 and expert.nearness.worst < 0.01
    assert constant.nearness.ever == 0.0 and constant.nearness.median > expert.nearness.worst
    assert all(row.least_m <= row.end_m for row in (*expert.rows, *constant.rows))


@pytest.mark.parametrize("task", ["goal", "reach", "push", "lift"])
def test_no_scene_is_done_while_the_arm_is_at_home(task):
    """One goal in twenty was within success distance at home: holding still reached it."""
    world = ArmWorld(config(), task, render="none")
    for index in range(100):
        world.set_scene(episode_seed(100, index, "evaluation"))
        assert not world.success(), index
    world.close()
