"""The displacement of actions that are not executed yet, and the measured lag of a robot."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from docs.results.arm.lag_meter import LagMeter, PendingActions


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0, 1.5), st.floats(0, 1.5))
def test_displacements_of_adjoining_times_add_up(speeds, cut, more):
    pending = PendingActions()
    for index, speed in enumerate(speeds):
        pending.sent(np.float32([speed]), index * 0.05, 0.05)
    end = cut + more
    both = [pending.displacement(a, b) for a, b in ((0.0, cut), (cut, end))]
    whole = pending.displacement(0.0, end)
    assert abs(sum(float(p.sum()) for p in both) - float(whole.sum())) < 1e-9
    assert sum(seconds for _, seconds in pending.between(0.0, end)) <= end + 1e-9


@given(st.integers(0, 20), st.integers(0, 2**31))
def test_a_pure_lag_is_measured_to_the_period(lag, seed):
    path = np.random.default_rng(seed).normal(size=(200, 3)).cumsum(axis=0)
    meter = LagMeter(0.02)
    for index in range(len(path)):
        meter.put(path[index], path[max(index - lag, 0)])
    assert abs(meter.measure() - lag * 0.02) < 1e-9


def test_a_robot_at_rest_keeps_the_last_measured_lag():
    meter = LagMeter(0.02)
    meter.lag_s = 0.1
    for _ in range(300):
        meter.put(np.zeros(3), np.zeros(3))
    assert meter.measure() == 0.1
