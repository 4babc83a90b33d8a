"""The states of a robot that moves in real time, and which may follow which.

Motion (HOMING, ACTING) begins only from STANDING, and ends only at rest: everything that forbids
motion leads through STOPPING.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What the control loop does with the robot."""

    NO_DRIVER = "no driver"  # commands nothing: the driver is not identified, silent or not fresh
    STANDING = "standing"  # holds the robot at rest
    HOMING = "homing"  # moves it to the home pose
    ACTING = "acting"  # follows plans
    STOPPING = "stopping"  # brings it to rest
    LATCHED = "latched"  # at rest until the operator clears the cause


ALLOWED: Mapping[State, frozenset[State]] = {
    State.NO_DRIVER: frozenset({State.STANDING, State.LATCHED, State.STOPPING}),
    State.STANDING: frozenset(set(State) - {State.STANDING}),
    State.HOMING: frozenset({State.STANDING, State.STOPPING}),
    State.ACTING: frozenset({State.STANDING, State.STOPPING}),
    State.STOPPING: frozenset({State.STANDING, State.LATCHED, State.NO_DRIVER}),
    State.LATCHED: frozenset({State.STANDING, State.NO_DRIVER, State.STOPPING}),
}
MOVING = (State.HOMING, State.ACTING)


@dataclass(frozen=True)
class Conditions:
    """What decides the next state.

    driver: it is identified, fresh and takes commands. latched: something must be cleared.
    permitted: the operator allows motion. stopped: a watchdog forbids motion now. at_rest: the
    robot is commanded to stand. acting: an episode is under way. homing: the robot is to go home.
    """

    driver: bool
    latched: bool
    permitted: bool
    stopped: bool
    at_rest: bool
    acting: bool
    homing: bool


def next_state(state: State, c: Conditions) -> State:
    """Return the state that follows in this control period."""
    goal = _goal(c)
    if goal is state:
        return state
    if state in MOVING:
        return State.STANDING if goal is State.STANDING and c.at_rest else State.STOPPING
    if not c.at_rest:
        return State.STOPPING
    if state is State.STANDING or goal not in MOVING:
        return goal
    return State.STANDING


def _goal(c: Conditions) -> State:
    if c.latched:
        return State.LATCHED
    if not c.driver:
        return State.NO_DRIVER
    if c.stopped or not c.permitted:
        return State.STANDING
    if c.acting:
        return State.ACTING
    return State.HOMING if c.homing else State.STANDING


def table() -> str:
    """Return the allowed transitions as a Markdown table."""
    lines = ["| from | to |", "| --- | --- |"]
    for state in State:
        after = ", ".join(one.value for one in State if one in ALLOWED[state])
        lines.append(f"| {state.value} | {after} |")
    return "\n".join(lines)
