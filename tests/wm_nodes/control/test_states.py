"""The states of a robot in real time: a condition that forbids motion always takes precedence."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from wm_nodes.control.states import ALLOWED, MOVING, Conditions, State, next_state, table

FLAGS = [field.name for field in fields(Conditions)]
ALL = [Conditions(*values) for values in itertools.product([False, True], repeat=len(FLAGS))]
CASES = [(state, c) for state in State for c in ALL]


def may_move(c: Conditions) -> bool:
    return c.driver and c.permitted and not c.latched and not c.stopped


def test_the_table_has_exactly_the_possible_transitions():
    transitions: dict[State, set[State]] = {state: set() for state in State}
    for state, c in CASES:
        after = next_state(state, c)
        if after is not state:
            transitions[state].add(after)
    assert transitions == {state: set(after) for state, after in ALLOWED.items()}


def test_no_motion_without_driver_permission_or_under_a_stop():
    for state, c in CASES:
        after = next_state(state, c)
        if after in MOVING:
            assert may_move(c), (state, c)
            assert after is (State.ACTING if c.acting else State.HOMING)


def test_motion_begins_only_from_standing():
    for state, c in CASES:
        after = next_state(state, c)
        if after in MOVING and after is not state:
            assert state is State.STANDING and c.at_rest


def test_a_moving_robot_is_brought_to_rest_first():
    for state, c in CASES:
        if not c.at_rest and not may_move(c):
            assert next_state(state, c) in (State.STOPPING, _resting_goal(c)), (state, c)
        if state in MOVING and not may_move(c):
            assert next_state(state, c) in (State.STOPPING, State.STANDING)


def _resting_goal(c: Conditions) -> State | None:
    """A robot that was in this state already stays in it."""
    if c.latched:
        return State.LATCHED
    return State.STANDING if c.driver else State.NO_DRIVER


def test_a_latch_holds_until_it_is_cleared():
    for c in ALL:
        if c.latched:
            assert next_state(State.LATCHED, c) is State.LATCHED


def test_under_constant_conditions_a_state_is_reached_and_kept():
    for state, c in CASES:
        if not c.at_rest:
            continue
        for _ in range(3):
            state = next_state(state, c)
        assert next_state(state, c) is state


def test_the_table_is_in_the_manual():
    manual = (Path(__file__).parents[3] / "docs" / "arm.md").read_text()
    assert table() in manual


@pytest.mark.parametrize("state", list(State))
def test_no_state_follows_itself_in_the_table(state):
    assert state not in ALLOWED[state]
