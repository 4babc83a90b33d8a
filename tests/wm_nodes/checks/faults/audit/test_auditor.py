"""The audit by true times, the trial's contracts between paths, and the auditor of stamps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import config, kinematics
from wm_nodes.checks.faults.audit.auditor import Auditor
from wm_nodes.checks.safety_trial.calls import KINDS, Call, calls
from wm_nodes.checks.safety_trial.limit_audit import audit, audit_velocities
from wm_nodes.checks.safety_trial.trial import INTERFACES, run_calls, run_trial
from wm_nodes.robots.arm.safety.safety_filter import SafetyFilter
from wm_nodes.robots.arm.safety.spline import weights

PERIOD_S = 0.02
STAMP_S = 0.0005
TIMEOUT_S = 0.1
HOME = config().home
LIMITS = config().limits
DERIVATIVES = {"velocity", "acceleration", "jerk"}

# The audit ----------------------------------------------------------------------------------------


def spline(random: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Return positions (T, 7) on a random B-spline that uses one of the limits up to its bound."""
    count = int(times[-1] / PERIOD_S) + 8
    width = int(random.integers(1, 40))
    noise = random.normal(size=(count + width, 7))
    points = np.stack([np.convolve(column, np.ones(width), "valid") for column in noise.T], axis=1)
    bounds = (LIMITS.velocity, LIMITS.acceleration, LIMITS.jerk)
    shares = [
        np.abs(np.diff(points, order, axis=0)).max(axis=0) / PERIOD_S**order / limit
        for order, limit in enumerate(bounds, start=1)
    ]
    points = points / np.max(shares, axis=0)
    indices, fractions = np.divmod(times / PERIOD_S, 1.0)
    return np.array(
        [weights(u)[0] @ points[int(i) : int(i) + 4] for i, u in zip(indices, fractions)]
    )


