"""The steady beat: every period, never in bursts, and in real time where that is allowed."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from itertools import pairwise
from statistics import median

import pytest

from wm_nodes.control.periodic_thread import CLOSEST, OTHERS, OWN, PeriodicThread, threads

PERIOD_S = 0.01


def run(beat, beats: int = 50, **options) -> PeriodicThread:
    cadence = PeriodicThread(PERIOD_S, beat, **options)
    cadence.start()
    end = time.monotonic() + 60.0
    while cadence.ticks < beats and cadence.error is None:
        assert time.monotonic() < end, f"{cadence.ticks} of {beats} beats"
        time.sleep(PERIOD_S)
    cadence.stop()
    return cadence


def test_after_a_late_beat_no_burst_makes_up_for_it() -> None:
    count = 0

    def beat() -> None:
        nonlocal count
        count += 1
        if count % 10 == 0:
            time.sleep(3.5 * PERIOD_S)

    cadence = run(beat)
    assert count == cadence.ticks > 10
    assert min(cadence.intervals_s()) >= CLOSEST * PERIOD_S - 1e-4
    after = [b for a, b in pairwise(cadence.intervals_s()) if a > 3 * PERIOD_S]
    assert median(after) >= 0.95 * PERIOD_S  # a whole period, of a new beat; may begin late
    assert max(cadence.intervals_s()) >= 3.5 * PERIOD_S
    assert float(cadence.figures()["jitter_max"]) >= 2.5


def test_an_error_ends_it_and_is_kept() -> None:
    def beat() -> None:
        raise ValueError("no")

    cadence = run(beat)
    assert isinstance(cadence.error, ValueError) and cadence.ticks == 1


@pytest.mark.parametrize("alone", [False, True])
def test_real_time_is_for_the_beat_and_only_if_asked_for_the_rest(alone: bool) -> None:
    end, kinds = threading.Event(), dict[int, int]()
    other = threading.Thread(target=end.wait)
    other.start()

    def beat() -> None:
        kinds[0] = os.sched_getparam(0).sched_priority
        kinds[1] = os.sched_getparam(other.native_id).sched_priority

    before = {thread: os.sched_getscheduler(thread) for thread in threads()}
    try:
        cadence = run(beat, 5, alone=alone)
    finally:
        end.set()
        for thread in set(threads()) & set(before):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(thread, before[thread], os.sched_param(0))
    if not cadence.realtime:
        pytest.skip("this user may not have real-time priority")
    assert kinds == {0: OWN, 1: OTHERS if alone else 0}
