"""Which plans count, and which action is due: all by the steady clock."""

from __future__ import annotations

import numpy as np
import pytest

from wm_nodes.control.active_plan import KEPT, ActivePlan, Due
from wm_nodes.records import Origin, Plan

ORIGIN = Origin("mwm", "actor", 1)


def plan(stamp_ns: int, points: int = 4, period_s: float = 0.1) -> Plan:
    actions = np.arange(points, dtype=np.float32)[:, None]
    return Plan(stamp_ns, ORIGIN, ("x",), actions, period_s)


@pytest.fixture
def active() -> ActivePlan:
    """An episode that began at 10 s with the observation of stamp 100."""
    active_plan = ActivePlan(0.1, max_age_s=0.05, max_plan_s=2.0)
    active_plan.observed(100, 10.0, 0.02)
    active_plan.begin(100)
    return active_plan


def action(active: ActivePlan, now_s: float) -> float | str:
    due = active.due(now_s)
    return float(due.action[0]) if isinstance(due, Due) else due


def test_each_point_is_due_in_its_period_and_the_last_is_held_for_max_age(active):
    assert active.accept(plan(100), 10.05) == ("", "")
    assert [action(active, 10.0 + t) for t in (0.05, 0.15, 0.25, 0.39, 0.44)] == [0, 1, 2, 3, 3]
    assert "stale" in str(active.due(10.46))


def test_a_plan_of_a_finer_or_coarser_period_is_resampled(active):
    active.accept(plan(100, points=8, period_s=0.05), 10.0)
    assert action(active, 10.26) == 5
    active.accept(plan(100, points=2, period_s=0.3), 10.0)
    assert action(active, 10.29) == 0 and action(active, 10.31) == 1


def test_no_plan_is_followed_beyond_max_plan_s(active):
    active.accept(plan(100, points=1000), 10.0)
    assert action(active, 11.95) == 19
    assert "2 s at most" in str(active.due(12.01))


def test_points_too_far_apart_are_refused(active):
    reason, text = active.accept(plan(100, points=2, period_s=2.0**31), 10.0)
    assert reason == "spacing" and "expected at most max_plan_s" in text


def test_a_repeated_stamp_renews_no_observation(active):
    active.accept(plan(100), 10.0)
    active.observed(100, 15.0, 0.0)
    assert active.accept(plan(100), 15.0)[0] == "late"
    assert isinstance(active.due(15.0), str)


@pytest.mark.parametrize(
    ("stamp_ns", "now_s", "reason"),
    [(99, 10.0, "stamp"), (10**18, 10.0, "stamp"), (100, 12.1, "late")],
)
def test_a_plan_must_answer_one_of_the_newest_observations(active, stamp_ns, now_s, reason):
    assert active.accept(plan(stamp_ns), now_s)[0] == reason


def test_a_plan_of_an_older_observation_does_not_replace_a_newer_one(active):
    active.observed(200, 10.1, 0.0)
    active.accept(plan(200), 10.1)
    assert active.accept(plan(100), 10.1)[0] == "old"


def test_outside_an_episode_no_plan_counts(active):
    fresh = ActivePlan(0.1, 0.0, 2.0)
    assert fresh.accept(plan(100), 10.0)[0] == "phase"
    active.end()
    assert active.accept(plan(100), 10.0)[0] == "phase"
    assert isinstance(active.due(10.0), str)


def test_after_a_stop_only_plans_of_later_observations_count(active):
    active.accept(plan(100), 10.0)
    active.invalidate(10.05)
    assert isinstance(active.due(10.06), str)
    assert active.accept(plan(100), 10.06)[0] == "before-stop"
    active.observed(200, 10.1, 0.0)
    assert active.accept(plan(200), 10.15) == ("", "")


def test_an_action_has_the_time_of_its_observation(active):
    active.accept(plan(100), 10.05)
    due = active.due(10.05)
    assert isinstance(due, Due)
    assert (due.observed_s, due.image_age_s, due.origin) == (10.0, 0.02, ORIGIN)


def test_a_plan_stays_valid_after_its_observation_is_forgotten(active):
    """A planner that has ended must not make the control loop fail."""
    active.accept(plan(100), 10.0)
    for index in range(2 * KEPT):
        active.observed(200 + index, 10.0 + index / 100, 0.0)
    assert isinstance(active.due(10.0 + 2 * KEPT / 100), str)
    assert isinstance(active.due(10.05), Due)
    assert active.age_s(11.0) == 1.0


def test_every_limit_is_inclusive(active):
    """Exactly at a limit a plan still counts; the figures here are exact in binary."""
    assert active.accept(plan(100, points=1, period_s=2.0), 12.0) == ("", "")
    assert action(active, 12.0) == 0
    assert "2 s at most" in str(active.due(np.nextafter(12.0, 13.0)))
    assert active.accept(plan(100), np.nextafter(12.0, 13.0))[0] == "late"
    assert active.accept(plan(100, period_s=np.nextafter(2.0, 3.0)), 10.0)[0] == "spacing"
    held = ActivePlan(0.25, max_age_s=0.5, max_plan_s=2.0)
    held.observed(100, 10.0, 0.0)
    held.begin(100)
    held.accept(plan(100, points=2, period_s=0.0), 10.0)  # the robot's own period
    assert action(held, 11.0) == 1
    assert "stale" in str(held.due(np.nextafter(11.0, 12.0)))


def test_an_observation_at_the_time_of_a_stop_counts(active):
    active.invalidate(10.0)
    assert active.accept(plan(100), 10.0) == ("", "")


def test_a_plan_of_the_same_observation_replaces_the_one_before(active):
    active.accept(plan(100), 10.0)
    assert active.accept(plan(100, points=1), 10.0) == ("", "")
    assert "stale" in str(active.due(10.3))


def test_the_newest_observations_are_kept_and_no_others():
    active = ActivePlan(0.1, 0.0, 1e9)
    for stamp_ns in range(KEPT + 1):
        active.observed(stamp_ns, 10.0, 0.0)
    active.begin(0)
    assert active.accept(plan(0), 10.0)[0] == "stamp"
    assert active.accept(plan(1), 10.0) == ("", "")


def test_an_episode_begins_without_a_plan_and_with_its_first_observation(active):
    active.accept(plan(100), 10.0)
    active.observed(200, 10.1, 0.0)
    active.begin(200)
    assert "no plan yet" in str(active.due(10.1)) and active.age_s(99.0) == 0.0
    assert active.accept(plan(100), 10.1)[0] == "old"
    assert active.accept(plan(200), 10.1) == ("", "")


def test_the_age_of_a_plan_is_that_of_its_observation(active):
    active.accept(plan(100), 10.5)
    assert active.age_s(10.75) == 0.75
