"""The safety filter's laws: no input breaks a limit, and it can always stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import NAMES, config, kinematics
from wm_nodes.checks.safety_trial.calls import KINDS, Call, calls
from wm_nodes.checks.safety_trial.limit_audit import audit
from wm_nodes.checks.safety_trial.trial import run_calls
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter

CORPUS = sorted((Path(__file__).parent.parent / "corpus").glob("*.npz"))
RATES = (50.0, 200.0)


def make_filter(name: str = "arm_sim", rate_hz: float = 50.0) -> SafetyFilter:
    return SafetyFilter(config(name).limits, kinematics(name), 1.0 / rate_hz)


def assert_no_violation(name: str, rate_hz: float, commands: list[Call]) -> None:
    """Assert that no limit was broken."""
    report = run_calls(make_filter(name, rate_hz), kinematics(name), config(name).home, commands)
    assert not +report.violations, (report.violations, report.worst)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_no_sequence_breaks_a_limit(name, kind, rate_hz):
    random = np.random.default_rng(len(name))
    assert_no_violation(
        name, rate_hz, list(calls(config(name).limits, kind, random, 1 / rate_hz, 400))
    )


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_breaks_no_limit(path):
    with np.load(path) as saved:
        name, rate_hz = str(saved["robot"]), float(saved["rate_hz"])
        assert_no_violation(
            name, rate_hz, [Call(w, t) for w, t in zip(saved["wanted"], saved["now_s"])]
        )


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 40), st.just(7)),
        elements=st.floats(allow_nan=True, allow_infinity=True, width=64),
    ),
    st.lists(st.floats(-1.0, 1.0), min_size=40, max_size=40),
)
def test_any_numbers_at_any_times_break_no_limit(targets, gaps):
    times = np.cumsum(gaps) * 0.1
    assert_no_violation("arm_sim", 50.0, [Call(w, float(t)) for w, t in zip(targets, times)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_it_stops_from_any_state_within_its_longest_stop(seed, steps):
    filter, random = make_filter(), np.random.default_rng(seed)
    filter.start(config().home)
    target, now = random.uniform(-1, 1, 7) * config().limits.velocity, 0.0
    for _ in range(steps):
        now += filter.period_s
        filter.step(target, now)
    path = [filter.x.copy()]
    for _ in range(int(filter.longest_stop_s / filter.period_s) + 1):
        now += filter.period_s
        path.append(filter.step(None, now).position)
    assert filter.at_rest
    rest = filter.step(None, now + 1.0)
    np.testing.assert_array_equal(rest.position, path[-1])
    assert not rest.velocity.any()


def test_stopping_begins_with_the_first_period():
    filter = make_filter()
    filter.start(config().home)
    for index in range(1, 40):
        moving = filter.step([0.3, 0, 0, 0, 0, 0, 0], index * 0.02)
    assert moving.velocity[0] > 0.1
    first = filter.step(None, 40 * 0.02)
    assert np.linalg.norm(first.velocity) < np.linalg.norm(moving.velocity)


def test_a_setpoint_holds_the_stop_that_would_follow():
    filter = make_filter()
    filter.start(config().home)
    for index in range(1, 30):
        setpoint = filter.step([0.3, 0.1, 0, 0, 0.5, 0, 0], index * 0.02)
    for position in setpoint.stop.x:
        index += 1
        actual = filter.step(None, index * 0.02).position
        np.testing.assert_allclose(actual, position, rtol=0, atol=1e-12)
    assert filter.at_rest and not setpoint.stop.v[-1].any()


def test_it_follows_an_allowed_target():
    filter = make_filter()
    filter.start(config().home)
    target = np.array([0.2, -0.05, 0.05, 0.3, 0.0, -0.4, 0.005])
    for index in range(1, 60):
        setpoint = filter.step(target, index * 0.02)
    np.testing.assert_allclose(setpoint.velocity, target, rtol=0.02, atol=1e-3)
    assert not any(name.endswith("-stop") for name in filter.interventions)


def test_the_end_effector_slides_along_a_wall():
    """Down into the table and sideways: the end effector continues sideways."""
    filter = make_filter()
    filter.start(config().home)
    for index in range(1, 250):
        _, linear, _ = kinematics().jacobian(filter.x)
        filter.step(np.linalg.pinv(linear) @ [0.0, 0.06, -0.1], index * 0.02)
    assert filter.end_effector[1] > 0.15
    assert filter.end_effector[2] - config().limits.box_low[2] < 0.03


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ([np.nan, 0, 0, 0, 0, 0, 0], "non-finite"),
        ([np.inf, 0, 0, 0, 0, 0, 0], "non-finite"),
        ([0.1] * 6, "shape"),
        ([[0.1] * 7], "shape"),
        ("left", "shape"),
        ([1e9, 0, 0, 0, 0, 0, 0], "huge"),
    ],
)
def test_an_invalid_target_is_reported_and_stops_the_arm(target, name):
    filter = make_filter()
    filter.start(config().home)
    for index in range(1, 30):
        filter.step([0.3, 0, 0, 0, 0, 0, 0], index * 0.02)
    for index in range(30, 120):
        setpoint = filter.step(target, index * 0.02)
        assert name in setpoint.why
    assert filter.at_rest and filter.interventions[name] == 90


def test_a_burst_moves_once_and_a_clock_that_goes_back_never():
    filter = make_filter()
    filter.start(config().home)
    filter.step([0.3, 0, 0, 0, 0, 0, 0], 1.0)
    before = filter.x.copy()
    for late in (0.0, 0.002, 0.0039):
        assert "early" in filter.step([0.3, 0, 0, 0, 0, 0, 0], 1.0 + late).why
    assert "clock" in filter.step([0.3, 0, 0, 0, 0, 0, 0], 0.5).why
    np.testing.assert_array_equal(filter.x, before)
    assert filter.step([0.3, 0, 0, 0, 0, 0, 0], 0.52).moved


@pytest.mark.parametrize("interface", ["position", "velocity", "trajectory"])
@pytest.mark.parametrize("gap_s", [0.05, 0.3, 2.0])
def test_after_a_late_call_the_position_is_that_of_the_driver(interface, gap_s):
    filter = SafetyFilter(config().limits, kinematics(), 0.02, interface, timeout_s=0.1)
    filter.start(config().home)
    target = [0, 0, 0, 0, 0, 1.5, 0]
    for index in range(1, 60):
        last = filter.step(target, index * 0.02)
    late = filter.step(target, index * 0.02 + gap_s)
    assert late.late and "late" in late.why
    if interface == "position":  # the driver held the last command
        np.testing.assert_array_equal(late.position, last.position)
        assert not late.velocity.any()
    elif interface == "trajectory":  # it followed the stop
        times_s = np.arange(1, len(last.stop) + 1) * 0.02
        expected = [np.interp(gap_s, times_s, last.stop.x[:, joint]) for joint in range(7)]
        sag = float(config().limits.acceleration.max()) * 0.02**2 / 8  # of a chord, at most
        np.testing.assert_allclose(late.position, expected, rtol=0, atol=sag)
    elif gap_s > 0.1:  # it stopped by itself
        assert not late.velocity.any()
    else:  # it continued, so that the stop begins now
        assert (np.abs(late.velocity) <= np.abs(last.velocity)).all()
    now = index * 0.02 + gap_s
    before = np.abs(late.velocity)
    while not filter.at_rest:  # the target is ignored until the arm is at rest
        now += 0.02
        speed = np.abs(filter.step(target, now).velocity)
        assert (speed <= before + 1e-12).all()
        before = speed
    for _ in range(3):
        now += 0.02
        filter.step(target, now)
    assert not filter.at_rest


def test_from_outside_the_limits_it_only_moves_inwards():
    filter, limits = make_filter(), config().limits
    start = config().home.copy()
    start[0] = limits.high[0] + 0.1
    filter.start(start)
    assert "joint_1" in filter.outside
    for index in range(1, 100):
        filter.step([1.0, 0, 0, 0, 0, 0, 0], index * 0.02)
        assert filter.x[0] <= start[0] + 1e-12
    for index in range(100, 400):
        filter.step([-0.3, 0, 0, 0, 0, 0, 0], index * 0.02)
    assert "joint_1" not in filter.outside


def test_every_intervention_is_counted():
    filter = make_filter()
    filter.start(config().home)
    reasons = [filter.step([9, 0, 0, 0, 0, 0, 0], i * 0.02).why for i in range(1, 50)]
    for name in {n for names in reasons for n in names}:
        assert filter.interventions[name] == sum(name in names for names in reasons)


def test_the_first_command_after_a_start_is_the_start_position():
    filter = make_filter()
    for index in range(30):
        filter.step(np.full(7, 0.3), 0.02 * index)
    start = config().home + 0.01
    filter.start(start)
    setpoint = filter.step(np.full(7, 0.3), 0.62)
    assert setpoint.moved and filter.at_rest
    np.testing.assert_array_equal(setpoint.position, start)
    filter.step(np.full(7, 0.3), 0.64)
    assert not filter.at_rest


@pytest.mark.parametrize("interface", ["position", "velocity", "trajectory"])
def test_a_stall_before_sending_equals_a_late_call_after_the_last_sent_command(interface):
    """The process may be stopped between computing a command and sending it."""
    stalled, late = (
        SafetyFilter(config().limits, kinematics(), 0.02, interface, timeout_s=0.1)
        for _ in range(2)
    )
    target = [0, 0, 0, 0, 0, 1.5, 0]
    for filter in (stalled, late):
        filter.start(config().home)
        for index in range(1, 60):
            filter.step(target, index * 0.02)
    unsent = stalled.resample(stalled.step(target, 60 * 0.02), 60 * 0.02 + 1.0)
    assert not unsent.moved
    first, second = (f.step(target, 60 * 0.02 + 1.01) for f in (stalled, late))
    assert first.late and second.late
    np.testing.assert_array_equal(first.position, second.position)
    np.testing.assert_array_equal(first.velocity, second.velocity)


def test_a_command_is_that_of_the_time_at_which_it_is_sent():
    filter, path = make_filter(), []
    filter.start(config().home)
    random = np.random.default_rng(0)
    for index in range(1, 300):
        now = index * 0.02
        setpoint = filter.step([0.4, 0.2, 0, 0.5, 0, 1.5, 0], now)
        sent_s = now + float(random.uniform(0.0, 0.009))
        path.append((sent_s, filter.resample(setpoint, sent_s).position))
    times, positions = (np.array(part) for part in zip(*path))
    report = audit(config().limits, kinematics(), times, positions)
    assert not +report.violations
