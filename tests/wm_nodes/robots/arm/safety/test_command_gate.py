"""The last gate: no command beyond one period's reach of the last one and of the measured arm."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config, kinematics
from wm_nodes.robots.arm.safety.command_gate import CommandGate
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.stopping import Stop

PERIOD_S = 0.02
LIMITS, HOME = config().limits, config().home
REACH = LIMITS.velocity * PERIOD_S


def setpoint(position: np.ndarray, velocity: np.ndarray | None = None) -> Setpoint:
    still = np.zeros(7)
    return Setpoint(
        position, still if velocity is None else velocity, still, (), True, False, Stop.none(7)
    )


def gate(interface: str = "position", tracking_rad: float = 0.2) -> CommandGate:
    return CommandGate(LIMITS, PERIOD_S, interface, 6, tracking_rad)


def send(one: CommandGate, made: Setpoint, measured, now_s: float) -> str:
    """Send a command unless it is refused; return why it is."""
    refused = one.refuse(made, measured, now_s)
    if not refused:
        one.sent(made, now_s)
    return refused


@pytest.mark.parametrize("interface", ["position", "trajectory"])
@pytest.mark.parametrize("joint", range(6))
def test_the_first_command_must_be_where_the_arm_is(interface, joint):
    for share, passes in ((0.99, True), (1.01, False)):
        off = HOME.copy()
        off[joint] += share * REACH[joint]
        refused = gate(interface).refuse(setpoint(off), HOME, 5.0)
        assert (not refused) == passes
        assert passes or LIMITS.joints[joint] in refused


@pytest.mark.parametrize("gap_s", [0.005, 0.02, 0.03])
def test_a_step_beyond_the_reach_of_the_true_time_is_refused(gap_s):
    for share, passes in ((0.99, True), (1.01, False)):
        one = gate()
        assert not send(one, setpoint(HOME), HOME, 5.0)
        off = HOME + share * LIMITS.velocity * gap_s
        assert (not send(one, setpoint(off), HOME, 5.0 + gap_s)) == passes


def test_a_long_silence_gives_no_longer_reach():
    """The position driver held the last command."""
    one = gate()
    send(one, setpoint(HOME), HOME, 5.0)
    assert send(one, setpoint(HOME + 2 * REACH), HOME, 105.0)


def test_a_refused_command_is_not_the_new_reference():
    one = gate()
    send(one, setpoint(HOME), HOME, 5.0)
    for index in range(1, 20):
        assert send(one, setpoint(HOME + 5 * REACH), HOME, 5.0 + index * PERIOD_S)
    assert not send(one, setpoint(HOME + 0.5 * REACH), HOME, 6.0)


def test_an_arm_that_is_far_away_is_not_commanded():
    one = gate()
    send(one, setpoint(HOME), HOME, 5.0)
    measured = HOME.copy()
    measured[2] += 0.5
    assert "measured" in send(one, setpoint(HOME), measured, 5.02)


def test_velocities_are_bounded_in_size_and_change_and_braking_always_passes():
    still, fast = np.zeros(7), 0.9 * LIMITS.velocity
    one = gate("velocity")
    assert send(one, setpoint(HOME, fast), HOME, 5.0)
    speed = still
    for index in range(1, 200):
        speed = np.minimum(speed + 0.99 * LIMITS.acceleration * PERIOD_S, fast)
        assert not send(one, setpoint(HOME, speed), HOME, 5.0 + index * PERIOD_S)
    assert send(one, setpoint(HOME, 1.1 * LIMITS.velocity), HOME, 9.02)
    assert not send(one, setpoint(HOME, still), HOME, 9.04)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_never_sent(bad):
    place = HOME.copy()
    place[0] = bad
    assert gate().refuse(setpoint(place), HOME, 5.0)


@pytest.mark.parametrize("interface", ["position", "velocity", "trajectory"])
def test_the_filters_commands_always_pass(interface):
    """At any periods, with late calls, while the arm follows exactly."""
    random = np.random.default_rng(3)
    filter = SafetyFilter(LIMITS, kinematics(), PERIOD_S, interface)
    filter.start(HOME)
    one, now_s, target = gate(interface), 5.0, np.zeros(7)
    for _ in range(1500):
        now_s += PERIOD_S * float(random.choice([0.3, 0.98, 1.0, 1.02, 1.4, 3.0, 60.0]))
        if random.random() < 0.1:
            target = random.uniform(-1, 1, 7) * LIMITS.velocity
        made = filter.step(target, now_s)
        if made.moved:
            assert send(one, made, made.position, now_s) == ""
