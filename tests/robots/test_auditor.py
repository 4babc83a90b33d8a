"""What the auditor of faults hears from a guarded arm: nothing that breaks a limit, ever."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.robots.arms import config, kinematics
from wm_nodes.faults.auditor import Auditor
from wm_nodes.robots.arm.guard import RESYNC, Guard
from wm_nodes.robots.arm.safety import SafetyFilter

PERIOD_S = 0.02
REST = np.zeros(7)


class Heard:
    """A guard heard by an auditor; the arm moves as told, and may be put elsewhere."""

    def __init__(self, place: np.ndarray) -> None:
        arm = config()
        self.auditor = Auditor(arm)
        self.guard = Guard(
            SafetyFilter(arm.limits, kinematics(), PERIOD_S), arm.watch, arm.arm_joints
        )
        self.place, self.now, self.speaks = place, 100.0, True

    def tick(self, wanted: np.ndarray | None) -> None:
        """One period; what is `wanted` is planned in this very moment."""
        self.now += PERIOD_S
        if self.speaks:
            self.guard.saw_driver(self.place, REST, self.now)
            self.auditor.hear_place(self.place, self.now)
        setpoint = self.guard.step(wanted, self.now, self.now)
        if self.guard.knows:
            self.auditor.hear(setpoint.position[:6], self.now)
        if setpoint.velocity.any():
            self.place = setpoint.position

    def found(self) -> dict[str, int]:
        self.auditor.finish()
        return self.auditor.violations


def wanted(random: np.random.Generator) -> np.ndarray:
    return np.append(random.choice([-1.0, 1.0], 6), 0.0) * config().limits.velocity


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("waits", range(12))
def test_an_arm_that_was_pushed_may_be_told_to_move_at_any_moment(seed: int, waits: int) -> None:
    random = np.random.default_rng(seed)
    bench = Heard(config().home.copy())
    for _ in range(10):
        bench.tick(None)
    bench.place = bench.place + np.append(random.choice([-2.0, 2.0], 6), 0.0) * RESYNC
    for _ in range(waits):
        bench.tick(None)
    way = wanted(random)
    for _ in range(40):
        bench.tick(way)
    assert bench.found() == {}


@pytest.mark.parametrize("seed", range(5))
def test_an_arm_that_comes_back_elsewhere_may_be_told_to_move_at_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    bench = Heard(config().home.copy())
    for _ in range(10):
        bench.tick(None)
    bench.speaks = False
    for _ in range(30):
        bench.tick(None)
    bench.speaks = True
    bench.place = bench.place + np.append(random.uniform(0.0, 0.2, 6), 0.0)
    way = wanted(random)
    for _ in range(60):
        bench.tick(way)
    assert bench.auditor.jumps == 1 and bench.found() == {}


def test_a_broken_limit_is_kept_with_the_commands_up_to_it() -> None:
    arm = config()
    auditor, place = Auditor(arm), arm.home[:6].copy()
    for index in range(20):
        along = 1e-4 * index if index < 11 else 0.02
        auditor.hear(place + along, index * PERIOD_S, index + 1)
    auditor.finish()
    assert auditor.violations["jerk"] > 0 and auditor.broken[0].number == 12
    assert auditor.broken[0].commands[-1].place[0] == place[0] + 0.02


def test_a_new_sender_that_was_heard_late_has_not_broken_anything() -> None:
    random = np.random.default_rng(0)
    bench = Heard(config().home.copy())
    for _ in range(30):
        bench.tick(wanted(random))
    late, bench = bench.auditor, Heard(bench.place)  # a new robot node; the same ears
    told = []
    bench.auditor.hear = lambda place, now, sent=0: told.append((place, now))
    way = wanted(random)
    for _ in range(30):
        bench.tick(way)
    for sent, (place, now) in enumerate(told[4:], start=5):
        late.hear(place, now + 5.0, sent)
    late.finish()
    assert late.violations == {} and late.unheard == 4


def test_what_did_not_come_is_counted_and_audited_by_nobody() -> None:
    arm = config()
    auditor, place = Auditor(arm), arm.home[:6].copy()
    for index in range(20):
        if index < 10 or index > 14:
            auditor.hear(place + 0.01 * (index > 12), index * PERIOD_S, index + 1)
    auditor.finish()
    assert auditor.violations == {} and auditor.unheard == 5
