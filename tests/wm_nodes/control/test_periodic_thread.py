"""The periodic thread: one tick per period, never in bursts, in real time where allowed."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from itertools import pairwise
from statistics import median

import pytest

from wm_nodes.control import periodic_thread
from wm_nodes.control.periodic_thread import (
    CLOSEST,
    OTHERS,
    OWN,
    SPIN_S,
    SPIN_SHARE,
    PeriodicThread,
    threads,
)

PERIOD_S = 0.01


def run(tick, ticks: int = 50, **options) -> PeriodicThread:
    periodic = PeriodicThread(PERIOD_S, tick, **options)
    periodic.start()
    end = time.monotonic() + 60.0
    while periodic.ticks < ticks and periodic.error is None:
        assert time.monotonic() < end, f"{periodic.ticks} of {ticks} ticks"
        time.sleep(PERIOD_S)
    periodic.stop()
    return periodic


def test_a_late_tick_is_not_followed_by_a_burst() -> None:
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count % 10 == 0:
            time.sleep(3.5 * PERIOD_S)

    periodic = run(tick)
    assert count == periodic.ticks > 10
    assert min(periodic.intervals_s()) >= CLOSEST * PERIOD_S - 1e-4
    after = [b for a, b in pairwise(periodic.intervals_s()) if a > 3 * PERIOD_S]
    assert median(after) >= 0.95 * PERIOD_S  # a whole period, of a new tick; may begin late
    assert max(periodic.intervals_s()) >= 3.5 * PERIOD_S
    assert float(periodic.figures()["jitter_max"]) >= 2.5


class Clock:
    """Steady time that passes only while something waits for it, and a little with each look."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self.late_s: list[float] = []  # how much longer than asked the next waits are

    def monotonic(self) -> float:
        self.now += 1e-7
        return self.now


class End:
    """The event that ends the thread: set after so many calls of `tick`."""

    def __init__(self, clock: Clock, periodic: PeriodicThread, ticks: int) -> None:
        self.clock, self.periodic, self.ticks = clock, periodic, ticks

    def is_set(self) -> bool:
        return self.periodic.ticks >= self.ticks

    def wait(self, seconds: float) -> bool:
        self.clock.waits.append(seconds)
        late_s = self.clock.late_s
        self.clock.now += seconds + (late_s.pop(0) if late_s else 0.0)
        return False


def simulated(
    monkeypatch, busy_s: list[float], late_s: tuple[float, ...] = (), period_s: float = 0.1
) -> tuple[list[float], list[float]]:
    """Return intervals and waits between calls that take `busy_s` each, in simulated time.

    late_s: how much longer than asked the waits are.
    """
    clock, durations = Clock(), iter(busy_s)
    clock.late_s = list(late_s)

    def tick() -> None:
        clock.now += next(durations)

    periodic = PeriodicThread(period_s, tick)
    periodic._end = End(clock, periodic, len(busy_s))
    monkeypatch.setattr(periodic_thread, "time", clock)
    monkeypatch.setattr(periodic_thread, "take_priority", lambda own, others: False)
    periodic._run()
    assert periodic.error is None and periodic.ticks == len(busy_s)
    return periodic.intervals_s(), clock.waits


def test_calls_are_a_period_apart_however_long_they_take(monkeypatch):
    intervals, _ = simulated(monkeypatch, [0.01, 0.03, 0.0, 0.06, 0.02])
    assert intervals == pytest.approx([0.1] * 4, abs=1e-5)


@pytest.mark.parametrize(
    ("late_s", "intervals"),
    [
        (0.02, [0.12, 0.08]),  # the next call follows sooner, in the old schedule
        (0.0299, [0.1299, 0.0701]),
        (0.0301, [0.1301, 0.1]),  # it would follow too soon: a new schedule
        (0.25, [0.35, 0.1]),
    ],
)
def test_after_a_late_call_the_next_is_sooner_but_not_too_soon(monkeypatch, late_s, intervals):
    actual, _ = simulated(monkeypatch, [0.0] * 4, (0.0, late_s + SPIN_S))
    assert actual == pytest.approx([0.1, *intervals], abs=1e-5)


def test_after_a_call_longer_than_a_period_the_next_follows_at_once(monkeypatch):
    intervals, _ = simulated(monkeypatch, [0.0, 0.12, 0.0, 0.0])
    assert intervals == pytest.approx([0.1, 0.12, 0.1], abs=1e-5)


@pytest.mark.parametrize(("period_s", "spin_s"), [(0.1, SPIN_S), (0.001, SPIN_SHARE * 0.001)])
def test_the_end_of_a_wait_is_busy_and_only_the_end(monkeypatch, period_s, spin_s):
    _, waits = simulated(monkeypatch, [0.25 * period_s] * 3, period_s=period_s)
    assert waits == pytest.approx([0.75 * period_s - spin_s] * 3, abs=1e-5)


def test_the_figures_are_of_the_newest_calls():
    periodic = PeriodicThread(0.01, lambda: None)
    assert periodic.figures() == {}
    periodic._intervals.append(0.01)
    assert periodic.figures() == {}
    periodic._intervals.append(0.015)
    periodic._busy.extend([0.001, 0.003])
    periodic.ticks, periodic.realtime = 3, True
    assert periodic.figures() == {
        "period_ms": "12.500",
        "jitter_p99": "0.4950",
        "jitter_max": "0.5000",
        "busy_p99_ms": "2.980",
        "beats": "3",
        "realtime": "true",
    }
    periodic._intervals.append(0.004)
    assert periodic.figures()["jitter_max"] == "0.6000"


def test_after_a_failed_tick_the_thread_ends_and_notifies_its_owner() -> None:
    notified = threading.Event()

    def tick() -> None:
        raise SystemExit

    periodic = run(tick, failed=notified.set)
    assert isinstance(periodic.error, SystemExit) and periodic.ticks == 1
    assert notified.is_set() and not periodic._thread.is_alive()


def test_it_can_be_stopped_before_it_is_started_and_by_its_own_call() -> None:
    PeriodicThread(PERIOD_S, lambda: None).stop()
    periodic = PeriodicThread(PERIOD_S, lambda: periodic.stop())
    periodic.start()
    periodic._thread.join(60.0)
    assert periodic.ticks == 1 and periodic.error is None


def test_an_error_ends_the_thread_and_is_kept() -> None:
    def tick() -> None:
        raise ValueError("no")

    periodic = run(tick)
    assert isinstance(periodic.error, ValueError) and periodic.ticks == 1


@pytest.mark.parametrize("alone", [False, True])
def test_real_time_priority_is_for_the_tick_and_optionally_for_other_threads(alone: bool) -> None:
    end, priorities = threading.Event(), dict[int, int]()
    other = threading.Thread(target=end.wait)
    other.start()

    def tick() -> None:
        priorities[0] = os.sched_getparam(0).sched_priority
        priorities[1] = os.sched_getparam(other.native_id).sched_priority

    before = {thread: os.sched_getscheduler(thread) for thread in threads()}
    try:
        periodic = run(tick, 5, alone=alone)
    finally:
        end.set()
        for thread in set(threads()) & set(before):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(thread, before[thread], os.sched_param(0))
    if not periodic.realtime:
        pytest.skip("this user may not have real-time priority")
    assert priorities == {0: OWN, 1: OTHERS if alone else 0}