@pytest.mark.parametrize("seed", range(40))
def test_samples_of_a_path_within_the_limits_pass_at_any_times(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = PERIOD_S * random.choice([0.002, 0.01, 0.3, 1.0, 1.4, 9.0], 200)
    times = np.cumsum(steps * random.uniform(0.5, 1.5, 200))
    start = float(random.choice([0.0, 1e6]))
    report = audit(LIMITS, kinematics(), start + times, spline(random, times), rested=False)
    assert not DERIVATIVES & set(+report.violations)
    assert max(report.worst[name] for name in DERIVATIVES) > 0.5


def path_with(name: str, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times and a path that uses a share of one limit."""
    times = {"acceleration": 0.2, "jerk": 0.045}.get(name, 0.3) * np.linspace(-1, 1, 24)
    times = times + 1e-3 * np.sin(50 * np.arange(24))  # uneven
    path = np.tile(HOME, (24, 1))
    if name == "velocity":
        path[:, 3] += share * LIMITS.velocity[3] * times
    elif name == "acceleration":
        path[:, 3] += share * LIMITS.acceleration[3] * times**2 / 2
    elif name == "jerk":
        path[:, 3] += share * LIMITS.jerk[3] * times**3 / 6
    elif name == "position":
        path[:, 5] = LIMITS.high[5] + (share - 1) * 1e-4 * (np.arange(24) > 12)
    else:
        linear = kinematics().jacobian(HOME)[1][:, 0]
        path[:, 0] += share * LIMITS.hand_speed / np.linalg.norm(linear) * times
    return times - times[0], path


@pytest.mark.parametrize("name", [*sorted(DERIVATIVES), "hand_speed", "position"])
def test_an_excess_of_a_twentieth_is_detected_and_no_other(name: str) -> None:
    for share, expected in ((0.99, set()), (1.05, {name})):
        times, path = path_with(name, share)
        report = audit(LIMITS, kinematics(), times, path, rested=False)
        violated = {kind for kind in +report.violations if kind == name}
        assert violated == expected, (share, report.violations, report.worst)
        if name not in ("position", "acceleration"):
            assert report.worst[name] == pytest.approx(share, rel=0.01)


def test_an_end_effector_that_leaves_its_box_is_detected() -> None:
    times = 0.02 * np.arange(400)
    path = HOME + np.outer(0.12 * times, [1.0, 0, 0, 0, 0, 0, 0])
    report = audit(LIMITS, kinematics(), times, path, rested=False)
    assert report.violations["workspace"] > 0
    positions = kinematics().positions(path)
    outside = ((positions < LIMITS.box_low) | (positions > LIMITS.box_high)).any(axis=1)
    assert ("workspace", int(outside.argmax())) in report.where


def test_a_path_from_rest_may_not_begin_with_speed() -> None:
    times, path = path_with("velocity", 0.9)
    assert not DERIVATIVES & set(+audit(LIMITS, kinematics(), times, path, rested=False).violations)
    assert audit(LIMITS, kinematics(), times, path).violations["jerk"] > 0
    speeds = np.tile(0.5 * LIMITS.velocity, (5, 1))
    assert not +audit_velocities(LIMITS, times[:5], speeds, rested=False).violations
    assert audit_velocities(LIMITS, times[:5], speeds).violations["acceleration"] > 0


def test_audited_samples_are_not_counted_again() -> None:
    times, path = path_with("velocity", 1.2)
    whole = audit(LIMITS, kinematics(), times, path, rested=False)
    first = audit(LIMITS, kinematics(), times[:10], path[:10], rested=False)
    rest = audit(LIMITS, kinematics(), times, path, rested=False, after=10)
    assert whole.violations == first.violations + rest.violations


def test_times_must_increase() -> None:
    with pytest.raises(ValueError, match="increasing"):
        audit(LIMITS, kinematics(), np.array([0.0, 0.02, 0.02]), np.tile(HOME, (3, 1)))


# The trial ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_trial_of_the_filter_has_no_violation(interface: str) -> None:
    reports = run_trial(
        LIMITS, kinematics(), HOME, rate_hz=50.0, steps=900, seed=1, interface=interface, length=300
    )
    assert set(reports) == set(KINDS)
    for kind, report in reports.items():
        assert not +report.violations, (kind, report.violations, report.worst)
    assert sum(report.interventions["late"] for report in reports.values()) > 2


class Nominal(SafetyFilter):
    """Wrong: each call advances by one nominal period, whatever the true time."""

    calls = 0

    def step(self, target, now_s, *, slow=False):
        self.calls += 1
        return super().step(target, PERIOD_S * self.calls, slow=slow)


class Jumping(SafetyFilter):
    """Wrong: after a late call the path begins where it would be by now."""

    def _catch_up(self, now_s, gap_s):
        self.x = self.x + 0.5 * self.v * gap_s
        super()._catch_up(now_s, gap_s)


class Continuing(SafetyFilter):
    """Wrong: a late call continues as if the driver had received commands."""

    def _catch_up(self, now_s, gap_s):
        """Do nothing."""


@pytest.mark.parametrize(
    ("filter_class", "interface", "names"),
    [
        (Nominal, "position", {"late", *DERIVATIVES}),
        (Nominal, "velocity", {"late", "jerk"}),
        (Jumping, "position", {"jump"}),
        (Continuing, "position", {"jump"}),
        (Continuing, "velocity", {"jump"}),
    ],
)
def test_a_trial_detects_a_wrong_filter(filter_class, interface, names) -> None:
    filter = filter_class(LIMITS, kinematics(), PERIOD_S, interface, timeout_s=TIMEOUT_S)
    random = np.random.default_rng(3)
    sequence = list(calls(LIMITS, "recorded", random, PERIOD_S, 600))
    times = np.cumsum(PERIOD_S * random.choice([0.5, 1.0, 1.4, 8.0], 600, p=[0.4, 0.3, 0.27, 0.03]))
    sequence = [Call(call.target, float(now)) for call, now in zip(sequence, times)]
    report = run_calls(filter, kinematics(), HOME, sequence, timeout_s=TIMEOUT_S)
    assert names <= set(+report.violations)


# The auditor --------------------------------------------------------------------------------------


class Bench:
    """A filter whose commands an auditor receives, with stamps that are wrong by up to STAMP_S."""

    def __init__(self, interface: str = "position", seed: int = 0) -> None:
        arm = config()
        command = replace(arm.command, interface=interface, timeout_s=TIMEOUT_S)
        self.auditor = Auditor(replace(arm, command=command))
        self.filter = SafetyFilter(
            arm.limits, kinematics(), PERIOD_S, interface, timeout_s=TIMEOUT_S
        )
        self.filter.start(HOME)
        self.random = np.random.default_rng(seed)
        self.now, self.sent, self.interface = 1e6, 0, interface
        self.measure(HOME)

    def measure(self, position: np.ndarray, seconds: float = 0.3, source: str = "driver") -> None:
        """Let time pass with joint states of a resting arm."""
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            noisy = position + self.random.normal(0.0, 0.0005, 7)
            self.auditor.take_measurement(noisy, self.now, source)

    def tick(self, gap: float, target: np.ndarray | None) -> None:
        """Call the filter after a gap in periods, and publish its command."""
        self.now += gap * PERIOD_S
        setpoint = self.filter.step(target, self.now)
        if setpoint.moved:
            self.publish(setpoint)

    def publish(self, setpoint, shift: float = 0.0, publisher: str = "robot") -> None:
        self.sent += 1
        stamp = self.now + self.random.uniform(-STAMP_S, STAMP_S)
        if self.interface == "trajectory":
            stop = setpoint.stop
            indices = [*range(0, len(stop) - 1, 3), len(stop) - 1]
            times_s = PERIOD_S * (1.0 + np.array(indices))
            positions, speeds = stop.x[indices, :6] + shift, stop.v[indices, :6]
            self.auditor.take_trajectory(times_s, positions, speeds, stamp, self.sent, publisher)
        else:
            value = setpoint.velocity if self.interface == "velocity" else setpoint.position
            self.auditor.take_command(value[:6] + shift, stamp, self.sent, publisher)

    def random_target(self) -> np.ndarray:
        return np.append(self.random.choice([-1.0, 1.0], 6), 0.0) * LIMITS.velocity

    def run(self, ticks: int, gaps: tuple[float, ...] = (1.0,)) -> None:
        target = self.random_target()
        for index in range(ticks):
            target = target if index % 25 else self.random_target()
            self.tick(float(self.random.choice(gaps)), target)

    def violations(self) -> dict[str, int]:
        self.auditor.finish()
        return self.auditor.violations


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("seed", range(5))
def test_valid_commands_are_no_violation(interface: str, seed: int) -> None:
    bench = Bench(interface, seed)
    bench.run(200, (0.98, 1.0, 1.02))
    bench.run(150, (0.05, 0.3, 0.8, 1.4))
    bench.run(150, (0.01, 0.01, 1.0))
    for gap in (1.49, 1.51, 2.0, 4.0, 5.1, 20.0, 300.0):
        bench.run(40)
        bench.tick(gap, bench.random_target())
    bench.run(20)
    assert bench.violations() == {}
    assert bench.auditor.starts == 1 and bench.auditor.not_received == 0


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("gap", [1.0, 3.0])
def test_a_jump_of_commands_is_always_detected(interface: str, gap: float) -> None:
    for seed in range(3):
        bench = Bench(interface, seed)
        bench.run(30)
        bench.now += gap * PERIOD_S
        bench.publish(bench.filter.step(None, bench.now), 0.7 if interface != "velocity" else 3.0)
        assert bench.violations()


def test_a_jump_at_15_rad_s_is_detected() -> None:
    bench = Bench()
    for index in range(4):
        bench.now += PERIOD_S
        bench.publish(bench.filter.step(None, bench.now), 0.3 * index)
    assert bench.violations()["velocity"] >= 6


@pytest.mark.parametrize("interface", ["position", "trajectory"])
def test_a_slow_jump_after_a_stall_is_detected(interface: str) -> None:
    bench = Bench(interface)
    bench.run(30)
    bench.now += 2.0
    bench.publish(bench.filter.step(None, bench.now), 0.1)
    assert bench.violations()["jump"] == 1
    broken = bench.auditor.broken[-1]
    assert broken.limit == "jump" and "after the last command" in broken.note


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize(("held_up", "expected"), [(0.6, {}), (2.0, {"jump": 1})])
def test_a_command_that_was_sent_late_is_distinguished_from_a_jump(
    interface: str, held_up: float, expected: dict[str, int]
) -> None:
    """Computed 1.45 periods after the last command, it is sent 2.05 or 3.45 periods after it."""
    bench = Bench(interface)
    for index in range(34):
        bench.tick(1.0, LIMITS.velocity if index < 30 else None)  # braking: velocities differ too
    bench.now += 1.45 * PERIOD_S
    setpoint = bench.filter.step(None, bench.now)
    bench.now += held_up * PERIOD_S
    bench.publish(setpoint)
    if (
        not expected and interface == "trajectory"
    ):  # the path continues from the time of its computation
        for gap in (0.8, 1.0, 1.0, 1.0):
            bench.tick(gap, None)
    assert bench.violations() == expected
    follows = interface == "trajectory"  # braking, it is on the stop that was sent before
    assert bench.auditor.held_up == (0 if expected or follows else 1)


def test_a_velocity_after_a_stall_begins_at_zero() -> None:
    bench = Bench("velocity")
    bench.run(30)
    assert bench.violations() == {}
    bench.now += 2.0
    bench.publish(bench.filter.step(None, bench.now), 0.1)
    assert bench.violations()["jump"] == 1


def test_a_speed_a_twentieth_too_high_is_detected_with_inexact_stamps() -> None:
    bench, speed = Bench(), 1.05 * LIMITS.velocity[3]
    position = HOME[:6].copy()
    for index in range(60):
        bench.now += PERIOD_S
        position[3] = speed * PERIOD_S * (index - 30)
        bench.auditor.take_command(
            position.copy(), bench.now + bench.random.uniform(-STAMP_S, STAMP_S)
        )
    assert bench.violations()["velocity"] > 0


@pytest.mark.parametrize("publishers", [("a", "b"), ("", "")])
def test_two_publishers_at_once_are_detected(publishers: tuple[str, str]) -> None:
    bench = Bench()
    for sent in range(1, 20):
        for index, publisher in enumerate(publishers):
            bench.now += PERIOD_S / 2
            number = sent + 100 * index
            bench.auditor.take_command(HOME[:6], bench.now, number, publisher)
    assert bench.violations()["publishers"] > 10


def first_command(bench: Bench, position: np.ndarray) -> int:
    bench.auditor.take_command(position[:6], bench.now, 1, "robot")
    return bench.violations().get("jump", 0)


def test_a_path_begins_where_the_arm_is_measured() -> None:
    assert first_command(Bench(), HOME) == 0
    assert first_command(Bench(), HOME + 0.02) == 0
    assert first_command(Bench(), HOME + 0.1) == 1


def test_a_path_may_not_begin_at_an_old_measurement() -> None:
    bench = Bench()
    bench.now += 0.25
    assert first_command(bench, HOME) == 1


def test_a_path_may_not_begin_while_two_drivers_report() -> None:
    bench = Bench()
    bench.measure(HOME, 0.1, "other")
    assert first_command(bench, HOME) == 1


def test_a_path_may_not_begin_while_the_arm_moves() -> None:
    bench = Bench()
    for index in range(20):
        bench.measure(HOME + 0.005 * index, 0.01)
    assert first_command(bench, HOME + 0.05) == 1


def test_a_measurement_that_is_received_after_the_command_counts() -> None:
    bench = Bench()
    bench.now += 0.25
    bench.auditor.take_command(HOME[:6], bench.now, 1, "robot")
    bench.now -= 0.05
    bench.measure(HOME, 0.1)
    assert bench.violations() == {}


@pytest.mark.parametrize(("confirmed", "jumps"), [(True, 0), (False, 1)])
def test_at_another_position_a_path_begins_after_a_confirmation_only(
    confirmed: bool, jumps: int
) -> None:
    bench = Bench()
    bench.run(30)
    while not bench.filter.at_rest:
        bench.tick(1.0, None)
    bench.measure(HOME - 0.3, 1.0)  # pushed
    if confirmed:
        bench.auditor.operator_confirmed(bench.now)
    bench.filter.start(HOME - 0.3)
    bench.run(30)
    assert bench.violations().get("jump", 0) == jumps


def test_a_confirmation_does_not_allow_another_position() -> None:
    bench = Bench()
    bench.run(30)
    bench.measure(HOME - 0.3, 1.0)
    bench.auditor.operator_confirmed(bench.now)
    bench.filter.start(HOME + 0.3)
    bench.run(30)
    assert bench.violations()["jump"] == 1


def test_a_new_publisher_begins_where_the_arm_is_measured() -> None:
    bench = Bench()
    bench.run(30)
    bench.measure(bench.filter.x, 1.0)
    bench.sent = 0
    bench.filter.start(bench.filter.x)
    bench.run(30)
    assert bench.violations() == {} and bench.auditor.starts == 2


def test_commands_that_were_not_received_are_counted() -> None:
    bench, target = Bench(), Bench().random_target()
    bench.run(10)
    for _ in range(5):
        bench.now += PERIOD_S
        bench.filter.step(target, bench.now)
        bench.sent += 1
    bench.run(10)
    assert bench.violations() == {} and bench.auditor.not_received == 5
    bench.sent += 1
    bench.now += PERIOD_S
    bench.publish(bench.filter.step(target, bench.now), 0.7)
    assert bench.violations()["velocity"] == 6


def test_the_first_received_command_is_near_the_arm() -> None:
    for shift, jumps in ((0.0, 0), (0.5, 1)):
        bench = Bench()
        bench.auditor.take_command(HOME[:6] + shift, bench.now, 5, "robot")
        assert bench.violations().get("jump", 0) == jumps and bench.auditor.not_received == 4


def test_a_broken_limit_is_kept_with_the_commands_up_to_it() -> None:
    bench = Bench()
    for index in range(20):
        bench.now += PERIOD_S
        offset = 1e-5 * index if index < 11 else 0.2
        bench.auditor.take_command(HOME[:6] + offset, bench.now, index + 1)
    assert bench.violations()["jerk"] > 0 and bench.auditor.broken[0].number == 12
    assert bench.auditor.broken[0].commands[-1].place[0] == HOME[0] + 0.2


def test_malformed_commands_and_stamps_are_counted() -> None:
    bench = Bench()
    bench.auditor.take_command(HOME, bench.now)
    bench.auditor.take_command(np.full(6, np.nan), bench.now)
    bench.auditor.take_command(HOME[:6], bench.now)
    bench.auditor.take_command(HOME[:6], bench.now - 1.0)
    assert bench.violations() == {"malformed": 2, "stamp": 1}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda times_s, x, v: (times_s[:0], x[:0], v[:0]), "malformed"),
        (lambda times_s, x, v: (times_s[::-1], x, v), "malformed"),
        (lambda times_s, x, v: (times_s, x[:, :5], v), "malformed"),
        (lambda times_s, x, v: (times_s, x * np.nan, v), "malformed"),
        (lambda times_s, x, v: (times_s, x, v + 0.1), "no_stop"),
        (lambda times_s, x, v: (times_s, x + np.array([[0.0], [0.0], [0.1]]), v), "velocity"),
        (lambda times_s, x, v: (times_s, x + 0.1, v), "jump"),
    ],
)
def test_a_wrong_trajectory_is_detected(change, name: str) -> None:
    bench = Bench("trajectory")
    times_s, positions = PERIOD_S * np.arange(1.0, 4.0), np.tile(HOME[:6], (3, 1))
    bench.auditor.take_trajectory(times_s, positions, 0 * positions, bench.now)
    assert bench.violations() == {}
    bench.now += PERIOD_S
    bench.auditor.take_trajectory(*change(times_s, positions, 0 * positions), bench.now)
    assert bench.violations().get(name, 0) > 0


def test_an_arm_that_moves_too_fast_is_detected() -> None:
    bench = Bench()
    for index in range(30):
        bench.measure(HOME + 0.01 * LIMITS.velocity * index, 0.01)
    assert bench.violations() == {}
    for index in range(10):
        bench.measure(HOME + 0.01 * 2.0 * LIMITS.velocity * index, 0.01)
    assert bench.violations()["true_speed"] > 0


def test_motion_without_cause_is_detected() -> None:
    bench = Bench()
    bench.auditor.expect_rest(bench.now)
    for index in range(100):
        bench.measure(HOME + 0.001 * index, 0.01)  # comes to rest
    bench.measure(HOME + 0.1, 2.0)
    assert bench.violations() == {}
    bench.measure(HOME + 0.15, 0.1)
    assert bench.violations() == {"uncaused": 1}
    (broken,) = bench.auditor.broken
    assert broken.limit == "uncaused" and "moved +0.05" in broken.note
    assert "until 3.010 s after" in broken.note and "since then 0.010 s; last" in broken.note
    positions = [float(shown.split()[-1]) for shown in broken.note.split(", ")[1:]]
    assert positions[-1] - positions[-3] == pytest.approx(
        0.05, abs=0.01
    )  # the present position, the one at rest
    bench.auditor.may_move(bench.now)
    bench.measure(HOME + 0.12, 0.1)
    assert bench.violations()["uncaused"] == 1


def test_twists_cannot_be_audited() -> None:
    arm = config()
    with pytest.raises(ValueError, match="twist"):
        Auditor(replace(arm, command=replace(arm.command, interface="twist")))
