"""The base of simulators: agent steps from the outcomes of single steps."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_nodes.point_robot import LINE, PUSH
from wm_nodes.robots.robot import RobotError, SpecError
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome
from wm_nodes.robots.testing import SimulatorContract

CONTINUES = StepOutcome(1.0)


class Listed(Simulator):
    """Its steps have the outcomes of a list, in every episode; the last one repeats."""

    def __init__(self, outcomes=(CONTINUES,), *, depth=False, **settings):
        super().__init__(**{"time_limit": 4, **settings})
        self.outcomes, self.freed, self.fails = outcomes, 0, False
        self.actions: list[float] = []
        self.spec = self._spec(
            "listed",
            "none",
            step_s=0.02,
            cameras={"top": (2, 3, 3)},
            proprio=LINE,
            action=PUSH,
            extra={"own": 1},
            depths={"top": (2, 3)} if depth else {},
        )

    def _begin(self, seed):
        if self.fails:
            raise RuntimeError("the physics diverged")
        self.start, self.steps = np.random.default_rng(seed).uniform(-1, 1), 0

    def _simulate(self, action):
        self.actions.append(float(action[0]))
        outcome = self.outcomes[min(self.steps, len(self.outcomes) - 1)]
        self.steps += 1
        return outcome

    def _proprio(self):
        return np.float32([self.start])

    def _images(self):
        return {"top": np.full((2, 3, 3), self.steps, np.uint8)}

    def _depths(self):
        return {name: np.full(shape, 7, np.uint16) for name, shape in self.spec.depths.items()}

    def _free(self):
        self.freed += 1


class TestListed(SimulatorContract):
    def make_robot(self):
        return Listed(action_repeat=3, depth=True)


def test_an_agent_step_sums_rewards_and_succeeds_if_any_of_its_steps_does():
    outcomes = [StepOutcome(1.0), StepOutcome(2.0, success=True), StepOutcome(4.0), CONTINUES]
    with Listed(outcomes, action_repeat=3) as robot:
        robot.reset()
        first, second = robot.act([0.5]), robot.act([2.0])
        assert (first.reward, first.success) == (7.0, True)
        assert (second.reward, second.success) == (3.0, False)
        assert robot.actions == [0.5] * 3 + [1.0] * 3
        assert first.stamp_ns == 2 * 60_000_000
        assert robot.spec.control_period_s == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("end", "terminal"),
    [(StepOutcome(5.0, terminal=True), True), (StepOutcome(5.0, truncated=True), False)],
)
def test_a_step_that_ends_the_episode_ends_the_repeat(end, terminal):
    with Listed([CONTINUES, end], action_repeat=3) as robot:
        robot.reset()
        last = robot.act([0.0])
        assert (last.is_last, last.is_terminal, last.reward) == (True, terminal, 6.0)
        assert len(robot.actions) == 2
        with pytest.raises(
            RobotError, match="listed: act: got an action after the last of 1 agent steps"
        ):
            robot.act([0.0])
        assert not robot.reset().is_last


@pytest.mark.parametrize("limit", [1, 3])
def test_the_time_limit_is_in_agent_steps_and_not_terminal(limit):
    with Listed(time_limit=limit, action_repeat=2) as robot:
        for _ in range(2):
            robot.reset()
            ends = [robot.act([0.0]) for _ in range(limit)]
            assert [end.is_last for end in ends] == [False] * (limit - 1) + [True]
            assert not any(end.is_terminal for end in ends)


def test_a_terminal_step_at_the_time_limit_is_terminal():
    with Listed([CONTINUES, StepOutcome(terminal=True)], time_limit=2) as robot:
        robot.reset()
        robot.act([0.0])
        assert robot.act([0.0]).is_terminal


def test_a_refused_action_is_not_simulated():
    with Listed() as robot:
        robot.reset()
        with pytest.raises(SpecError):
            robot.act([np.nan])
        assert robot.actions == []


def test_a_reset_that_fails_leaves_no_episode():
    with Listed() as robot:
        robot.reset()
        robot.fails = True
        expected = r"task 'none': reset failed \(RuntimeError: the physics diverged, at test_sim"
        with pytest.raises(RobotError, match=expected):
            robot.reset()
        with pytest.raises(RobotError, match="observe: got no episode"):
            robot.act([0.0])
        robot.fails = False
        assert robot.reset().is_first


def test_resources_are_released_once():
    robot = Listed()
    robot.close()
    robot.close()
    assert robot.freed == 1


def test_the_spec_records_what_decides_episodes():
    with Listed(seed=5, action_repeat=2, time_limit=9) as robot:
        assert robot.spec.extra == {"seed": 5, "action_repeat": 2, "time_limit": 9, "own": 1}


@pytest.mark.parametrize("setting", ["time_limit", "action_repeat"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2"])
def test_a_setting_out_of_range_is_refused(setting, value):
    with pytest.raises(RobotError, match=f"{setting}: got .*, expected a whole number from 1"):
        Listed(**{setting: value})
