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
    zero = np.zeros(7)
    return Setpoint(
        position, zero if velocity is None else velocity, zero, (), True, False, Stop.none(7)
    )


def make_gate(interface: str = "position", tracking_rad: float = 0.2) -> CommandGate:
    return CommandGate(LIMITS, PERIOD_S, interface, 6, tracking_rad)


def send(gate: CommandGate, command: Setpoint, measured, now_s: float) -> str:
    """Send a command unless it is refused; return why it is."""
    refused = gate.refuse(command, measured, now_s)
    if not refused:
        gate.sent(command, now_s)
    return refused


@pytest.mark.parametrize("interface", ["position", "trajectory"])
@pytest.mark.parametrize("joint", range(6))
def test_the_first_command_must_be_at_the_measured_position(interface, joint):
    for fraction, accepted in ((0.99, True), (1.01, False)):
        position = HOME.copy()
        position[joint] += fraction * REACH[joint]
        refused = make_gate(interface).refuse(setpoint(position), HOME, 5.0)
        assert (not refused) == accepted
        assert accepted or LIMITS.joints[joint] in refused


@pytest.mark.parametrize("gap_s", [0.005, 0.02, 0.03])
def test_a_step_beyond_the_reach_of_the_true_time_is_refused(gap_s):
    for fraction, accepted in ((0.99, True), (1.01, False)):
        gate = make_gate()
        assert not send(gate, setpoint(HOME), HOME, 5.0)
        position = HOME + fraction * LIMITS.velocity * gap_s
        assert (not send(gate, setpoint(position), HOME, 5.0 + gap_s)) == accepted


def test_a_long_gap_gives_no_longer_reach():
    """The position driver held the last command."""
    gate = make_gate()
    send(gate, setpoint(HOME), HOME, 5.0)
    assert send(gate, setpoint(HOME + 2 * REACH), HOME, 105.0)


def test_a_refused_command_is_not_the_new_reference():
    gate = make_gate()
    send(gate, setpoint(HOME), HOME, 5.0)
    for index in range(1, 20):
        assert send(gate, setpoint(HOME + 5 * REACH), HOME, 5.0 + index * PERIOD_S)
    assert not send(gate, setpoint(HOME + 0.5 * REACH), HOME, 6.0)


def test_an_arm_that_is_far_away_is_not_commanded():
    gate = make_gate()
    send(gate, setpoint(HOME), HOME, 5.0)
    measured = HOME.copy()
    measured[2] += 0.5
    assert "measured" in send(gate, setpoint(HOME), measured, 5.02)


def test_velocities_are_bounded_in_size_and_change_and_braking_always_passes():
    zero, fast = np.zeros(7), 0.9 * LIMITS.velocity
    gate = make_gate("velocity")
    assert send(gate, setpoint(HOME, fast), HOME, 5.0)
    speed = zero
    for index in range(1, 200):
        speed = np.minimum(speed + 0.99 * LIMITS.acceleration * PERIOD_S, fast)
        assert not send(gate, setpoint(HOME, speed), HOME, 5.0 + index * PERIOD_S)
    assert send(gate, setpoint(HOME, 1.1 * LIMITS.velocity), HOME, 9.02)
    assert not send(gate, setpoint(HOME, zero), HOME, 9.04)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_never_sent(value):
    position = HOME.copy()
    position[0] = value
    assert make_gate().refuse(setpoint(position), HOME, 5.0)


@pytest.mark.parametrize("interface", ["position", "velocity", "trajectory"])
def test_the_filters_commands_always_pass(interface):
    """At any periods, with late calls, while the arm follows exactly."""
    random = np.random.default_rng(3)
    filter = SafetyFilter(LIMITS, kinematics(), PERIOD_S, interface)
    filter.start(HOME)
    gate, now_s, target = make_gate(interface), 5.0, np.zeros(7)
    for _ in range(1500):
        now_s += PERIOD_S * float(random.choice([0.3, 0.98, 1.0, 1.02, 1.4, 3.0, 60.0]))
        if random.random() < 0.1:
            target = random.uniform(-1, 1, 7) * LIMITS.velocity
        command = filter.step(target, now_s)
        if command.moved:
            assert send(gate, command, command.position, now_s) == ""
