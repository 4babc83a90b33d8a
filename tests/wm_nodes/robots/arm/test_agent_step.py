"""An agent step is the mean of its actions, and its worst latency."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.actions import PathPoint
from wm_nodes.robots.arm.agent_step import SIGNALS, AgentStep


def new_step() -> AgentStep:
    return AgentStep(PathPoint(np.zeros(2), np.zeros(3)), np.zeros(2))


def test_actions_are_averaged_and_signals_summed_up():
    step, executed = new_step(), np.float32([7.0, 8.0])
    step.add(np.float32([1.0, 2.0]), 0.25, 3, False)
    step.add(np.float32([2.0, -4.0]), 0.125, 2, True)
    step.add(np.float32([0.0, 5.0]), 0.0, 0, True)
    outcome = step.outcome(executed)
    assert outcome.executed is executed
    assert outcome.commanded.tolist() == [1.0, 1.0]
    assert dict(zip(SIGNALS.names, outcome.signals.tolist(), strict=True)) == {
        "latency_ms": 250.0,
        "interventions": 5.0,
        "stopped": 2.0,
    }


def test_a_step_without_a_period_commanded_nothing():
    outcome = new_step().outcome(np.float32([0.0, 0.0]))
    assert outcome.commanded.tolist() == [0.0, 0.0] and not outcome.signals.any()


def test_no_signal_is_negative_and_none_has_an_upper_bound():
    assert SIGNALS.low == (0.0, 0.0, 0.0) and SIGNALS.high == (float("inf"),) * 3
