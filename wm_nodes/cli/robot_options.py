"""Options --robot, --task and --camera of commands that open a simulated robot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wm_nodes.cli.arguments import require_one_of
from wm_nodes.errors import UserError
from wm_nodes.robots.registry import SIMULATED, RobotEntry

# A robot of the user, as module:Class or FILE.py:Class: its class sets the defaults.
OWN = RobotEntry("", "", tasks=("",), cameras=("",), action_repeat=0, time_limit=0)


def check(robot: RobotEntry, task: str, camera: str) -> None:
    """Raise UserError where the robot lacks the task or a camera (several, separated by commas).

    A robot of the user, or one with an open set of tasks, checks both itself.
    """
    if robot is OWN or robot.probe:
        return
    require_one_of("task", task, robot.tasks)
    for each in camera.split(","):
        require_one_of("camera", each, robot.cameras)


def simulated(robot: str) -> RobotEntry:
    """Return the entry of the robot that --robot names; OWN for module:Class and FILE.py:Class.

    UserError: there is no such robot.
    """
    if ":" in robot:
        return OWN
    if robot not in SIMULATED:
        raise UserError(
            f"--robot: got {robot!r}, expected one of {', '.join(SIMULATED)}, or your own robot as "
            "module:Class or FILE.py:Class."
        )
    return SIMULATED[robot]


def family(robot: str) -> str:
    """Return the name of the shipped robot that `robot` is or derives from; "" for another."""
    if robot in SIMULATED:
        return robot
    from wm_nodes.robots.opening import adapter_class

    kind = adapter_class(robot)
    return next((name for name in SIMULATED if issubclass(kind, adapter_class(name))), "")


def refuse_unknown(robot: str, **options: object) -> None:
    """Raise UserError for an option that is set but that the user's robot does not take."""
    if simulated(robot) is not OWN:
        return
    from wm_nodes.robots.opening import takes

    for name, value in options.items():
        if value and not takes(robot, name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option}: got {value!r}, expected no value, as the constructor of {robot} has "
                "no such parameter. Leave it out."
            )


def refuse_background(robot: str, background: str) -> None:
    """Raise UserError for a background that the robot does not take."""
    from wm_nodes.robots.opening import takes

    if background and not takes(robot, "background"):
        having = ", ".join(name for name, entry in SIMULATED.items() if entry.background)
        raise UserError(
            f"--background: got {background!r}, but robot {robot} takes none, expected robot "
            f"{having}. Leave it out."
        )


def without_unset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those left at "" or 0: a robot of the user has defaults."""
    return {name: value for name, value in settings.items() if name == "seed" or value}
